"""One spec added to the model of a run: data, knowledge types, training and evaluation."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tzk_core.config import AdditionSpec, Base, KnowledgeTable
from tzk_core.config.merging import merged, narrowed
from tzk_core.data.annotation import annotate
from tzk_core.data.protocol import Samples
from tzk_core.errors import TzkError, nearest
from tzk_core.evaluation.constraint import constraint_notes
from tzk_core.knowledge.collection import KnowledgeDict
from tzk_core.model import TzK
from tzk_core.names import glob
from tzk_core.plugins import Dataset as DatasetSpec
from tzk_core.plugins import registry
from tzk_core.runs.experiment import Experiment
from tzk_core.runs.settings import addition_settings
from tzk_core.storage.checkpoint import load_checkpoint
from tzk_core.training.adding.growth import Report, train_addition
from tzk_core.training.adding.negatives import Source
from tzk_core.training.observers import Observer, Progress
from tzk_core.world import ALONE, World


class AdditionRun:
    """A spec, with its model and data loaded; nothing is trained or written yet.

    Attributes:
        model: the run's.
        experiment: that of the new knowledge alone, with the same shared flow, the new types, and the data sets that
            the spec has or names.

    Raises `TzkError` for data that cannot be had or do not fit the model, and for names that are taken.
    """

    def __init__(self, addition: AdditionSpec, base: Base, checkpoint: Path) -> None:
        self.addition, self.base = addition, base
        self.model: TzK = load_checkpoint(checkpoint)
        known = (*self.model.knowledge, *self.model.opaque)
        self.experiment = Experiment(narrowed(base.config, addition), self.model.flow, known)
        for name, dataset in self.experiment.datasets.items():
            if tuple(dataset.shape) != self.model.shape:
                raise TzkError(
                    f"data set {name!r} has observations of shape {tuple(dataset.shape)}, and the model of the run is "
                    f"one of {self.model.shape}: give it the same size"
                )
        self._check_levels()
        for name, knowledge in self.experiment.model.named_knowledge():
            self.model.check_addition(name, knowledge)
        for name, splits in self.experiment.describe()["data"].items():
            for split in ("train", "test"):
                if not splits[split]:
                    raise TzkError(f"the {split} split of data set {name!r} is empty: expected samples in it")
        self.model.to(self.experiment.device)

    @property
    def names(self) -> tuple[str, ...]:
        """The new knowledge types."""
        return self.experiment.knowledge_names

    def train(
        self,
        folder: Path | None = None,
        progress: Callable[[Progress], None] | None = None,
        *,
        observers: Sequence[Observer] = (),
        world: World = ALONE,
    ) -> Report:
        """Train the new knowledge and add it to `model`; metrics.csv goes into `folder`.

        Whatever is raised, the model then is as it was.
        """
        settings, negatives = addition_settings(self.addition, self.base.config.objective)
        return train_addition(
            self.model,
            dict(self.experiment.model.named_knowledge()),
            self._sources(),
            settings=settings,
            negatives=negatives,
            seed=self.addition.seed,
            folder=folder,
            progress=progress,
            observers=observers,
            exclusive=self.experiment.batches.exclusive,
            start={name: table.start for name, table in self._tables().items() if table.start},
            world=world,
        )

    def evaluate(self, world: World = ALONE) -> dict[str, Any]:
        """The contents of results.json: the new knowledge on the test data of the spec.

        Args:
            world: whose other processes call `experiment.evaluation.take_part` meanwhile.
        """
        results = self.experiment.evaluate("test", world=world)
        for entry in results["knowledge"]:
            entry["multiplier"] = 0.0  # the constraint is off
        off = constraint_notes({entry["name"]: 0.0 for entry in results["knowledge"]}, math.inf, fixed=True)
        return results | {"notes": [*results.get("notes", ()), *off]} if off else results

    def probes(self, count: int = 16) -> torch.Tensor:
        """Test observations, (at most `count`, *shape), to compare models on."""
        parts = []
        for name in self.experiment.datasets:
            T, _ = self.experiment.samples(name, "test")
            parts.append(T[: max(1, count // len(self.experiment.datasets))])
        return torch.cat(parts)[:count]

    def whole(self, folder: Path) -> Experiment | None:
        """The run in `folder`, once complete, with the older knowledge and its data.

        What is loaded here is not read again. None where the older data cannot be had.
        """
        try:
            return Experiment(merged(self.base.config, self.addition), trained=folder, loaded=self.experiment.data)
        except Exception:  # a data set raises what it likes; a report without an experiment says why itself
            return None

    def _sources(self) -> dict[str, Source]:
        train, annotation = self.experiment.train_samples, self.experiment.annotation
        containing = self._containing()
        weights = {table.name: table.weight for table in self.experiment.config.datasets}
        return {
            name: Source(
                samples=samples,
                presence=annotation.presence[name],
                characteristics=annotation.characteristics[name],
                containing=containing.get(name, {}),
                groups={new: self._groups(samples, table) for new, table in self._tables().items() if table.groups},
                levels=self.experiment.levels,
                weight=weights[name],
            )
            for name, samples in train.items()
        }

    def _tables(self) -> dict[str, KnowledgeTable]:
        """The table of each new knowledge type."""
        return {expanded.name: expanded.table for expanded in self.experiment.annotation.knowledge}

    def _groups(self, samples: Samples, table: KnowledgeTable) -> torch.Tensor:
        """The class of each sample, (n,), by the table's label column; -1 without a label."""
        columns = {column for split in self.experiment.train_samples.values() for column in split.labels}
        if table.groups not in columns:
            raise TzkError(
                f"[[knowledge]] {table.name!r}: groups = {table.groups!r} is no label column of the data"
                f"{nearest(table.groups or '', columns) or '; there is ' + (', '.join(sorted(columns)) or 'none')}"
            )
        labels = samples.labels.get(table.groups)
        if labels is None:
            return torch.full((len(samples),), -1)
        _, classes = np.unique(labels, return_inverse=True)
        return torch.from_numpy(np.where(labels == "", -1, classes.reshape(-1)))

    def _containing(self) -> dict[str, dict[str, torch.Tensor]]:
        """By data set, presence of older knowledge that the new implies, by the run's tables."""
        new = dict(self.experiment.model.named_knowledge())
        everything = KnowledgeDict({**dict(self.model.named_knowledge()), **new})
        implied = set().union(*(everything.implied_by(name) for name in new)) & set(self.model.knowledge)
        train = self.experiment.train_samples
        annotation = annotate(self._tables_for(implied), train, (*self.model.knowledge, *self.model.opaque))
        return {
            dataset: {
                name: annotation.presence[dataset][:, column]
                for column, name in enumerate(annotation.names)
                if name in implied
            }
            for dataset in train
        }

    def _tables_for(self, implied: set[str]) -> list[KnowledgeTable]:
        """The run's tables that `implied` come from, if all their data sets are loaded."""
        run, here = self.base.config, self.experiment.datasets
        everywhere = tuple(table.name for table in run.datasets)
        tables = []
        for table in run.knowledge:
            is_here = set(table.datasets(everywhere)) <= set(here)
            if is_here and any(fnmatchcase(name, glob(table.name)) for name in implied):
                tables.append(table.model_copy(update={"unobserved": {}}))
        return tables

    def _check_levels(self) -> None:
        """Raise `TzkError` where data sets of the run that can be loaded have other levels."""
        for table in self.base.config.datasets:
            try:
                levels = registry().find(DatasetSpec, table.type).load()(**table.arguments).levels
            except TzkError:
                continue  # a model may be used where its data are not
            if levels != self.experiment.levels:
                ours, theirs = (f"{n} grey levels" if n else "real values" for n in (self.experiment.levels, levels))
                raise TzkError(
                    f"the data of the spec have {ours}, those of the run, {table.name!r} for one, {theirs}: "
                    "a model is of one kind of data"
                )
