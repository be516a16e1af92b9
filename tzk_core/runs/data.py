"""The data of a config: data sets and splits, the annotation of knowledge, and batches."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from functools import cached_property

import torch
from torch import Tensor

from tzk_core.config import Config
from tzk_core.data.annotation import annotate
from tzk_core.data.dequantise import dequantise
from tzk_core.data.disguised import warn_of_grey_levels
from tzk_core.data.held_out import held_out, seen_at_all
from tzk_core.data.hiding import hide
from tzk_core.data.joint import JointBatches
from tzk_core.data.protocol import Dataset, Samples
from tzk_core.errors import TzkError
from tzk_core.objective.filling import hot_deck
from tzk_core.observations import Observations
from tzk_core.random_streams import stream
from tzk_core.runs.tables import datasets_of, levels_of, limited, shape_of

FAR_LARGER = 100
"""A batch of so many times all samples is a slip."""


class RunData:
    """The data sets of a config and what its tables say of knowledge in them.

    Args:
        known: knowledge types that exist elsewhere and may be implied.
        datasets: those of the config, where they are made already.
        loaded: data of another config; data sets that both have by the same table are not read again.

    Raises `TzkError` for data that cannot be had, and for tables that do not fit the data.
    """

    def __init__(
        self,
        config: Config,
        known: Collection[str] = (),
        *,
        datasets: Mapping[str, Dataset] | None = None,
        loaded: RunData | None = None,
    ) -> None:
        self.config, self._loaded = config, loaded
        self._shared = loaded.shared_with(config) if loaded is not None else {}
        self.datasets = datasets_of(config, self._shared) if datasets is None else dict(datasets)
        self.levels, self.shape = levels_of(self.datasets), shape_of(self.datasets)
        self._splits: dict[str, dict[str, Samples]] = {}
        train = self.split("train")
        if self.levels is None:
            for name, samples in train.items():
                warn_of_grey_levels(samples.T, f"data set {name!r}", "T = numpy.round(255 * T).astype(numpy.uint8)")
        self._check_batch(sum(map(len, train.values())))
        whole = annotate(config.knowledge, train, known)
        # Other splits are annotated by `annotation.of`, from their own samples, and keep all of their labels.
        self.annotation, self.kept = hide(whole, train, config.seed)

    def split(self, name: str) -> dict[str, Samples]:
        """One split of every data set, read once."""
        if name not in self._splits:
            self._splits[name] = {title: self._read(title, name) for title in self.datasets}
        return self._splits[name]

    def shared_with(self, config: Config) -> dict[str, Dataset]:
        """The data sets that `config` has by the same table."""
        own = {table.name: table for table in self.config.datasets}
        return {table.name: self.datasets[table.name] for table in config.datasets if own.get(table.name) == table}

    def _read(self, title: str, split: str) -> Samples:
        if self._loaded is not None and title in self._shared:
            return self._loaded.split(split)[title]
        return self.datasets[title].split(split)

    def limited(self, dataset: str, split: str, limit: int | None) -> Samples:
        """At most `limit` samples of a split whose T is whole, chosen by seed.

        Raises `TzkError` if the split has none.
        """
        samples = self.split(split)[dataset]
        if lacking := self.lacking(dataset, split):
            if lacking == len(samples):
                raise TzkError(f"every sample of the {split} split of {dataset!r} lacks values of T: none is evaluated")
            samples = samples.take(torch.nonzero(~samples.T.flatten(1).isnan().any(1)).squeeze(1))
        return limited(samples, dataset, split, limit=limit, seed=self.config.seed)

    def lacking(self, dataset: str, split: str) -> int:
        """The number of samples of a split with missing values in T.

        No table is made of these.
        """
        return int(self.split(split)[dataset].T.flatten(1).isnan().any(1).sum())

    @property
    def characteristics(self) -> dict[str, Tensor]:
        """By knowledge type, the observed C of training samples, (n, c), nan if missing."""
        columns_of: dict[str, list[Tensor]] = {}
        for name in self.annotation.names:
            for columns in self.annotation.characteristics.values():
                if name in columns:
                    columns_of.setdefault(name, []).append(columns[name])
        return {name: torch.cat(columns) for name, columns in columns_of.items()}

    @cached_property
    def batches(self) -> JointBatches:
        """Batches of the training splits."""
        training = self.config.training
        weights = {table.name: table.weight for table in self.config.datasets if table.weight is not None}
        exclusive: dict[str, list[str]] = {}
        for expanded in self.annotation.knowledge:
            if expanded.table.exclusive:
                exclusive.setdefault(expanded.table.name, []).append(expanded.name)
        hiding = [expanded.name for expanded in self.annotation.knowledge if expanded.table.labelled]
        columns = [self.annotation.names.index(name) for name in hiding]
        labelled = {name: ~table[:, columns].isnan().any(1) for name, table in self.annotation.presence.items()}
        return JointBatches(
            samples=self.split("train"),
            presence=self.annotation.presence,
            characteristics=self.annotation.characteristics,
            knowledge=self.annotation.names,
            weights=weights or None,
            batch_size=training.batch_size,
            seed=self.config.seed,
            levels=self.levels,
            exclusive=list(exclusive.values()),
            favoured=labelled if training.labelled_share else None,
            favoured_share=training.labelled_share or 0.5,
        )

    def first_batch(self, size: int) -> tuple[Tensor, dict[str, Tensor]]:
        """A batch to start a model from: T, dequantised, and presence by knowledge type.

        Every data set has the share that it has in training, except one that has fewer samples.

        Returns:
            T, (about `size`, *shape), and presence, (n,) by knowledge type.
        """
        parts, presence = [], []
        for dataset, samples in self.split("train").items():
            source = stream(self.config.seed, "initialisation", dataset)
            count = min(len(samples), math.ceil(float(self.batches.weights[dataset]) * size))
            order = torch.randperm(len(samples), generator=source)
            rows = order[seen_at_all(samples.T)[order]][:count]
            T = dequantise(samples.T[rows], source, self.levels)
            parts.append(hot_deck(T, source) if T.isnan().any() else T)
            presence.append(self.annotation.presence[dataset][rows])
        columns = torch.cat(presence).unbind(1)
        return torch.cat(parts), dict(zip(self.annotation.names, columns, strict=True))

    def held_out(self) -> dict[str, Observations]:
        """The samples that training is validated on, by data set with a validation split."""
        return held_out(
            self.split("validation"),
            self.annotation,
            limit=self.config.training.validation_samples,
            seed=self.config.seed,
            levels=self.levels,
            exclusive=self.batches.exclusive,
        )

    def held_out_counts(self) -> dict[str, int]:
        """By data set, how many samples training is validated on; nothing if it is not."""
        training = self.config.training
        if not training.validate_every:
            return {}
        splits = self.split("validation")
        return {name: min(len(samples), training.validation_samples) for name, samples in splits.items()}

    def _check_batch(self, samples: int) -> None:
        size = self.config.training.batch_size
        if size > FAR_LARGER * max(samples, 1):
            raise TzkError(
                f"[training] batch_size = {size:,} is more than {FAR_LARGER} times the {samples:,} training samples, "
                f"of which each batch would hold every one so often: expected at most {FAR_LARGER * max(samples, 1):,}"
            )
