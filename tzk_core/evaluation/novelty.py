""""None of them": the verdict that an observation shows no knowledge type, by one statistic and a threshold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from tzk_core.errors import TzkError
from tzk_core.evaluation.detection import NEED_DATA, NEED_KNOWLEDGE, STATISTICS, Reference, check_statistic, statistics
from tzk_core.evaluation.evidence import Evidence
from tzk_core.evaluation.roc import threshold as threshold_at
from tzk_core.model import TzK

DEFAULT, WITHOUT_KNOWLEDGE = "best", "likelihood"


@dataclass(frozen=True)
class Verdicts:
    """values: (n,), of the statistic. none: (n,), whether it lies below the threshold. p_value: (n,), the share of
    validation data, and of the observation itself among them, that is at least as odd; None without validation data."""

    values: Tensor
    none: Tensor
    p_value: Tensor | None


@dataclass(frozen=True)
class Novelty:
    """The statistic, the threshold below which an observation is none of them, and what it was chosen on: the statistic
    of validation data, (n,), and how many these were by data set; empty if a person gave the threshold."""

    statistic: str
    threshold: float
    reference: Reference
    false_alarms: float | None = None
    validation: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.float64))
    counts: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def chosen(
        cls,
        model: TzK,
        knowledge: Sequence[str],
        validation: Mapping[str, Evidence],
        false_alarms: float = 0.05,
        statistic: str | None = None,
    ) -> Novelty:
        """With the threshold below which the share `false_alarms` of validation data lie, up to one of them.

        validation: by data set, evidence about `knowledge` of samples in which some of it is present. Raises `TzkError`
        for an unknown statistic, or one that cannot be had of this evidence.
        """
        statistic = usable(statistic, knowledge)
        reference = Reference.of(model, knowledge, validation)
        joined = Evidence.joined(list(validation.values()))
        values = _values(joined, reference, statistic)
        counts = {name: len(each) for name, each in validation.items()}
        return cls(statistic, threshold_at(values, false_alarms), reference, false_alarms, values.sort().values, counts)

    @classmethod
    def given(cls, model: TzK, knowledge: Sequence[str], threshold: float, statistic: str | None = None) -> Novelty:
        """With a threshold of the user's own, no data needed; raises `TzkError` for a statistic that needs some."""
        statistic = usable(statistic, knowledge)
        if statistic in NEED_DATA:
            raise TzkError(f"{statistic!r} needs validation data: leave --threshold out, or take another statistic")
        return cls(statistic, threshold, Reference.of(model, knowledge, {}))

    def verdicts(self, evidence: Evidence) -> Verdicts:
        """On every observation of the evidence; one whose statistic is not a number is none of them."""
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
    """The statistic of this name, None being the default; TzkError if there is none, or it needs more knowledge."""
    name = name or (DEFAULT if knowledge else WITHOUT_KNOWLEDGE)
    check_statistic(name)
    if name in NEED_KNOWLEDGE and not knowledge:
        without = ", ".join(each for each in STATISTICS if each not in NEED_KNOWLEDGE)
        raise TzkError(f"{name!r} is about knowledge, and this model has none: take one of {without}")
    return name


def _values(evidence: Evidence, reference: Reference, statistic: str) -> Tensor:
    found = statistics(evidence, reference)
    if statistic not in found:
        raise TzkError(f"{statistic!r} needs grey levels, and this model's data have none: take another statistic")
    return found[statistic]
