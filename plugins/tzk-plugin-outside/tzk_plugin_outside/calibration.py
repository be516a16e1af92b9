"""Evidence of a model about its own validation data, on which thresholds are chosen.

It is stored in the run folder, so that it is computed once.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from tzk_core.config import Config
from tzk_core.data.packed import UNREADABLE, read_arrays
from tzk_core.errors import TzkError
from tzk_core.runs.experiment import Experiment
from tzk_core.storage.atomic import new_file
from tzk_core.storage.places import checkpoint_in
from tzk_core.storage.stored import manifest_of
from tzk_core.world import ALONE, World
from tzk_plugin_outside.evidence import Evidence, evidence

if TYPE_CHECKING:  # it takes a plugin that need not be installed
    from tzk_plugin_outside.dose import Dose

STORED = "validation-evidence.npz"
FORMAT = 1


@dataclass(frozen=True)
class Calibration:
    """Evidence about the validation splits of a run.

    Attributes:
        evidence: by data set.
        present: by data set, (n, knowledge), where a knowledge type of the evidence is known to be present.
    """

    evidence: Mapping[str, Evidence]
    present: Mapping[str, Tensor]

    def inside(self, knowledge: Sequence[str]) -> dict[str, Evidence]:
        """By data set, the evidence about `knowledge`, of samples that show some of it.

        With no knowledge, that of all samples. Raises `TzkError` if no sample is left.
        """
        chosen = {}
        for name, whole in self.evidence.items():
            rows = torch.ones(len(whole), dtype=torch.bool)
            if knowledge:
                rows = self.present[name][:, [whole.knowledge.index(k) for k in knowledge]].any(1)
            if rows.any():
                chosen[name] = whole.take(rows, knowledge)
        if not chosen:
            raise TzkError(
                f"{', '.join(knowledge)} is present in no validation image of this run, so that no threshold can be "
                "chosen on them: give one with --threshold, or name other knowledge with --knowledge"
            )
        return chosen


def calibration(
    folder: Path,
    config: Config,
    *,
    importance_samples: int,
    seed: int,
    limit: int | None = None,
    dose: Dose | None = None,
    world: World = ALONE,
) -> Calibration:
    """The `Calibration` of a run, from its folder or else computed.

    The stored one is used if it was made from the same model, tables of the config and arguments. A computed one is
    stored if the folder can be written.

    Args:
        limit: at most so many validation samples of each data set, chosen by the config's seed; all by default.
        dose: of the run, with this limit; the evidence then has this score.
        world: whose processes, which are to call it together, compute it together; the first stores it.

    Raises `TzkError` if the data cannot be had, or no data set has a validation split.
    """
    made_from = {
        "format": FORMAT,
        **model_and_data(folder, config),
        "present": [table.model_dump(mode="json") for table in config.knowledge],
        "importance_samples": importance_samples,
        "seed": seed,
        "limit": limit,
    }
    plain, with_dose = (json.dumps(made_from | more, sort_keys=True) for more in ({}, {"dose": True}))
    usable = {with_dose} if dose is not None else {plain, with_dose}
    stored = world.of_first(_stored(folder / STORED, usable) if world.first else None)
    if stored is not None:
        return stored
    settings: dict[str, Any] = {"importance_samples": importance_samples, "seed": seed, "dose": dose}
    computed = _computed(folder, config, settings, limit=limit, world=world)
    if world.first:
        _store(folder / STORED, plain if dose is None else with_dose, computed)
    return computed


def model_and_data(folder: Path, config: Config) -> dict[str, Any]:
    """What tells the model of a run and its data sets from others."""
    manifest = manifest_of(checkpoint_in(folder))
    return {
        "core": manifest["core"]["sha256"],
        "knowledge": {name: entry["sha256"] for name, entry in manifest["knowledge"].items()},
        "datasets": [table.model_dump(mode="json") for table in config.datasets],
    }


def _computed(
    folder: Path, config: Config, settings: dict[str, Any], *, limit: int | None, world: World
) -> Calibration:
    try:
        known = list(manifest_of(checkpoint_in(folder))["knowledge"])
        experiment = Experiment(config, known=known, trained=folder)
        splits = {name: experiment.datasets[name].split("validation") for name in experiment.datasets}
    except TzkError as error:
        raise TzkError(
            f"{error}. The threshold is chosen on the run's validation data: put them there, or set TZK_DATA to the "
            "folder that has them; or give a threshold of your own with --threshold"
        ) from error
    evidences, present = {}, {}
    for name, samples in splits.items():
        if not len(samples):
            continue
        T, presence = experiment.samples(name, "validation", limit)
        evidences[name] = evidence(experiment.model, T, levels=experiment.levels, world=world, **settings)
        columns = [_column(presence, experiment.knowledge_names, knowledge) for knowledge in evidences[name].knowledge]
        present[name] = torch.stack(columns, 1) if columns else torch.zeros(len(T), 0, dtype=torch.bool)
    if not evidences:
        raise TzkError(
            f"no data set of this run has a validation split ({', '.join(splits)}), so that no threshold can be chosen "
            "on it: give one with --threshold"
        )
    return Calibration(evidences, present)


def _column(presence: Tensor, names: Sequence[str], name: str) -> Tensor:
    """Where a knowledge type is known to be present, (n,): nowhere without a table."""
    return presence[:, names.index(name)] == 1 if name in names else torch.zeros(len(presence), dtype=torch.bool)


def _stored(file: Path, made_from: Collection[str]) -> Calibration | None:
    """The calibration in the file.

    None where it is missing, damaged, no file, or about something else.
    """
    with contextlib.suppress(*UNREADABLE, KeyError, TypeError, TzkError):
        arrays = read_arrays(file)
        if str(arrays["made_from"]) not in made_from:
            return None
        names, knowledge = [str(name) for name in arrays["datasets"]], tuple(map(str, arrays["knowledge"]))
        evidences, present = {}, {}
        for i, name in enumerate(names):
            own = [key for key in arrays if key.startswith(f"{i}.")]
            tensors = {key.partition(".")[2]: torch.from_numpy(arrays[key]) for key in own}
            present[name] = tensors.pop("present")
            evidences[name] = Evidence(knowledge, **tensors)
            _check_table(evidences[name], present[name])
        return Calibration(evidences, present)
    return None


def _check_table(evidence: Evidence, present: Tensor) -> None:
    """Raise ValueError unless all columns are about the same samples and knowledge."""
    rows, table = (len(evidence),), (len(evidence), len(evidence.knowledge))
    lengths = {
        tuple(column.shape) for column in (evidence.log_prob, evidence.code_length, evidence.dose) if column is not None
    }
    tables = {tuple(tensor.shape) for tensor in (evidence.log_ratio, evidence.log_presence, present)}
    if lengths != {rows} or tables != {table} or present.dtype != torch.bool:
        raise ValueError("the columns do not fit each other")


def _store(file: Path, made_from: str, computed: Calibration) -> None:
    """Write the file whole, or not at all: a folder may be read-only."""
    arrays: dict[str, np.ndarray] = {
        "made_from": np.array(made_from),
        "datasets": np.array(list(computed.evidence), dtype=np.str_),
        "knowledge": np.array(next(iter(computed.evidence.values())).knowledge, dtype=np.str_),
    }
    for i, (name, of_dataset) in enumerate(computed.evidence.items()):
        tensors = {key: value for key, value in vars(of_dataset).items() if isinstance(value, Tensor)}
        tensors["present"] = computed.present[name]
        arrays |= {f"{i}.{key}": value.numpy() for key, value in tensors.items()}
    with contextlib.suppress(OSError), new_file(file) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, **arrays)  # type: ignore[arg-type]
