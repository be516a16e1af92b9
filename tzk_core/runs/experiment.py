"""One experiment of a config: its data, its model, training and evaluation."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tzk_core.config import Config
from tzk_core.data.annotation import Annotation
from tzk_core.data.hiding import Kept
from tzk_core.data.joint import JointBatches
from tzk_core.data.protocol import Dataset, Samples
from tzk_core.knowledge.elsewhere import Elsewhere
from tzk_core.model import SharedFlow, TzK
from tzk_core.names import glob
from tzk_core.runs.building import before_data, build_model, start_model
from tzk_core.runs.data import RunData
from tzk_core.runs.evaluation import RunEvaluation
from tzk_core.runs.settings import settings_of
from tzk_core.runs.tables import chosen_device
from tzk_core.storage.checkpoint import model_of
from tzk_core.storage.places import LAST, checkpoint_in
from tzk_core.storage.stored import read_stored, step_of
from tzk_core.training.observers import Observer, Progress
from tzk_core.training.state import multipliers_in
from tzk_core.training.trainer import Trainer
from tzk_core.training.validation import Validation
from tzk_core.world import ALONE, World


class Experiment:
    """A config, with its data and model; nothing is trained or written yet.

    Args:
        flow: takes the place of the shared flow that the config describes, as for knowledge added to a trained model.
        known: knowledge types that exist elsewhere and may be implied.
        trained: the folder of a run whose model is taken, in place of a new one.
        notes: what results have to say of how the config came about.
        loaded: data of another experiment; data sets that both have are not read again.
        world: the processes that are to train it from its start, which build their own knowledge types alone where they
            divide many.

    Raises `TzkError` for a plugin that is not installed, data that cannot be had, and tables that do not fit the data.
    """

    def __init__(
        self,
        config: Config,
        flow: SharedFlow | None = None,
        known: Collection[str] = (),
        *,
        trained: Path | None = None,
        notes: Sequence[str] = (),
        loaded: RunData | None = None,
        world: World = ALONE,
    ) -> None:
        self.config, self.notes = config, tuple(notes)
        self.multipliers: dict[str, float] = {}
        self.step: int | None = None  # of what the model is, once trained or loaded,
        self.last_step: int | None = None  # and how many were trained in all
        self.compiled: dict[str, Any] | None = None  # once trained: seconds, or why not; None: was not to be
        self.model: TzK
        if trained is None:
            built = before_data(config, flow, {} if loaded is None else loaded.shared_with(config))
            self.device = built.device
            self.data = RunData(config, known, datasets=built.datasets, loaded=loaded)
            model = build_model(config, self.data, built.flow, world=world)
            self.model = model.to(self.device, getattr(torch, config.dtype))
        else:
            self.device = chosen_device(config.device)
            self.data = RunData(config, known, loaded=loaded)
            self.load(trained)

    @property
    def datasets(self) -> dict[str, Dataset]:
        return self.data.datasets

    @property
    def levels(self) -> int | None:
        """The number of grey levels of all data sets; None where values are real."""
        return self.data.levels

    @property
    def shape(self) -> tuple[int, ...]:
        return self.data.shape

    @property
    def annotation(self) -> Annotation:
        """What is known of knowledge in the training splits."""
        return self.data.annotation

    @property
    def kept(self) -> dict[str, Kept]:
        """How many labels and characteristics were not hidden, by table of knowledge."""
        return self.data.kept

    @property
    def batches(self) -> JointBatches:
        return self.data.batches

    @property
    def train_samples(self) -> dict[str, Samples]:
        """The training split of every data set."""
        return self.data.split("train")

    @property
    def evaluation(self) -> RunEvaluation:
        """The model as it is now on the data."""
        return RunEvaluation(self.config, self.data, self.model, notes=self.notes)

    @property
    def knowledge_names(self) -> tuple[str, ...]:
        """The knowledge types that can be evaluated: those of both the config and the model."""
        return self.evaluation.knowledge_names

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
        """By data set, the knowledge type present in all of it and nowhere else."""
        return {
            expanded.present["dataset"][0]: expanded.name
            for expanded in self.annotation.knowledge
            if set(expanded.present) == {"dataset"}
            and len(expanded.present["dataset"]) == 1
            and expanded.name in self.knowledge_names
        }

    @property
    def observed(self) -> dict[str, tuple[str, ...]]:
        """By knowledge type with observed C, the names of those characteristics in the data."""
        return {expanded.name: expanded.observed for expanded in self.annotation.knowledge if expanded.observed}

    def describe(self) -> dict[str, Any]:
        """What a run will do, for a person to read before it does.

        Raises `TzkError` for what could not be evaluated afterwards; "notes" say what will be in part only.
        """
        notes = self.evaluable()
        splits = {split: self.data.split(split) for split in ("train", "validation", "test")}
        for name, samples in splits["validation"].items():
            if not len(samples):
                notes.append(
                    f"The validation split of {name!r} is empty: nothing is validated on it, and no threshold chosen."
                )
        return {
            "device": str(self.device),
            "parameters": {"flow": _count(self.model.flow)}
            | {name: _count(knowledge) for name, knowledge in self.model.named_knowledge()},
            "observations": {"shape": list(self.shape), "levels": self.levels},
            "data": {name: {split: len(splits[split][name]) for split in splits} for name in self.datasets},
            "kept": {table: asdict(kept) for table, kept in self.kept.items()},
            "steps": self.config.training.steps,
            "validation": self.data.held_out_counts(),
            "batch_size": self.config.training.batch_size,
            "compile": settings_of(self.config).compiles(self.device.type, len(self.model.knowledge)),
            "notes": notes,
        }

    def evaluable(self, split: str = "test") -> list[str]:
        """A note for whatever `evaluate` can evaluate in part only, or not at all.

        Needs the labels alone, and no trained model. Raises `TzkError` for what cannot be evaluated.
        """
        return self.evaluation.evaluable(split)

    def train(
        self,
        folder: Path | None,
        *,
        resume: bool = False,
        progress: Callable[[Progress], None] | None = None,
        observers: Sequence[Observer] = (),
        world: World = ALONE,
    ) -> None:
        """Train to the end, leaving metrics.csv and checkpoint/ in `folder`.

        `progress` and `observers` are those of `Trainer.run`. `resume` goes on from the checkpoint there. With
        validation data best/ is there too, and the model is then that one. On KeyboardInterrupt a checkpoint is written
        and the exception goes on.

        Of several processes, `world`, the first has the folder, and the others have None.
        """
        trainer = Trainer(
            self.model,
            self.batches,
            settings_of(self.config),
            seed=self.config.seed,
            levels=self.levels,
            validation=self.validation(),
            world=world,
        )
        if resume:
            if folder is not None:
                trainer.resume(folder)
        else:
            start_model(self.model, self.data)
        try:
            trainer.run(folder, progress, observers=observers)
        finally:
            self.compiled = trainer.compilation
        self.last_step, self.step = trainer.step, trainer.take_best()
        self.multipliers = dict(trainer.multipliers.values)

    def validation(self) -> Validation | None:
        """What training is validated on; None without a validation split, or if that is off."""
        sets = self.data.held_out() if self.config.training.validate_every else {}
        weights = {name: float(self.batches.weights[name]) for name in sets}
        return Validation(sets, weights, levels=self.levels, seed=self.config.seed) if sets else None

    def load(self, folder: Path) -> None:
        """Take the model from a run folder: the best by validation, or else the last."""
        checkpoint = checkpoint_in(folder)
        stored = read_stored(checkpoint, trainer=True)
        self.model, self.step = model_of(stored).to(self.device), stored.step
        self.last_step = step_of(Path(folder) / LAST)
        shared_alone = "trainer" not in stored.manifest  # a model without its training has no multipliers
        self.multipliers = {} if shared_alone else dict(multipliers_in(stored.trainer(), checkpoint))

    def evaluate(self, split: str = "test", limit: int | None = None, *, world: World = ALONE) -> dict[str, Any]:
        """The contents of results.json on one split.

        Args:
            limit: at most so many samples of each data set, chosen by seed.
            world: whose other processes call `evaluation.take_part` meanwhile.
        """
        return self.evaluation.results(
            split, limit, multipliers=self.multipliers, step=self.step, last_step=self.last_step, world=world
        )

    def samples(self, dataset: str, split: str, limit: int | None = None) -> tuple[Tensor, Tensor]:
        """T, (n, *shape), dequantised, and presence, (n, knowledge), in {0, 1, nan}.

        `limit` is that of `evaluate`.
        """
        samples = self.evaluation.split(dataset, split, limit)
        return samples.T, samples.presence


def _count(module: torch.nn.Module) -> int:
    module = module.like if isinstance(module, Elsewhere) else module
    return sum(parameter.numel() for parameter in module.parameters())
