"""Test samples under a model: confused knowledge, and the least likely samples.

With these is why they are unlikely.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tzk_core.evaluation.likelihood import EvaluationSplit
from tzk_core.knowledge import discriminate
from tzk_core.model import TzK
from tzk_core.report.words import percent
from tzk_core.units import bits_per_dim

CHUNK = 256

SURE = 0.5
"""The least probability that is named as a reason."""

TAIL = 0.02
"""The share of test samples that an unusual statistic is beyond of."""

MOST_LOOKS = 3
"""Unusual statistics of a sample that are named."""

FAR = 2.5
"""Standard deviations of C from its middle that are named as a reason."""


@dataclass(frozen=True)
class Encoded:
    """Test samples of one data set under a model, on the CPU.

    Attributes:
        split: the samples, dequantised, and what is known of them.
        bits: per dimension of p(T), (n,).
        presence: p(κ=1 given T), (n, knowledge), columns as of `split.knowledge`.
        characteristics: the mean of p(C given T, κ=1), (n, c), by knowledge type.
        distance: the largest |standardised C| of each sample, (n,), by knowledge type.
    """

    split: EvaluationSplit
    bits: Tensor
    presence: Tensor
    characteristics: Mapping[str, Tensor]
    distance: Mapping[str, Tensor]


@dataclass(frozen=True)
class Confusion:
    """How often samples of a knowledge type are taken for each one of a group.

    Attributes:
        title: of the group.
        names: of the knowledge types; rows are what samples are, columns what they are taken for.
        shares: (names, names), rows sum to 1, nan of a type without test samples.
        counts: test samples of every type, (names,).
    """

    title: str
    names: Sequence[str]
    shares: Tensor
    counts: Tensor

    def worst(self) -> tuple[str, str, float] | None:
        """The pair that is confused most often, and how often; None if none is."""
        off = torch.nan_to_num(self.shares.clone()).fill_diagonal_(0)
        value, index = off.flatten().max(0)
        if value.item() <= 0:
            return None
        row, column = divmod(int(index), len(self.names))
        return self.names[row], self.names[column], value.item()


@dataclass(frozen=True)
class Surprise:
    """A test sample that is unlikely, and the reasons that can be seen."""

    index: int
    bits: float
    reasons: Sequence[str]


@torch.no_grad()
def encode(model: TzK, split: EvaluationSplit) -> Encoded:
    """Score the samples of a split, and what every knowledge type sees in them."""
    bits, presence = [], []
    means: dict[str, list[Tensor]] = {name: [] for name in split.knowledge}
    dims = math.prod(model.shape)
    for T in split.T.split(CHUNK):
        z, logabsdet = model.flow.encode(T.to(model.like))
        log_prob = (model.flow.base.log_prob(z) + logabsdet).double().cpu()
        bits.append(bits_per_dim(log_prob, dims, split.levels))
        columns = []
        for name in split.knowledge:
            member = model.find(name)
            columns.append(discriminate(member, z).present.exp().double().cpu())
            means[name].append(member.characteristics_given(z)[0].double().cpu())
        presence.append(torch.stack(columns, 1) if columns else torch.zeros(len(T), 0))
    characteristics = {name: torch.cat(parts) for name, parts in means.items() if parts}
    return Encoded(
        split=split,
        bits=torch.cat(bits),
        presence=torch.cat(presence),
        characteristics=characteristics,
        distance={name: _distance(model, name, C) for name, C in characteristics.items()},
    )


def _distance(model: TzK, name: str, C: Tensor) -> Tensor:
    prior = model.find(name).characteristics_prior
    standard = (C - prior.mean_.double().cpu()) / prior.scale.double().cpu()
    return standard.abs().amax(1) if standard.shape[1] else torch.zeros(len(C))


def confusion(title: str, members: Sequence[str], encoded: Sequence[Encoded]) -> Confusion | None:
    """The confusion of a group of knowledge types on their samples.

    A sample is taken for the most probable member by p(κ=1 given T).

    Only samples with exactly one member present count.

    Returns:
        None if there are fewer than two members, or no such samples.
    """
    if len(members) < 2:
        return None
    table = torch.zeros(len(members), len(members), dtype=torch.float64)
    for samples in encoded:
        names = list(samples.split.knowledge)
        if not set(members) <= set(names):
            continue
        columns = [names.index(name) for name in members]
        present = samples.split.presence[:, columns] == 1
        rows = torch.nonzero(present.sum(1) == 1).squeeze(1)
        truth, taken = present[rows].double().argmax(1), samples.presence[rows][:, columns].argmax(1)
        table.index_put_((truth, taken), torch.ones(len(rows), dtype=torch.float64), accumulate=True)
    counts = table.sum(1)
    return Confusion(title, tuple(members), table / counts.unsqueeze(1), counts) if counts.sum() > 0 else None


def least_likely(encoded: Encoded, count: int = 8, *, columns: Sequence[str] = ()) -> list[Surprise]:
    """The test samples of the most bits, the least likely first, with reasons.

    Args:
        columns: names of the dimensions of vectors.
    """
    order = encoded.bits.argsort(descending=True)[:count].tolist()
    return [Surprise(index, encoded.bits[index].item(), reasons(encoded, index, columns)) for index in order]


def reasons(encoded: Encoded, index: int, columns: Sequence[str] = ()) -> list[str]:
    """Why a sample may be unlikely, as far as it shows.

    Reasons are its knowledge, its C, and its look.
    """
    look = "pixels" if encoded.split.T.ndim == 4 else "single values"
    return [*_knowledge_reasons(encoded, index), *_look_reasons(encoded, index, columns)] or [
        f"nothing unusual shows in its knowledge, its C or its {look}"
    ]


def _knowledge_reasons(encoded: Encoded, index: int) -> list[str]:
    names, found = encoded.split.knowledge, []
    known, probable = encoded.split.presence[index], encoded.presence[index]
    for column, name in enumerate(names):
        if known[column] == 1 and probable[column] < 1 - SURE:
            found.append(f"it does not look like {name} (p = {probable[column]:.2f}), which it is")
    for column, name in enumerate(names):
        if known[column] == 0 and probable[column] > SURE:
            found.append(f"it looks like {name} (p = {probable[column]:.2f}), which it is not")
    for column, name in enumerate(names):
        distance = encoded.distance.get(name)
        if known[column] == 1 and distance is not None and distance[index] > FAR:
            found.append(f"its C as {name} is {distance[index]:.1f} standard deviations from the middle")
    return found[:3]


def _look_reasons(encoded: Encoded, index: int, columns: Sequence[str]) -> list[str]:
    """Statistics of the sample itself that few test samples are beyond of."""
    found = []
    for (higher, lower), values in _looks(encoded.split.T.double(), columns).items():
        above = (values > values[index]).double().mean().item()
        below = (values < values[index]).double().mean().item()
        if above < TAIL <= below:
            found.append(f"{higher} than {percent(below)} of test samples")
        elif below < TAIL <= above:
            found.append(f"{lower} than {percent(above)} of test samples")
    return found[:MOST_LOOKS]


def _looks(T: Tensor, columns: Sequence[str]) -> dict[tuple[str, str], Tensor]:
    """Statistics of samples, (n,), by what a large and a small value mean."""
    flat = T.flatten(1)
    if T.ndim == 2 and len(columns) == T.shape[1]:
        return {(f"{name} greater", f"{name} less"): flat[:, i] for i, name in enumerate(columns)}
    if T.ndim != 4 or min(T.shape[2:]) < 2:
        return {("of a larger mean", "of a smaller mean"): flat.mean(1)}
    roughness = T.diff(dim=3).abs().flatten(1).mean(1) + T.diff(dim=2).abs().flatten(1).mean(1)
    return {
        ("brighter", "darker"): flat.mean(1),
        ("of more contrast", "paler"): flat.std(1),
        ("rougher", "smoother"): roughness,
    }
