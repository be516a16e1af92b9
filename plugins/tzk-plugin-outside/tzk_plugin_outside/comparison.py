"""How well statistics detect other data: areas under ROC curves, detections at a threshold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from tzk_core.model import TzK
from tzk_plugin_outside.detection import STATISTICS, Reference, statistics
from tzk_plugin_outside.evidence import Evidence
from tzk_plugin_outside.roc import roc_area, threshold


def detections(
    model: TzK,
    knowledge: Sequence[str],
    validation: Mapping[str, Evidence],
    *,
    inside: Evidence,
    outside: Evidence,
    false_alarms: float = 0.05,
) -> list[dict[str, Any]]:
    """One row a statistic, from evidence about `knowledge`.

    No statistic is fitted to data from outside.

    Returns:
        Rows with these columns.
        area: the probability that the statistic is larger inside than outside.
        standard_error: of the area.
        threshold: the one below which the share `false_alarms` of validation data lie.
        detected: the share outside that lies below it.
        false_alarms: the share inside that lies below it, on data that the threshold was not chosen on.
    """
    reference = Reference.of(model, knowledge, validation)
    chosen_on = statistics(Evidence.joined(list(validation.values())), reference)
    here, there = statistics(inside, reference), statistics(outside, reference)
    rows = []
    for name in here:
        found = detection(chosen_on[name], here[name], there[name], false_alarms=false_alarms)
        rows.append({"statistic": name, "meaning": STATISTICS[name]} | found)
    return rows


def detection(chosen_on: Tensor, here: Tensor, there: Tensor, *, false_alarms: float) -> dict[str, Any]:
    """Area, threshold and detections of one statistic, as the columns of `detections`.

    Args:
        chosen_on: the statistic of validation data, (m,). here: of data inside, (n,). there: of data outside, (k,).
    """
    area, limit = roc_area(here, there), threshold(chosen_on, false_alarms)
    return {
        "area": area.area,
        "standard_error": area.standard_error,
        "threshold": limit,
        "detected": (there < limit).double().mean().item(),
        "false_alarms": (here < limit).double().mean().item(),
    }
