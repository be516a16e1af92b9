"""The model of a run on a split of its data: results.json, and its preconditions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from tzk_core.config import Config, MetricTable
from tzk_core.data.dequantise import dequantise
from tzk_core.errors import TzkError
from tzk_core.evaluation.constraint import constraint_notes
from tzk_core.evaluation.likelihood import EvaluationSplit
from tzk_core.evaluation.metrics import AskedMetric
from tzk_core.evaluation.partitions import Labels, matched
from tzk_core.evaluation.results import evaluate, take_part
from tzk_core.model import TzK
from tzk_core.plugins import Metric, registry
from tzk_core.random_streams import stream
from tzk_core.runs.data import RunData
from tzk_core.world import ALONE, World


class RunEvaluation:
    """A model on the data of a config, evaluated as the config says.

    notes: what results have to say of the config.
    """

    def __init__(self, config: Config, data: RunData, model: TzK, *, notes: Sequence[str] = ()) -> None:
        self.config, self.data, self.model, self.notes = config, data, model, tuple(notes)

    @property
    def knowledge_names(self) -> tuple[str, ...]:
        """The knowledge types that can be evaluated: those of both the config and the model."""
        return tuple(name for name in self.data.annotation.names if name in self.model.knowledge)

    def evaluable(self, split: str) -> list[str]:
        """A note for whatever `results` can evaluate in part only, or not at all.

        Needs the labels alone, and no trained model. Raises `TzkError` for what cannot be evaluated: an empty split, a
        glob without a match, a partition or a mean that fits no data set.
        """
        labels = self._labels(split, self.config.evaluation.limit)
        partitions, means = self._wholes()
        if problems := list(labels.problems(partitions, means)):
            raise TzkError("\n".join(problems))
        return list(labels.notes(partitions))

    def results(
        self,
        split: str,
        limit: int | None,
        *,
        multipliers: Mapping[str, float],
        step: int | None,
        last_step: int | None,
        world: World = ALONE,
    ) -> dict[str, Any]:
        """The contents of results.json.

        Args:
            limit: at most so many samples of each data set, chosen by seed; by default as the config has it.
            multipliers: λ by knowledge type, at the end of training.
            step: after how many steps the model is; None where that is not known.
            last_step: how many steps were trained in all.
            world: whose other processes call `take_part` meanwhile.
        """
        limit = limit or self.config.evaluation.limit
        all_partitions, all_means = self._wholes()
        partitions, without = self._complete(all_partitions, "mixture")
        means, without_means = self._complete(all_means, "mean")
        results = evaluate(
            self.model,
            [self.split(name, split, limit) for name in self.data.datasets],
            {name: samples.T for name, samples in self.data.split("train").items()},
            partitions=partitions,
            means=means,
            published=[table.model_dump() for table in self.config.published],
            multipliers=multipliers,
            importance_samples=self.config.evaluation.importance_samples,
            metrics=[_asked(table) for table in self.config.evaluation.metrics],
            seed=self.config.seed,
            world=world,
        )
        labels, objective = self._labels(split, limit), self.config.objective
        notes = [*self.notes, *self._differences(), *self._lacking(split)]
        if step is not None and last_step not in (None, step):
            notes.append(f"The model is that of step {step:,} of {last_step:,}, the best by validation.")
        notes += [*without, *without_means]
        notes += [*labels.problems({}, means), *labels.notes(partitions)]
        fixed = 0 in (objective.multiplier_max, objective.multiplier_rate)
        notes += constraint_notes(multipliers, objective.tolerance, fixed=fixed)
        notes += results.get("notes", [])
        results |= {"step": step} if step is not None else {}
        return results | {"notes": notes} if notes else results

    def take_part(self, split: str, world: World, limit: int | None = None) -> None:
        """Score a part of the samples for the first process, which calls `results`."""
        evaluation = self.config.evaluation
        limit = limit or evaluation.limit
        take_part(
            self.model,
            [self.split(name, split, limit) for name in self.data.datasets],
            partitions=self._complete(self._wholes()[0], "mixture")[0],
            importance_samples=evaluation.importance_samples,
            seed=self.config.seed,
            world=world,
        )

    def split(self, dataset: str, split: str, limit: int | None) -> EvaluationSplit:
        """One split of one data set, dequantised, with presence and characteristics."""
        data, seed = self.data, self.config.seed
        samples = data.limited(dataset, split, limit)
        annotation, names = data.annotation.of({dataset: samples}), self.knowledge_names
        columns = [annotation.names.index(name) for name in names]
        observed = annotation.characteristics[dataset]

        def dequantised(*number: int) -> Tensor:
            return dequantise(samples.T, stream(seed, "evaluation", dataset, split, *number), data.levels)

        return EvaluationSplit(
            dataset=dataset,
            split=split,
            T=dequantised(),
            presence=annotation.presence[dataset][:, columns],
            knowledge=names,
            characteristics={name: C for name, C in observed.items() if self._takes(name, C)},
            levels=data.levels,
            original_dims=data.datasets[dataset].original_dims,
            share=float(data.batches.weights[dataset]),
            draws=1 if data.levels is None else self.config.evaluation.dequantisations,
            redraw=dequantised,
        )

    def _takes(self, name: str, C: Tensor) -> bool:
        """Whether the model has this knowledge with as many characteristics as the data supply.

        Imported knowledge may have another number of them.
        """
        return name in self.knowledge_names and self.model.find(name).characteristics == C.shape[1]

    def _labels(self, split: str, limit: int | None) -> Labels:
        """What is known of the knowledge in the samples that are evaluated."""
        samples = {name: self.data.limited(name, split, limit) for name in self.data.datasets}
        names, annotation = self.knowledge_names, self.data.annotation.of(samples)
        columns = [annotation.names.index(name) for name in names]
        return Labels(split, names, {name: table[:, columns] for name, table in annotation.presence.items()})

    def _wholes(self) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
        """Members of partitions and means, by title. Raises `TzkError` for an unmatched glob."""
        evaluation, names = self.config.evaluation, self.data.annotation.names
        return matched(evaluation.partitions, names), matched(evaluation.means, names)

    def _lacking(self, split: str) -> list[str]:
        """Notes of the data sets some of whose samples are left out of the tables."""
        counts = {name: self.data.lacking(name, split) for name in self.data.datasets}
        return [
            f"{count:,} of the {len(self.data.split(split)[name]):,} samples of {name!r} lack values of T and are left "
            "out of these tables; `TzK.marginal` estimates their log p."
            for name, count in counts.items()
            if count
        ]

    def _complete(self, wholes: Mapping[str, Sequence[str]], what: str) -> tuple[dict[str, list[str]], list[str]]:
        """The partitions or means that are complete in the model; notes for the others.

        A part of the members would give another figure.
        """
        complete, notes = {}, []
        for title, members in wholes.items():
            if gone := [name for name in members if name not in self.model.knowledge]:
                whole = f"the config has it over {len(members)} knowledge types, and this model lacks {', '.join(gone)}"
                notes.append(f"The {what} {title!r} is left out: {whole}.")
            else:
                complete[title] = list(members)
        return complete, notes

    def _differences(self) -> list[str]:
        """A note for each difference between the knowledge of the model and of the config."""
        notes, opaque, names = [], self.model.opaque, self.data.annotation.names
        if gone := [name for name in names if name not in self.knowledge_names and name not in opaque]:
            notes.append(f"Knowledge types of the config that this model does not have any more: {', '.join(gone)}.")
        if others := [name for name, _ in self.model.named_knowledge() if name not in self.knowledge_names]:
            notes.append(
                "Knowledge types of this model that are not evaluated, since no [[knowledge]] of the config says in "
                f"which samples they are present: {', '.join(others)}."
            )
        return notes + [f"Not evaluated: {knowledge.reason}." for knowledge in opaque.values()]


def _asked(table: MetricTable) -> AskedMetric:
    """A metric that the config asks for; its module is imported when it is made."""
    part = registry().find(Metric, table.type)
    return AskedMetric(
        name=part.spec.name,
        plugin=part.plugin,
        distribution=part.distribution,
        version=part.version,
        arguments=table.arguments,
        make=lambda: part.load()(**table.arguments),
    )
