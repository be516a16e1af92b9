"""The metric `outside`: a table of areas under ROC curves against another data set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tzk_core.data.dequantise import dequantise
from tzk_core.errors import TzkError
from tzk_core.evaluation.metrics import Column, Evaluated
from tzk_core.plugins import Dataset, registry
from tzk_core.random_streams import stream
from tzk_core.runs.tables import limited
from tzk_plugin_outside.detection import Reference, statistics
from tzk_plugin_outside.evidence import Evidence, evidence
from tzk_plugin_outside.roc import roc_area


class Outside:
    """How well statistics tell the evaluated data from others, by areas under ROC curves.

    `tzk ood` does the same, and has the statistics that need validation data too.

    Args:
        dataset: the registered name of the other data set, of the same shape and grey levels.
        dataset_arguments: of that data set.
        limit: at most so many of its samples, chosen by seed.
    """

    columns = (
        Column("area", "probability", "higher"),
        Column("standard_error", "probability"),
        Column("inside", "samples"),
        Column("outside", "samples"),
    )

    def __init__(
        self, dataset: str, dataset_arguments: Mapping[str, Any] | None = None, limit: int | None = None
    ) -> None:
        self.dataset, self.arguments, self.limit = dataset, dict(dataset_arguments or {}), limit

    def rows(self, evaluated: Evaluated) -> list[dict[str, float | str | None]]:
        """One row a statistic, with the area under its ROC curve.

        The area is the probability that the statistic is larger inside than outside.

        Raises:
            TzkError: for a data set of another shape or number of grey levels.
        """
        held_out, model = evaluated.held_out, evaluated.model
        other = registry().find(Dataset, self.dataset).load()(**self.arguments)
        if (tuple(other.shape), other.levels) != (model.shape, held_out.levels):
            raise TzkError(
                f"data set {self.dataset!r} is of shape {tuple(other.shape)} with {other.levels} grey levels; the "
                f"model's data are of shape {model.shape} with {held_out.levels}"
            )
        samples = limited(
            other.split(held_out.split), self.dataset, held_out.split, limit=self.limit, seed=evaluated.seed
        )
        T = dequantise(samples.T, stream(evaluated.seed, "evaluation", self.dataset, held_out.split), other.levels)
        reference = Reference.of(model, held_out.knowledge, {})
        here, there = (statistics(self._evidence(evaluated, T), reference) for T in (held_out.T, T))
        rows: list[dict[str, float | str | None]] = []
        for name, values in here.items():
            area = roc_area(values, there[name])
            rows.append(
                {
                    "outside data": self.dataset,
                    "statistic": name,
                    "area": area.area,
                    "standard_error": area.standard_error,
                    "inside": len(values),
                    "outside": len(T),
                }
            )
        return rows

    def _evidence(self, evaluated: Evaluated, T: Any) -> Evidence:
        held_out = evaluated.held_out
        return evidence(
            evaluated.model,
            T,
            held_out.knowledge,
            importance_samples=evaluated.importance_samples,
            seed=evaluated.seed,
            levels=held_out.levels,
        )
