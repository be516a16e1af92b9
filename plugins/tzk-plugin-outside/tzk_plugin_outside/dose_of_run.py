"""The score `dose` of a run, fitted once: it is stored in the run folder."""

from __future__ import annotations

import contextlib
import importlib.util
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from tzk_core.config import Config
from tzk_core.data.dequantise import dequantise
from tzk_core.data.packed import UNREADABLE, read_arrays
from tzk_core.errors import TzkError
from tzk_core.model import TzK
from tzk_core.random_streams import stream
from tzk_core.runs.experiment import Experiment
from tzk_core.storage.atomic import new_file
from tzk_core.storage.places import checkpoint_in
from tzk_core.storage.stored import manifest_of
from tzk_core.world import ALONE, World
from tzk_plugin_outside.calibration import model_and_data

if TYPE_CHECKING:  # it takes a plugin that need not be installed
    from tzk_plugin_outside.dose import Dose

STORED = "dose.npz"
FORMAT = 1
"""Of the file; a change of what is fitted raises it, so that older ones are fitted again."""


class TrainingImages(NamedTuple):
    """Training images of a run.

    T: (n, *shape), dequantised. rows: the data set of each, and its row in the training split.
    """

    T: Tensor
    rows: Sequence[tuple[str, int]]


def dose_of_run(folder: Path, config: Config, model: TzK, *, limit: int, world: World = ALONE) -> Dose:
    """`Dose` of a run, from its folder or else fitted to its data.

    It is of all its data sets together. The stored one is used if it was fitted by the same model, tables of data sets
    and limit. A fitted one is stored if the folder can be written.

    Args:
        model: that of the run.
        limit: validation images of each data set, at most.
        world: whose processes, which are to call it together, have the same; the first fits and stores it.

    Raises:
        TzkError: if tzk-plugin-features is not installed, if data that it is to be fitted to cannot be had, or unless
            they are images of grey levels, with a validation split.
    """
    check_available()
    from tzk_plugin_outside.dose import Dose  # checked above

    own = {"format": FORMAT, "seed": config.seed, "limit": limit}
    key = json.dumps(own | model_and_data(folder, config), sort_keys=True)

    def of_first(_: int) -> Mapping[str, np.ndarray]:
        arrays = _stored(folder / STORED, key, model)
        if arrays is None:
            fitted = fitted_dose(_opened(folder, config), limit)
            arrays = {name: value.numpy() for name, value in fitted.fitted.state_dict().items()}
            arrays["levels"] = np.array(fitted.levels)
            with contextlib.suppress(OSError), new_file(folder / STORED) as fresh, fresh.open("wb") as file:
                np.savez_compressed(file, made_from=np.array(key), **arrays)  # type: ignore[arg-type]
        return arrays

    (arrays,) = world.in_turn(1, of_first)
    dose = Dose.unfitted(model, levels=int(arrays["levels"]))
    dose.fitted.load_state_dict(_tensors(arrays))
    return dose


def fitted_dose(experiment: Experiment, limit: int) -> Dose:
    """`Dose` of an experiment's model and data; arguments and errors are those of `dose_of_run`."""
    from tzk_plugin_outside.dose import Dose  # it takes a plugin that need not be installed

    if experiment.levels is None:
        raise TzkError("the score 'dose' is of images with grey levels; the data of this run are real-valued")
    splits = {name: dataset.split("validation") for name, dataset in experiment.datasets.items()}
    validation = [experiment.samples(name, "validation", limit)[0] for name, own in splits.items() if len(own)]
    if not validation:
        raise TzkError("the score 'dose' is compared with validation images, and no data set of this run has any")
    train, seed = training_images(experiment).T, experiment.config.seed
    return Dose.fit(experiment.model, train, torch.cat(validation), levels=experiment.levels, seed=seed)


def training_images(experiment: Experiment) -> TrainingImages:
    """The training images that `dose` is fitted to, in random order."""
    from tzk_plugin_outside.dose import IMAGES  # it takes a plugin that need not be installed

    seed, share = experiment.config.seed, max(1, IMAGES // len(experiment.datasets))
    T, rows = [], []
    for name, samples in experiment.train_samples.items():
        chosen = torch.randperm(len(samples), generator=stream(seed, "dose", name))[:share]
        T.append(dequantise(samples.T[chosen], stream(seed, "dose", name, "noise"), experiment.levels))
        rows += [(name, row) for row in chosen.tolist()]
    order = torch.randperm(len(rows), generator=stream(seed, "dose", "order"))
    return TrainingImages(torch.cat(T)[order], [rows[number] for number in order.tolist()])


def check_available() -> None:
    """Check that the plugin of the features is installed.

    Raises:
        TzkError: if it is not.
    """
    if importlib.util.find_spec("tzk_plugin_features") is None:
        raise TzkError("the score 'dose' takes tzk-plugin-features: pip install tzk-plugin-features, or leave it out")


def _opened(folder: Path, config: Config) -> Experiment:
    try:
        return Experiment(config, known=list(manifest_of(checkpoint_in(folder))["knowledge"]), trained=folder)
    except TzkError as error:
        raise TzkError(
            f"{error}. The score 'dose' is fitted to the run's data: put them there, set TZK_DATA to the folder that "
            "has them, or take another statistic"
        ) from error


def _stored(file: Path, key: str, model: TzK) -> Mapping[str, np.ndarray] | None:
    """What is stored in the file.

    None where it is missing, damaged, no file, or fitted to something else.
    """
    from tzk_plugin_outside.dose import Dose

    with contextlib.suppress(*UNREADABLE, KeyError, TypeError, TzkError):
        arrays = read_arrays(file)
        if str(arrays.pop("made_from")) != key:
            return None
        dose = Dose.unfitted(model, levels=int(arrays["levels"]))
        dose.fitted.load_state_dict(
            _tensors(arrays)
        )  # a RuntimeError, of those that are suppressed, if they do not fit
        return arrays
    return None


def _tensors(arrays: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    return {name: torch.from_numpy(value) for name, value in arrays.items() if name != "levels"}
