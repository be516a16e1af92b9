""" "None of them": the verdict that an observation shows no knowledge type."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from tzk_core.errors import TzkError
from tzk_core.model import TzK
from tzk_plugin_outside.detection import (
    NEED_DATA,
    NEED_KNOWLEDGE,
    ON_REQUEST,
    STATISTICS,
    Reference,
    check_statistic,
    statistics,
)
from tzk_plugin_outside.evidence import Evidence
from tzk_plugin_outside.roc import threshold as threshold_at

DEFAULT, WITHOUT_KNOWLEDGE = "best", "likelihood"


@dataclass(frozen=True)
class Verdicts:
    """Verdicts on n observations.

    values: of the statistic, (n,).
    none: whether it lies below the threshold, (n,).
    p_value: the share of validation data, the observation itself included, that is at least as odd, (n,). None without
        validation data.
    """

    values: Tensor
    none: Tensor
    p_value: Tensor | None


@dataclass(frozen=True)
class Novelty:
    """A statistic, and the threshold below which an observation is none of them.

    validation: the statistic of the validation data that the threshold is from, (n,); empty for a user's threshold.
    counts: of these data, by data set.
    """

    statistic: str
    threshold: float
    reference: Reference
    false_alarms: float | None = None
    validation: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.float64))
    counts: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def from_validation(
        cls,
        model: TzK,
        knowledge: Sequence[str],
        validation: Mapping[str, Evidence],
        *,
        false_alarms: float = 0.05,
        statistic: str | None = None,
    ) -> Novelty:
        """Choose the threshold below which the share `false_alarms` of validation data lie.

        Args:
            validation: by data set, evidence about `knowledge` of samples in which some of it is present.
            false_alarms: exact up to one sample.

        Raises:
            TzkError: for an unknown statistic, or one that this evidence does not allow.
        """
        statistic = usable(statistic, knowledge)
        reference = Reference.of(model, knowledge, validation)
        joined = Evidence.joined(list(validation.values()))
        values = _values(joined, reference, statistic)
        counts = {name: len(own) for name, own in validation.items()}
        return cls(statistic, threshold_at(values, false_alarms), reference, false_alarms, values.sort().values, counts)

    @classmethod
    def from_threshold(
        cls, model: TzK, knowledge: Sequence[str], threshold: float, *, statistic: str | None = None
    ) -> Novelty:
        """Take a threshold of the user's own, without data.

        Raises:
            TzkError: for a statistic that needs data.
        """
        statistic = usable(statistic, knowledge)
        if statistic in NEED_DATA:
            raise TzkError(f"{statistic!r} needs validation data: leave --threshold out, or take another statistic")
        return cls(statistic, threshold, Reference.of(model, knowledge, {}))

    def verdicts(self, evidence: Evidence) -> Verdicts:
        """Verdicts on all observations; one whose statistic is nan is none of them."""
        values = _values(evidence, self.reference, self.statistic)
        none = ~(values >= self.threshold)
        if not len(self.validation):
            return Verdicts(values, none, None)
        odder = torch.searchsorted(self.validation, values.nan_to_num(nan=-torch.inf), right=True)
        return Verdicts(values, none, (1 + odder).double() / (1 + len(self.validation)))

    def to_json(self) -> dict[str, Any]:
        return {
            "statistic": {"name": self.statistic, "meaning": STATISTICS[self.statistic]},
            "threshold": {
                "value": self.threshold,
                "false_alarms": self.false_alarms,
                "validation": dict(self.counts),
            },
        }


def usable(name: str | None, knowledge: Sequence[str]) -> str:
    """The statistic of this name, or the default.

    Raises:
        TzkError: if there is none, or it needs knowledge.
    """
    name = name or (DEFAULT if knowledge else WITHOUT_KNOWLEDGE)
    check_statistic(name)
    if name in NEED_KNOWLEDGE and not knowledge:
        without = ", ".join(other for other in STATISTICS if other not in NEED_KNOWLEDGE)
        raise TzkError(f"{name!r} is about knowledge, and this model has none: take one of {without}")
    return name


def _values(evidence: Evidence, reference: Reference, statistic: str) -> Tensor:
    values = statistics(evidence, reference)
    if statistic not in values and statistic in ON_REQUEST:
        raise TzkError(f"{statistic!r} is fitted to training images and not in this evidence: make that with it")
    if statistic not in values:
        raise TzkError(f"{statistic!r} needs grey levels, and this model's data have none: take another statistic")
    return values[statistic]
