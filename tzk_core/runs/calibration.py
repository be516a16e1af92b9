"""What a trained model says of its own validation data, which thresholds are chosen on; kept in the run folder."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tzk_core.config import Config
from tzk_core.data.packed import UNREADABLE
from tzk_core.errors import TzkError
from tzk_core.evaluation.evidence import Evidence, evidence
from tzk_core.runs.experiment import Experiment
from tzk_core.storage.atomic import new_file
from tzk_core.storage.places import checkpoint_in
from tzk_core.storage.stored import manifest_of

KEPT = "validation-evidence.npz"
FORMAT = 1


@dataclass(frozen=True)
class Calibration:
    """evidence: by data set, of its validation split. present: by data set, (n, knowledge), where each knowledge type
    of the evidence is known to be present."""

    evidence: Mapping[str, Evidence]
    present: Mapping[str, Tensor]

    def inside(self, knowledge: Sequence[str]) -> dict[str, Evidence]:
        """By data set, the evidence about `knowledge` of the samples in which at least one of these types is present.

        With no knowledge, that of all samples. Raises `TzkError` if no sample is left.
        """
        chosen = {}
        for name, each in self.evidence.items():
            rows = torch.ones(len(each), dtype=torch.bool)
            if knowledge:
                rows = self.present[name][:, [each.knowledge.index(k) for k in knowledge]].any(1)
            if rows.any():
                chosen[name] = each.take(rows, knowledge)
        if not chosen:
            raise TzkError(
                f"{', '.join(knowledge)} is present in no validation image of this run, so that no threshold can be "
                "chosen on them: give one with --threshold, or name other knowledge with --knowledge"
            )
        return chosen


def calibration(
    folder: Path, config: Config, *, importance_samples: int, seed: int, limit: int | None = None
) -> Calibration:
    """The `Calibration` of a run: the one kept in its folder, if it was made from this very model, these tables of the
    config, number of importance samples, seed and limit; else it is computed, and kept if the folder can be written.

    limit: at most so many validation samples of each data set, chosen by the config's seed; all by default.
    Raises `TzkError` if the data cannot be had, or no data set has a validation split.
    """
    manifest = manifest_of(checkpoint_in(folder))
    made_from = {
        "format": FORMAT,
        "core": manifest["core"]["sha256"],
        "knowledge": {name: entry["sha256"] for name, entry in manifest["knowledge"].items()},
        "datasets": [table.model_dump(mode="json") for table in config.datasets],
        "present": [table.model_dump(mode="json") for table in config.knowledge],
        "importance_samples": importance_samples,
        "seed": seed,
        "limit": limit,
    }
    kept = _kept(folder / KEPT, json.dumps(made_from, sort_keys=True))
    if kept is not None:
        return kept
    computed = _computed(folder, config, importance_samples=importance_samples, seed=seed, limit=limit)
    _keep(folder / KEPT, json.dumps(made_from, sort_keys=True), computed)
    return computed


def _computed(folder: Path, config: Config, *, importance_samples: int, seed: int, limit: int | None) -> Calibration:
    try:
        experiment = Experiment(config)
        experiment.load(folder)
        splits = {name: experiment.datasets[name].split("validation") for name in experiment.datasets}
    except TzkError as error:
        raise TzkError(
            f"{error}. The threshold is chosen on the run's validation data: put them there, or set TZK_DATA to the "
            "folder that has them; or give a threshold of your own with --threshold"
        ) from error
    found, present = {}, {}
    for name, samples in splits.items():
        if not len(samples):
            continue
        T, presence = experiment.samples(name, "validation", limit)
        found[name] = evidence(
            experiment.model, T, importance_samples=importance_samples, seed=seed, levels=experiment.levels
        )
        columns = [_column(presence, experiment.knowledge_names, each) for each in found[name].knowledge]
        present[name] = torch.stack(columns, 1) if columns else torch.zeros(len(T), 0, dtype=torch.bool)
    if not found:
        raise TzkError(
            f"no data set of this run has a validation split ({', '.join(splits)}), so that no threshold can be chosen "
            "on it: give one with --threshold"
        )
    return Calibration(found, present)


def _column(presence: Tensor, names: Sequence[str], name: str) -> Tensor:
    """Where a knowledge type is known to be present, (n,); nowhere for one that the config does not mention."""
    return presence[:, names.index(name)] == 1 if name in names else torch.zeros(len(presence), dtype=torch.bool)


def _kept(file: Path, made_from: str) -> Calibration | None:
    with contextlib.suppress(*UNREADABLE, KeyError), np.load(file, allow_pickle=False) as kept:
        if str(kept["made_from"]) != made_from:
            return None
        names, knowledge = [str(name) for name in kept["datasets"]], tuple(map(str, kept["knowledge"]))
        found, present = {}, {}
        for i, name in enumerate(names):
            own = [key for key in kept.files if key.startswith(f"{i}.")]
            tensors = {key.partition(".")[2]: torch.from_numpy(kept[key]) for key in own}
            present[name] = tensors.pop("present")
            found[name] = Evidence(knowledge, **tensors)
        return Calibration(found, present)
    return None


def _keep(file: Path, made_from: str, computed: Calibration) -> None:
    """Writes it whole or not at all; a run folder that cannot be written makes it computed again the next time."""
    arrays: dict[str, np.ndarray] = {
        "made_from": np.array(made_from),
        "datasets": np.array(list(computed.evidence), dtype=np.str_),
        "knowledge": np.array(next(iter(computed.evidence.values())).knowledge, dtype=np.str_),
    }
    for i, (name, each) in enumerate(computed.evidence.items()):
        tensors = {key: value for key, value in vars(each).items() if isinstance(value, Tensor)}
        tensors["present"] = computed.present[name]
        arrays |= {f"{i}.{key}": value.numpy() for key, value in tensors.items()}
    with contextlib.suppress(OSError), new_file(file) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, **arrays)  # type: ignore[arg-type]
