"""One experiment of a config: its data, its model, training and evaluation."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tzk_core.build import build_flow, build_knowledge
from tzk_core.config import Config, KnowledgeTable
from tzk_core.data.annotation import annotate
from tzk_core.data.dequantise import dequantise
from tzk_core.data.held_out import held_out
from tzk_core.data.hiding import hide
from tzk_core.data.joint import JointBatches
from tzk_core.data.protocol import Dataset, Samples
from tzk_core.errors import TzkError
from tzk_core.evaluation.constraint import constraint_notes
from tzk_core.evaluation.likelihood import Held
from tzk_core.evaluation.partitions import Labels, matched
from tzk_core.evaluation.results import evaluate
from tzk_core.model import SharedFlow, TzK
from tzk_core.names import glob
from tzk_core.objective import Wording
from tzk_core.plugins import registry
from tzk_core.random_streams import stream
from tzk_core.tables import annotated, chosen_device, datasets_of, limited
from tzk_core.training.checkpoint import load_checkpoint, load_trainer
from tzk_core.training.fit import start_characteristics
from tzk_core.training.places import LAST, checkpoint_in, step_of
from tzk_core.training.settings import Settings
from tzk_core.training.trainer import Progress, Trainer
from tzk_core.training.validation import Validation

FAR_LARGER = 100
"""A batch of so many times all samples is a slip."""


class Experiment:
    """What a config describes, with the data loaded and the model built; nothing is trained or written yet.

    `flow`, if given, is taken in the place of the one that the config describes, and `known` are knowledge types that
    exist elsewhere and may be implied: so one can be of knowledge that is added to a trained model.

    Raises `TzkError` for a plugin that is not installed, data that cannot be had, and tables that do not fit the data.
    """

    def __init__(self, config: Config, flow: SharedFlow | None = None, known: Collection[str] = ()) -> None:
        registry().require(config.plugins, wanted_by=f"the config {config.name!r}")
        self.config = config
        self.device = chosen_device(config.device)
        self.datasets: dict[str, Dataset] = datasets_of(config)
        self.levels = self._common("levels", "number of grey levels")
        self.shape: tuple[int, ...] = tuple(self._common("shape", "shape"))
        train = self._split("train")
        self._check_batch(sum(map(len, train.values())))
        whole = annotate([annotated(table) for table in config.knowledge], train, known)
        # Other splits are annotated by `annotation.of`, from their own samples, and keep all of their labels.
        self.annotation, self.kept = hide(whole, train, config.seed)
        self.model = self._build(flow).to(self.device, getattr(torch, config.dtype))
        self.multipliers: dict[str, float] = {}
        self.step: int | None = None  # of what the model is, once trained or loaded,
        self.last_step: int | None = None  # and how many were trained in all
        self.compiled: dict[str, Any] | None = None  # once trained: seconds, or why not; None: was not to be

    @property
    def knowledge_names(self) -> tuple[str, ...]:
        """The knowledge types that the config says where to find and that the model has: what can be evaluated."""
        return tuple(name for name in self.annotation.names if name in self.model.knowledge)

    @property
    def train_samples(self) -> dict[str, Samples]:
        """The training split of every data set."""
        return self._split("train")

    @property
    def groups(self) -> dict[str, list[str]]:
        """The knowledge types of each table with a `{column}` in its name, by that name."""
        groups = {
            table.name: [name for name in self.knowledge_names if fnmatchcase(name, glob(table.name))]
            for table in self.config.knowledge
            if "{" in table.name
        }
        return {pattern: members for pattern, members in groups.items() if members}

    @property
    def dataset_knowledge(self) -> dict[str, str]:
        """Data set -> the knowledge type that is present in it and nowhere else, whatever the labels."""
        return {
            each.present["dataset"][0]: each.name
            for each in self.annotation.knowledge
            if set(each.present) == {"dataset"} and len(each.present["dataset"]) == 1
            and each.name in self.knowledge_names
        }

    @property
    def observed(self) -> dict[str, tuple[str, ...]]:
        """Knowledge type -> the names of the data's characteristics that are its C, where C is observed."""
        return {each.name: each.observed for each in self.annotation.knowledge if each.observed}

    def describe(self) -> dict[str, Any]:
        """What a run will do, for a person to read before it does.

        Raises `TzkError` for what could not be evaluated afterwards; "notes" say what will be in part only.
        """
        notes = self.evaluable()
        for name, samples in self._split("validation").items():
            if not len(samples):
                notes.append(
                    f"The validation split of {name!r} is empty: `tzk score` and `tzk ood` choose no threshold on it."
                )
        return {
            "device": str(self.device),
            "parameters": {"flow": _count(self.model.flow)}
            | {name: _count(kind) for name, kind in self.model.named_knowledge()},
            "data": {
                name: {split: len(self._split(split)[name]) for split in ("train", "validation", "test")}
                for name in self.datasets
            },
            "kept": {table: asdict(kept) for table, kept in self.kept.items()},
            "steps": self.config.training.steps,
            "validation": self._validated(),
            "batch_size": self.config.training.batch_size,
            "compile": self._settings().compiles(self.device.type, len(self.model.knowledge)),
            "notes": notes,
        }

    def evaluable(self, split: str = "test") -> list[str]:
        """A sentence for each thing that `evaluate` will find in part only, or not at all.

        Needs the labels alone, and no trained model. Raises `TzkError` for what cannot be evaluated: an empty split, a
        glob without a match, a partition or a mean that fits no data set.
        """
        labels = self._labels(split, self.config.evaluation.limit)
        partitions, means = self._wholes()
        if problems := list(labels.problems(partitions, means)):
            raise TzkError("\n".join(problems))
        return list(labels.notes(partitions))

    def train(
        self, folder: Path, resume: bool = False, progress: Callable[[Progress], None] | None = None
    ) -> None:
        """Trains to the end, leaving metrics.csv and checkpoint/ in `folder`; `resume` goes on from its checkpoint.

        With validation data best/ is there too, and the model is then that one. On KeyboardInterrupt a checkpoint is
        written and the exception goes on.
        """
        settings = self._settings()
        trainer = Trainer(
            self.model, self.batches, settings, self.config.seed, self.levels, validation=self._validation(settings)
        )
        if resume:
            trainer.resume(folder)
        else:
            self._initialise()
        try:
            trainer.run(folder, progress)
        finally:
            self.compiled = trainer.compilation
        self.last_step, self.step = trainer.step, trainer.take_best()
        self.multipliers = dict(trainer.multipliers.values)

    def load(self, folder: Path) -> None:
        """Takes the model from a run folder: the best by validation where there is one, else the last."""
        checkpoint = checkpoint_in(folder)
        self.model, self.step = load_checkpoint(checkpoint).to(self.device), step_of(checkpoint)
        self.last_step = step_of(Path(folder) / LAST)
        try:
            self.multipliers = dict(load_trainer(checkpoint)["multipliers"])
        except TzkError:
            self.multipliers = {}  # a model that is shared without its training has none

    def evaluate(self, split: str = "test", limit: int | None = None) -> dict[str, Any]:
        """The contents of results.json on one split; `limit` takes so many samples of each data set, chosen by seed."""
        limit = limit or self.config.evaluation.limit
        held = [self._held(name, split, limit) for name in self.datasets]
        wholes = zip(self._wholes(), ("mixture", "mean"), strict=True)
        (partitions, notes), (means, more_notes) = (self._known(whole, what) for whole, what in wholes)
        labels = self._labels(split, limit)
        results = evaluate(
            self.model,
            held,
            {name: samples.T for name, samples in self._split("train").items()},
            partitions,
            means,
            [table.model_dump() for table in self.config.published],
            self.multipliers,
            self.config.evaluation.importance_samples,
            self.config.seed,
        )
        notes = [*self._differences(), *notes, *more_notes, *labels.problems({}, means), *labels.notes(partitions)]
        objective = self.config.objective
        fixed = 0 in (objective.multiplier_max, objective.multiplier_rate)
        notes += constraint_notes(self.multipliers, objective.tolerance, fixed)
        results |= {"step": self.step} if self.step is not None else {}
        return results | {"notes": notes} if notes else results

    def samples(self, dataset: str, split: str, limit: int | None = None) -> tuple[Tensor, Tensor]:
        """T, (n, *shape), dequantised, and presence, (n, knowledge), in {0, 1, nan}; `limit` as in `evaluate`."""
        held = self._held(dataset, split, limit)
        return held.T, held.presence

    @cached_property
    def batches(self) -> JointBatches:
        train, training = self._split("train"), self.config.training
        given = {table.name: table.weight for table in self.config.datasets if table.weight is not None}
        exclusive = [names for title, names in self._by_table().items() if self._table(title).exclusive]
        hiding = [name for title, names in self._by_table().items() if self._table(title).labelled for name in names]
        columns = [self.annotation.names.index(name) for name in hiding]
        labelled = {name: ~table[:, columns].isnan().any(1) for name, table in self.annotation.presence.items()}
        return JointBatches(
            samples=train,
            presence=self.annotation.presence,
            characteristics=self.annotation.characteristics,
            knowledge=self.annotation.names,
            weights=given or None,
            batch_size=training.batch_size,
            seed=self.config.seed,
            levels=self.levels,
            exclusive=exclusive,
            favoured=labelled if training.labelled_share else None,
            favoured_share=training.labelled_share or 0.5,
        )

    def _by_table(self) -> dict[str, list[str]]:
        """The knowledge types of each table, by its name as written."""
        names: dict[str, list[str]] = {}
        for each in self.annotation.knowledge:
            names.setdefault(each.table["pattern"], []).append(each.name)
        return names

    def _table(self, pattern: str) -> KnowledgeTable:
        return next(table for table in self.config.knowledge if table.name == pattern)

    def _build(self, shared: SharedFlow | None) -> TzK:
        flow = self.config.flow
        layers = [{"type": layer.type, **layer.arguments} for layer in flow.layers] if flow.layers else None
        model = TzK(
            shared or build_flow(self.shape, flow.recipe, layers, flow.base, self.config.seed, **flow.arguments)
        )
        for each in self.annotation.knowledge:
            table = self._table(each.table["pattern"])
            knowledge = build_knowledge(
                table.type,
                model.latent_shape,
                self.config.seed,
                each.name,
                characteristics=table.characteristics,
                **table.arguments,
            )
            knowledge.describe_as(implies=each.implies)
            model.add(each.name, knowledge)
        return model

    @torch.no_grad()
    def _initialise(self) -> None:
        """Fits p(κ) to the training population and p(C) to observed characteristics, and starts the shared flow from
        one large batch of its own."""
        for name, share in zip(self.annotation.names, self.batches.population().tolist(), strict=True):
            kind = self.model.find(name)
            odds = 0.0 if math.isnan(share) else math.log(max(share, 1e-6) / max(1 - share, 1e-6))
            kind.log_odds.fill_(odds)
            observed = [columns[name] for columns in self.annotation.characteristics.values() if name in columns]
            if observed:
                kind.fit_characteristics(torch.cat(observed).to(kind.log_odds))
        if not self.config.training.initialisation:
            return
        parts, presence = [], []
        for dataset, samples in self._split("train").items():
            share = float(self.batches.weights[dataset])
            source = stream(self.config.seed, "initialisation", dataset)
            count = min(len(samples), math.ceil(share * self.config.training.initialisation))
            rows = torch.randperm(len(samples), generator=source)[:count]
            parts.append(dequantise(samples.T[rows], source, self.levels))
            presence.append(self.annotation.presence[dataset][rows])
        T = torch.cat(parts).to(self.model.like)
        self.model.flow.initialise(T)
        columns = dict(zip(self.annotation.names, torch.cat(presence).unbind(1), strict=True))
        characterised = {name for found in self.annotation.characteristics.values() for name in found}
        start_characteristics(self.model, T, columns, characterised, self.config.seed)

    def _settings(self) -> Settings:
        training, objective = self.config.training, self.config.objective
        return Settings(
            **training.model_dump(exclude={"labelled_share"}),
            wording=Wording(objective.fill_in, objective.prior, objective.unlabelled),
            **objective.model_dump(exclude={"fill_in", "prior", "unlabelled"}),
        )

    def _validation(self, settings: Settings) -> Validation | None:
        """What training is validated on; None without a validation split, or if it is not to be."""
        if not settings.validate_every:
            return None
        sets = held_out(
            self._split("validation"),
            self.annotation,
            limit=settings.validation_samples,
            seed=self.config.seed,
            levels=self.levels,
            exclusive=self.batches.exclusive,
        )
        weights = {name: float(self.batches.weights[name]) for name in sets}
        return Validation(sets, weights, self.levels, self.config.seed) if sets else None

    def _validated(self) -> dict[str, int]:
        """By data set, how many samples training is validated on; nothing if it is not."""
        training = self.config.training
        counts = {name: len(each) for name, each in self._split("validation").items() if training.validate_every}
        return {name: min(count, training.validation_samples) for name, count in counts.items()}

    def _check_batch(self, samples: int) -> None:
        size = self.config.training.batch_size
        if size > FAR_LARGER * max(samples, 1):
            raise TzkError(
                f"[training] batch_size = {size:,} is more than {FAR_LARGER} times the {samples:,} training samples, "
                f"of which each batch would hold every one so often: expected at most {FAR_LARGER * max(samples, 1):,}"
            )

    def _split(self, split: str) -> dict[str, Samples]:
        kept = self.__dict__.setdefault("_splits", {})
        if split not in kept:
            kept[split] = {name: dataset.split(split) for name, dataset in self.datasets.items()}
        return kept[split]

    def _held(self, dataset: str, split: str, limit: int | None) -> Held:
        samples = limited(self._split(split)[dataset], dataset, split, limit, self.config.seed)
        annotation = self.annotation.of({dataset: samples})
        names = self.knowledge_names
        columns = [annotation.names.index(name) for name in names]

        def drawn(*number: int) -> Tensor:
            return dequantise(samples.T, stream(self.config.seed, "evaluation", dataset, split, *number), self.levels)

        return Held(
            dataset,
            split,
            drawn(),
            annotation.presence[dataset][:, columns],
            names,
            {name: C for name, C in annotation.characteristics[dataset].items() if self._takes(name, C)},
            self.levels,
            self.datasets[dataset].original_dims,
            float(self.batches.weights[dataset]),
            1 if self.levels is None else self.config.evaluation.dequantisations,
            drawn,
        )

    def _takes(self, name: str, C: Tensor) -> bool:
        """Whether the model has this knowledge with as many characteristics as the data supply; one that came from
        elsewhere may have others."""
        return name in self.knowledge_names and self.model.find(name).characteristics == C.shape[1]

    def _labels(self, split: str, limit: int | None) -> Labels:
        """What is known of the knowledge in the samples that are evaluated."""
        samples = {
            name: limited(every, name, split, limit, self.config.seed) for name, every in self._split(split).items()
        }
        names, annotation = self.knowledge_names, self.annotation.of(samples)
        columns = [annotation.names.index(name) for name in names]
        return Labels(split, names, {name: table[:, columns] for name, table in annotation.presence.items()})

    def _wholes(self) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
        """The members of partitions and of means, by title; `TzkError` for a glob without a match."""
        evaluation, names = self.config.evaluation, self.annotation.names
        return matched(evaluation.partitions, names), matched(evaluation.means, names)

    def _known(self, wholes: Mapping[str, Sequence[str]], what: str) -> tuple[dict[str, list[str]], list[str]]:
        """The partitions or means that the model has all members of; and a sentence for each that is left out, since
        the rest would be another figure."""
        expanded, notes = {}, []
        for title, members in wholes.items():
            if gone := [name for name in members if name not in self.model.knowledge]:
                whole = f"the config has it over {len(members)} knowledge types, and this model lacks {', '.join(gone)}"
                notes.append(f"The {what} {title!r} is left out: {whole}.")
            else:
                expanded[title] = list(members)
        return expanded, notes

    def _differences(self) -> list[str]:
        """A sentence for each way in which the knowledge of the model is not that of the config."""
        notes, opaque = [], self.model.opaque
        if gone := [name for name in self.annotation.names if name not in self.knowledge_names and name not in opaque]:
            notes.append(f"Knowledge types of the config that this model does not have any more: {', '.join(gone)}.")
        if others := [name for name, _ in self.model.named_knowledge() if name not in self.knowledge_names]:
            notes.append(
                "Knowledge types of this model that are not evaluated, since no [[knowledge]] of the config says in "
                f"which samples they are present: {', '.join(others)}."
            )
        notes += [f"Not evaluated: {each.reason}." for each in opaque.values()]
        if self.step is not None and self.last_step not in (None, self.step):
            notes.append(f"The model is that of step {self.step:,} of {self.last_step:,}, the best by validation.")
        return notes

    def _common(self, attribute: str, meaning: str) -> Any:
        values = {name: getattr(dataset, attribute) for name, dataset in self.datasets.items()}
        if len(set(values.values())) > 1:
            listed = ", ".join(f"{name!r} {value}" for name, value in values.items())
            raise TzkError(f"data sets that are modelled together have one {meaning}; got {listed}")
        return next(iter(values.values()))


def _count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
