"""Contents of pictures, as tensors: test observations, reconstructions through C, the plane of C."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

MEMBERS = 20
"""The most knowledge types of a group that are shown, from its first on."""


class Experiment(Protocol):
    """The part of an experiment that pictures use."""

    config: Any  # .seed, .pictures (.temperature, .draw), and .datasets, each with a .name
    model: Any  # .shape, .latent_shape, .knowledge, sample, encode, decode; of vectors log_prob and flow.encode

    @property
    def knowledge_names(self) -> Sequence[str]: ...

    @property
    def groups(self) -> Mapping[str, Sequence[str]]:
        """The knowledge types of a config's table, by its name, such as `digit-{label}`."""
        ...

    @property
    def observed(self) -> Mapping[str, Sequence[str]]:
        """Names of characteristics in order, such as "slant", by knowledge type with observed C."""
        ...

    @property
    def dataset_knowledge(self) -> Mapping[str, str]:
        """By data set, the knowledge type that means "from this data set" alone."""
        ...

    def samples(self, dataset: str, split: str) -> tuple[Tensor, Tensor]:
        """Observations of a split, and their presence.

        Returns:
            T, (n, *shape), in the scale of the model, and presence, (n, knowledge), in {0, 1, nan}.
        """
        ...


def observations_to_show(experiment: Experiment, count: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Up to `count` test observations by data set, and by present knowledge type.

    They are spread evenly over the split. Every run therefore shows the same ones, and a split in order of class shows
    all classes. A knowledge type that is present nowhere in the test split is left out.
    """
    by_dataset: dict[str, Tensor] = {}
    by_knowledge: dict[str, list[Tensor]] = {}
    for dataset in experiment.config.datasets:
        T, presence = experiment.samples(dataset.name, "test")
        by_dataset[dataset.name] = _spread(T, count)
        for column, name in enumerate(experiment.knowledge_names):
            present = (presence[:, column] == 1).nonzero().squeeze(1)
            if len(present):
                by_knowledge.setdefault(name, []).append(T[_spread(present, count)])
    return by_dataset, {name: _spread(torch.cat(parts), count) for name, parts in by_knowledge.items()}


def _spread(values: Tensor, count: int) -> Tensor:
    index = torch.linspace(0, len(values) - 1, min(count, len(values)), dtype=torch.float64).round().long()
    return values[index]


def column_names(experiment: Experiment) -> tuple[str, ...]:
    """Names of the dimensions of vectors.

    They are those of a data set that has `columns`, else T1, T2, ...
    """
    named = [getattr(dataset, "columns", None) for dataset in getattr(experiment, "datasets", {}).values()]
    count = int(experiment.model.shape[0])
    first = next((tuple(map(str, names)) for names in named if names and len(names) == count), None)
    return first or tuple(f"T{i + 1}" for i in range(count))


def characteristic_names(experiment: Experiment, name: str) -> tuple[str, ...]:
    """Names of the characteristics of a knowledge type.

    They are the data's where C is observed, else C1, C2, ...
    """
    count = experiment.model.knowledge[name].characteristics
    return tuple(experiment.observed.get(name, ())) or tuple(f"C{i + 1}" for i in range(count))


@torch.no_grad()
def through_characteristics(model: Any, name: str, T: Tensor) -> Tensor:
    """Reconstruct T through the C of one knowledge type, (n, *shape).

    C is the mean of p(C given T, κ=1), and z the middle of p(z given C, κ=1). Only the c numbers of C are left of T.
    """
    knowledge = model.knowledge[name]
    z = model.encode(T.to(model.like))
    C = knowledge.encode(z, z.new_zeros(len(z), knowledge.characteristics))
    return model.decode(knowledge.decode(C, torch.zeros_like(z)))


@torch.no_grad()
def at_quantiles(model: Any, name: str, quantiles: Tensor) -> Tensor:
    """Decode T at quantiles of C, from the middle of p(z given C, κ=1).

    Args:
        quantiles: (n, c), of the prior of C.

    Returns:
        (n, *shape).
    """
    knowledge = model.knowledge[name]
    like = model.like
    C = knowledge.imagine(torch.special.ndtri(quantiles.double()).to(like))
    return model.decode(knowledge.decode(C, like.new_zeros(len(C), *model.latent_shape)))


def bits_per_dim(results: Mapping[str, Any], name: str) -> float | None:
    """Bits per dim of a knowledge type in the contents of results.json.

    None if it has no row, or several: no single figure then covers all data sets.
    """
    rows = [row for row in results.get("rows", ()) if row["kind"] == "knowledge" and row["name"] == name]
    return rows[0].get("bits_per_dim") if len(rows) == 1 else None


def file_name(knowledge: str) -> str:
    """Part of a file name for a knowledge type or a group: `digit-all` for `digit-{label}`."""
    return re.sub(r"[^\w.+-]+", "-", re.sub(r"\{[^}]*\}", "all", knowledge)).strip("-.") or "knowledge"
