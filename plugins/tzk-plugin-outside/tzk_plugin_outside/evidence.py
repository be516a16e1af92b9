"""Densities and probabilities of observations without labels, encoded once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tzk_core.data.dequantise import dequantise
from tzk_core.evaluation.information import presence_given
from tzk_core.inputs import check_domain, check_observations
from tzk_core.knowledge.importance import log_prob_present_from
from tzk_core.model import TzK
from tzk_core.random_streams import stream
from tzk_core.world import ALONE, World
from tzk_plugin_outside.complexity import code_length

if TYPE_CHECKING:  # it takes a plugin that need not be installed
    from tzk_plugin_outside.dose import Dose


@dataclass(frozen=True)
class Evidence:
    """Log-densities and log-probabilities of n observations, in nats, on the CPU.

    knowledge: the names of the columns.
    log_prob: log p(T), (n,).
    log_ratio: log p(z given κ=1) - log p(z), (n, knowledge), C integrated out; it is log p(T given κ=1) - log p(T), as
        the Jacobian cancels.
    log_presence: log p(κ=1 given T), (n, knowledge).
    code_length: of the grey levels compressed without loss, (n,); None where there are none.
    dose: the score of that name, (n,); None unless it was asked for.
    """

    knowledge: tuple[str, ...]
    log_prob: Tensor
    log_ratio: Tensor
    log_presence: Tensor
    code_length: Tensor | None = None
    dose: Tensor | None = None

    def __len__(self) -> int:
        return len(self.log_prob)

    def take(self, rows: Tensor, knowledge: Sequence[str] | None = None) -> Evidence:
        """Rows, by position or as a mask, and columns; all columns by default."""
        names = self.knowledge if knowledge is None else tuple(knowledge)
        columns = [self.knowledge.index(name) for name in names]
        return Evidence(
            names,
            self.log_prob[rows],
            self.log_ratio[rows][:, columns],
            self.log_presence[rows][:, columns],
            None if self.code_length is None else self.code_length[rows],
            None if self.dose is None else self.dose[rows],
        )

    @classmethod
    def joined(cls, parts: Sequence[Evidence]) -> Evidence:
        """The rows of all parts, one after the other; they are about the same knowledge."""
        return cls(
            parts[0].knowledge,
            torch.cat([part.log_prob for part in parts]),
            torch.cat([part.log_ratio for part in parts]),
            torch.cat([part.log_presence for part in parts]),
            _joined([part.code_length for part in parts]),
            _joined([part.dose for part in parts]),
        )


def _joined(columns: Sequence[Tensor | None]) -> Tensor | None:
    """One column of all, or None where a part has none."""
    present = [column for column in columns if column is not None]
    return torch.cat(present) if len(present) == len(columns) else None


@torch.no_grad()
def evidence(
    model: TzK,
    T: Tensor,
    knowledge: Sequence[str] | None = None,
    *,
    importance_samples: int = 64,
    seed: int = 0,
    levels: int | None = None,
    chunk: int = 256,
    first: int = 0,
    dose: Dose | None = None,
    world: World = ALONE,
) -> Evidence:
    """`Evidence` of observations for some knowledge types, or all.

    Every row is that of `model.log_prob(T[i : i + 1], name, importance_samples=..., seed=...)`. The
    noise of the integral over C is the same for all, so that no score depends on other observations.

    Args:
        T: (n, *shape), in the scale of the model.
        levels: the grey levels that T was dequantised from, None for real-valued data.
        first: what errors call row 0, where T is a part of more.
        dose: of this model, whose score is then part of the evidence.
        world: whose processes, which are to call it together, take chunks in turn; all have the evidence of all.

    Raises:
        TzkError: for an unknown name, and if T has another shape, is not finite, or lies outside the domain of the
            flow.
    """
    names = tuple(dict.fromkeys(knowledge)) if knowledge is not None else tuple(n for n, _ in model.named_knowledge())
    members = [model.find(name) for name in names]
    noises = [
        torch.randn(1, importance_samples, member.characteristics, generator=stream(seed, "importance", name))
        for name, member in zip(names, members, strict=True)
    ]
    like = model.like
    check_observations(T, model.shape)
    parts = T.split(chunk)

    def of_part(number: int) -> tuple[Tensor, ...]:
        z, logabsdet = model.flow.encode(parts[number].to(like))
        check_domain(logabsdet, first=first + chunk * number)
        log_prob_z = model.flow.base.log_prob(z)
        log_ratios = [
            log_prob_present_from(member, z, noise.expand(len(z), -1, -1)) - log_prob_z
            for member, noise in zip(members, noises, strict=True)
        ]
        present = [presence.present for presence in presence_given(model, names, z).values()]
        return (
            (log_prob_z + logabsdet).cpu(),
            torch.stack(log_ratios, 1).cpu() if log_ratios else torch.zeros(len(z), 0),
            torch.stack(present, 1).cpu() if present else torch.zeros(len(z), 0),
            *(() if dose is None else (dose.score(parts[number]),)),
        )

    columns = zip(*world.in_turn(len(parts), of_part), strict=True)
    prior, ratio, presence, *usual = (torch.cat(column) for column in columns)
    lengths = None if levels is None else code_length(T, levels)
    return Evidence(names, prior, ratio, presence, lengths, *usual)


def dequantised(T: Tensor, levels: int | None, seed: int = 0) -> Tensor:
    """Dequantise grey levels, uint8 (n, *shape); floating point is returned unchanged.

    The noise of an image derives from `seed` and its grey levels. So it has the same score at any position and beside
    any others.
    """
    if T.is_floating_point():
        return T
    parts = [dequantise(row[None], stream(seed, "dequantise", row.numpy().tobytes().hex()), levels) for row in T]
    return torch.cat(parts)
