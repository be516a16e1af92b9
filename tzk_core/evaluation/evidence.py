"""What a model says of observations whose knowledge nobody knows, each encoded once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tzk_core.data.dequantise import dequantise
from tzk_core.evaluation.complexity import code_length
from tzk_core.evaluation.information import presence_given
from tzk_core.inputs import check_domain, check_observations
from tzk_core.knowledge.importance import log_prob_present_from
from tzk_core.model import TzK
from tzk_core.random_streams import stream


@dataclass(frozen=True)
class Evidence:
    """All in nats, on the CPU; `knowledge` names the columns.

    log_prob: (n,), log p(T). log_ratio: (n, knowledge), log p(z given κ=1) - log p(z), C integrated out, which is
    log p(T given κ=1) - log p(T) since the Jacobian cancels. log_presence: (n, knowledge), log p(κ=1 given T).
    code_length: (n,), of the grey levels compressed without loss; None where there are none.
    """

    knowledge: tuple[str, ...]
    log_prob: Tensor
    log_ratio: Tensor
    log_presence: Tensor
    code_length: Tensor | None = None

    def __len__(self) -> int:
        return len(self.log_prob)

    def take(self, rows: Tensor, knowledge: Sequence[str] | None = None) -> Evidence:
        """These rows, by position or as a mask, and these columns; all columns by default."""
        names = self.knowledge if knowledge is None else tuple(knowledge)
        columns = [self.knowledge.index(name) for name in names]
        return Evidence(
            names,
            self.log_prob[rows],
            self.log_ratio[rows][:, columns],
            self.log_presence[rows][:, columns],
            None if self.code_length is None else self.code_length[rows],
        )

    @classmethod
    def joined(cls, parts: Sequence[Evidence]) -> Evidence:
        """The rows of all parts, one after the other; they are about the same knowledge."""
        lengths = [each.code_length for each in parts if each.code_length is not None]
        return cls(
            parts[0].knowledge,
            torch.cat([each.log_prob for each in parts]),
            torch.cat([each.log_ratio for each in parts]),
            torch.cat([each.log_presence for each in parts]),
            torch.cat(lengths) if len(lengths) == len(parts) else None,
        )


@torch.no_grad()
def evidence(
    model: TzK,
    T: Tensor,
    knowledge: Sequence[str] | None = None,
    importance_samples: int = 64,
    seed: int = 0,
    levels: int | None = None,
    chunk: int = 256,
) -> Evidence:
    """`Evidence` of T, (n, *shape), in the scale of the model, for these knowledge types; all by default.

    levels: the grey levels that T was dequantised from, None for real-valued data.

    Every row is what `model.log_prob(T[i : i + 1], name, importance_samples=..., seed=...)` says of that observation
    alone: the noise of the integral over C is the same for all, so that no score depends on what else was asked.
    Raises `TzkError` for an unknown name, and if T has another shape, is not finite, or lies outside the domain of the
    flow.
    """
    names = tuple(dict.fromkeys(knowledge)) if knowledge is not None else tuple(n for n, _ in model.named_knowledge())
    kinds = [model.find(name) for name in names]
    noises = [
        torch.randn(1, importance_samples, kind.characteristics, generator=stream(seed, "importance", name))
        for name, kind in zip(names, kinds, strict=True)
    ]
    like = model.like
    check_observations(T, model.shape)
    prior, logabsdets, ratios, presences = [], [], [], []
    for part in T.split(chunk):
        z, logabsdet = model.flow.encode(part.to(like))
        log_prob_z = model.flow.base.log_prob(z)
        prior.append((log_prob_z + logabsdet).cpu())
        logabsdets.append(logabsdet.cpu())
        each = [
            log_prob_present_from(kind, z, noise.expand(len(z), -1, -1)) - log_prob_z
            for kind, noise in zip(kinds, noises, strict=True)
        ]
        present = [presence.present for presence in presence_given(model, names, z).values()]
        ratios.append(torch.stack(each, 1).cpu() if each else torch.zeros(len(z), 0))
        presences.append(torch.stack(present, 1).cpu() if present else torch.zeros(len(z), 0))
    check_domain(torch.cat(logabsdets))
    lengths = None if levels is None else code_length(T, levels)
    return Evidence(names, torch.cat(prior), torch.cat(ratios), torch.cat(presences), lengths)


def dequantised(T: Tensor, levels: int | None, seed: int = 0) -> Tensor:
    """Grey levels, uint8 (n, *shape), with noise; the noise of every row derives from `seed` and what the row holds.

    So an image gets the same score wherever it lies and whatever is scored with it. Floating point comes back as it is.
    """
    if T.is_floating_point():
        return T
    parts = [dequantise(row[None], stream(seed, "dequantise", row.numpy().tobytes().hex()), levels) for row in T]
    return torch.cat(parts)
