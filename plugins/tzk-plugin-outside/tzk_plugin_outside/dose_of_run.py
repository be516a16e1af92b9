"""The score `dose` of a run, for the report of `tzk ood`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from tzk_core.data.dequantise import dequantise
from tzk_core.data.protocol import Dataset
from tzk_core.errors import TzkError
from tzk_core.random_streams import stream
from tzk_core.runs.experiment import Experiment
from tzk_plugin_outside.comparison import detection
from tzk_plugin_outside.dose import IMAGES, Dose

MEANING = "how usual statistics of the model, of patches and features are, by densities of training images"


def dose_of(experiment: Experiment, limit: int) -> Dose:
    """`Dose` of a run, of all its data sets together.

    Args:
        limit: validation images of each data set, at most.

    Raises:
        TzkError: unless its data are images of grey levels, with a validation split.
    """
    if experiment.levels is None:
        raise TzkError("the score 'dose' is of images with grey levels; the data of this run are real-valued")
    seed, levels, parts = experiment.config.seed, experiment.levels, []
    share = max(1, IMAGES // len(experiment.datasets))
    for name, samples in experiment.train_samples.items():
        rows = torch.randperm(len(samples), generator=stream(seed, "dose", name))[:share]
        parts.append(dequantise(samples.T[rows], stream(seed, "dose", name, "noise"), levels))
    train = torch.cat(parts)
    train = train[torch.randperm(len(train), generator=stream(seed, "dose", "order"))]
    validation = [
        experiment.samples(name, "validation", limit)[0]
        for name, dataset in experiment.datasets.items()
        if len(dataset.split("validation"))
    ]
    if not validation:
        raise TzkError("the score 'dose' is compared with validation images, and no data set of this run has any")
    return Dose(experiment.model, train, torch.cat(validation), levels=levels, seed=seed)


def add_dose(
    report: dict[str, Any],
    experiment: Experiment,
    *,
    limit: int,
    images: Callable[[str, Any], Tensor],
    others: Mapping[str, Dataset],
) -> None:
    """Append the row of `dose` to the statistics of every outside data set.

    Args:
        limit: as `dose_of`.
        images: T of the split that is reported on, by name and data set.
    """
    dose = dose_of(experiment, limit)
    here = dose.score(torch.cat([images(name, dataset) for name, dataset in experiment.datasets.items()]))
    for compared in report["outside"]:
        there = dose.score(images(compared["dataset"], others[compared["dataset"]]))
        found = detection(dose.validation, here, there, false_alarms=report["false_alarms"])
        compared["statistics"].append({"statistic": "dose", "meaning": MEANING} | found)
