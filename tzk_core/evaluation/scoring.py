"""Log-densities of held-out samples under the prior and under knowledge, by chunks."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch

from tzk_core.evaluation.likelihood import EvaluationSplit, Scores
from tzk_core.knowledge import Knowledge, discriminate
from tzk_core.knowledge.importance import log_joint, log_prob_present
from tzk_core.model import TzK
from tzk_core.random_streams import stream


@torch.no_grad()
def score(
    model: TzK,
    held_out: EvaluationSplit,
    importance_samples: int,
    *,
    everywhere: Collection[str] = (),
    seed: int = 0,
    chunk: int = 256,
) -> Scores:
    """Score a split, encoding every sample once a dequantisation.

    Args:
        importance_samples: how many estimate the integral over C.
        everywhere: knowledge that is scored on all samples; other knowledge is scored where it is present.
        chunk: samples that are evaluated together.
    """
    settings = {"importance_samples": importance_samples, "seed": seed, "chunk": chunk}
    dequantised = [
        _scored(model, held_out, T, number=number, everywhere=everywhere, **settings)
        for number, T in enumerate(held_out.dequantisations())
    ]
    first, prior = dequantised[0], _mean([scores.prior for scores in dequantised])
    return replace(
        first,
        one_draw=first if len(dequantised) > 1 else None,
        prior=prior,
        conditional={name: _mean([scores.conditional[name] for scores in dequantised]) for name in first.conditional},
        presence={
            name: _mean([scores.presence[name] + scores.prior[rows] for scores in dequantised]) - prior[rows]
            for name, rows in first.rows.items()
        },
    )


def _mean(log_probs: Sequence[torch.Tensor]) -> torch.Tensor:
    """The logarithm of the mean of densities, (n,) each."""
    if len(log_probs) == 1:
        return log_probs[0]
    return torch.logsumexp(torch.stack(list(log_probs)), 0) - math.log(len(log_probs))


def _scored(
    model: TzK,
    held_out: EvaluationSplit,
    T: torch.Tensor,
    *,
    number: int,
    importance_samples: int,
    everywhere: Collection[str] = (),
    seed: int = 0,
    chunk: int = 256,
) -> Scores:
    """The scores of the dequantisation T of this number."""
    like = model.like
    prior: list[torch.Tensor] = []
    parts: dict[str, list[_Part]] = {}
    for count, start in enumerate(range(0, len(T), chunk)):
        z, logabsdet = model.flow.encode(T[start : start + chunk].to(like))
        prior.append((model.flow.base.log_prob(z) + logabsdet).cpu())
        for column, name in enumerate(held_out.knowledge):
            is_scored = held_out.presence[start : start + chunk, column] == 1
            if name in everywhere:
                is_scored = torch.ones_like(is_scored)
            index = torch.nonzero(is_scored).squeeze(1)
            if not len(index):
                continue
            generator = stream(seed, "importance", name, held_out.dataset, count, *([number] if number else []))
            rows = index.to(like.device)
            part = _scored_part(model.find(name), z[rows], importance_samples, generator=generator)
            conditional = (part.conditional + logabsdet[rows]).cpu()
            parts.setdefault(name, []).append(part._replace(rows=index + start, conditional=conditional))
    names = [name for name in held_out.knowledge if name in parts]
    return Scores(
        held_out=held_out,
        prior=torch.cat(prior),
        rows={name: torch.cat([part.rows for part in parts[name]]) for name in names},
        conditional={name: torch.cat([part.conditional for part in parts[name]]) for name in names},
        importance_samples=importance_samples,
        decided={
            name: torch.cat([part.decided for part in own if part.decided is not None])
            for name, own in parts.items()
            if own[0].decided is not None
        },
        presence={name: torch.cat([part.presence for part in parts[name]]) for name in names},
        log_det_estimate=model.flow.log_det_estimate,
    )


class _Part(NamedTuple):
    """The scores of one knowledge type on a chunk, (m,) each, as of `Scores`."""

    rows: torch.Tensor
    conditional: torch.Tensor
    presence: torch.Tensor
    decided: torch.Tensor | None


def _scored_part(
    knowledge: Knowledge, z: torch.Tensor, importance_samples: int, *, generator: torch.Generator
) -> _Part:
    """The scores of one knowledge type at z, (m, *latent_shape), without log|det dz/dT|."""
    decided = None
    if knowledge.support() is None:
        log_prob = log_prob_present(knowledge, z, importance_samples, generator=generator)
    else:
        joint = log_joint(knowledge, z)
        log_prob, decided = joint.logsumexp(1), joint.argmax(1).cpu()
    return _Part(torch.arange(len(z)), log_prob, discriminate(knowledge, z).present.cpu(), decided)


@torch.no_grad()
def invertibility(model: TzK, held_out: EvaluationSplit, count: int = 512) -> tuple[float, float]:
    """The largest error of f_T(f_T^{-1}(T)) over `count` samples.

    Returns:
        The error of `encode` and `decode`, and that of the flow in the model's own type. Both are in grey levels, or in
        the unit of T where there are none.
    """
    like, transform = model.like, model.flow.transform
    T = held_out.T[:count].to(like)
    unit = held_out.levels or 1
    exact, single = model.decode(model.encode(T)), transform.inverse(transform(T)[0])[0]
    return unit * (exact - T).abs().max().item(), unit * (single - T).abs().max().item()
