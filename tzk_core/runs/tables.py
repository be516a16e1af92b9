"""Objects that single tables and keys of a config name: data sets, samples, a device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from tzk_core.config import Config, DatasetTable
from tzk_core.data.protocol import Dataset, Samples
from tzk_core.domain import LEVELS, REAL, Domain
from tzk_core.errors import TzkError
from tzk_core.plugins import Dataset as DatasetSpec
from tzk_core.plugins import registry
from tzk_core.random_streams import stream


def datasets_of(config: Config, opened: Mapping[str, Dataset] | None = None) -> dict[str, Dataset]:
    """The data sets of a config by name; most read data with their first split.

    Args:
        opened: data sets that are taken as they are, by name.
    """
    opened = opened or {}
    return {table.name: opened[table.name] if table.name in opened else _opened(table) for table in config.datasets}


def _opened(table: DatasetTable) -> Dataset:
    dataset: Dataset = registry().find(DatasetSpec, table.type).load()(**table.arguments)
    return dataset


def shape_of(datasets: Mapping[str, Dataset]) -> tuple[int, ...]:
    """The shape of the observations of all data sets.

    Raises:
        TzkError: if they differ in it, or in their grey levels.
    """
    levels_of(datasets)
    return tuple(_common(datasets, "shape", "shape"))


def levels_of(datasets: Mapping[str, Dataset]) -> int | None:
    """The number of grey levels of all data sets; None where values are real.

    Raises:
        TzkError: if they differ in it.
    """
    levels: int | None = _common(datasets, "levels", "number of grey levels")
    return levels


def domain_of(datasets: Mapping[str, Dataset]) -> Domain:
    """The domain of all data sets (`tzk_core.domain`).

    Grey levels have their own. Real-valued data sets that name no domain have the real line.

    Raises:
        TzkError: if they differ in it.
    """
    if levels_of(datasets) is not None:
        return LEVELS
    domains = {name: getattr(dataset, "domain", REAL) for name, dataset in datasets.items()}
    first, *others = domains.values()
    if any(other != first for other in others):
        listed = ", ".join(f"{name!r} {domain}" for name, domain in domains.items())
        raise TzkError(f"data sets that are modelled together have one domain; got {listed}")
    return first


def _common(datasets: Mapping[str, Dataset], attribute: str, meaning: str) -> Any:
    values = {name: getattr(dataset, attribute) for name, dataset in datasets.items()}
    if len(set(values.values())) > 1:
        listed = ", ".join(f"{name!r} {value}" for name, value in values.items())
        raise TzkError(f"data sets that are modelled together have one {meaning}; got {listed}")
    return next(iter(values.values()))


def limited(samples: Samples, name: str, split: str, *, limit: int | None, seed: int) -> Samples:
    """At most `limit` samples of a split, chosen by seed, in order.

    Raises `TzkError` if the split is empty.
    """
    if not len(samples):
        raise TzkError(
            f"the {split} split of data set {name!r} is empty, so that there is nothing to evaluate: give the data set "
            f"more samples, or say how many of them are for it, as in {split} = 10, where the data set takes that"
        )
    if limit is None or limit >= len(samples):
        return samples
    order = torch.randperm(len(samples), generator=stream(seed, "limit", name, split))
    return samples.take(order[:limit].sort().values)


def chosen_device(name: str) -> torch.device:
    """The device that a config names; "auto" is a CUDA device, or else the CPU."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise TzkError('device = "cuda", but torch finds no CUDA device here: write device = "auto" or "cpu"')
    return device
