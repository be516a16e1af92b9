"""Log-densities of held-out samples under the prior and under knowledge, chunk by chunk."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import replace

import torch

from tzk_core.evaluation.likelihood import EvaluationSplit, Scores
from tzk_core.knowledge import discriminate
from tzk_core.knowledge.importance import log_joint, log_prob_present
from tzk_core.model import TzK
from tzk_core.random_streams import stream


@torch.no_grad()
def score(
    model: TzK,
    held: EvaluationSplit,
    importance_samples: int,
    everywhere: Collection[str] = (),
    seed: int = 0,
    chunk: int = 256,
) -> Scores:
    """Encodes each sample once for every dequantisation; knowledge is scored where it is present, that of `everywhere`
    always."""
    each = [
        _scored(model, held, T, number, importance_samples, everywhere, seed, chunk)
        for number, T in enumerate(held.dequantisations())
    ]
    first, prior = each[0], _mean([scores.prior for scores in each])
    return replace(
        first,
        one_draw=first if len(each) > 1 else None,
        prior=prior,
        given={name: _mean([scores.given[name] for scores in each]) for name in first.given},
        presence={
            name: _mean([scores.presence[name] + scores.prior[rows] for scores in each]) - prior[rows]
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
    held: EvaluationSplit,
    T: torch.Tensor,
    draw: int,
    importance_samples: int,
    everywhere: Collection[str],
    seed: int,
    chunk: int,
) -> Scores:
    """The scores of one dequantisation T of `held`, the one with this number."""
    like = model.like
    prior = []
    rows: dict[str, list[torch.Tensor]] = {name: [] for name in held.knowledge}
    given: dict[str, list[torch.Tensor]] = {name: [] for name in held.knowledge}
    presence: dict[str, list[torch.Tensor]] = {name: [] for name in held.knowledge}
    decided: dict[str, list[torch.Tensor]] = {}
    for number, start in enumerate(range(0, len(T), chunk)):
        z, logabsdet = model.flow.encode(T[start : start + chunk].to(like))
        prior.append((model.flow.base.log_prob(z) + logabsdet).cpu())
        for column, name in enumerate(held.knowledge):
            wanted = held.presence[start : start + chunk, column] == 1
            if name in everywhere:
                wanted = torch.ones_like(wanted)
            index = torch.nonzero(wanted).squeeze(1)
            if not len(index):
                continue
            generator = stream(seed, "importance", name, held.dataset, number, *([draw] if draw else []))
            chosen = index.to(like.device)
            kind = model.find(name)
            if kind.support() is None:
                log_prob = log_prob_present(kind, z[chosen], importance_samples, generator=generator)
            else:
                each = log_joint(kind, z[chosen])
                log_prob = each.logsumexp(1)
                decided.setdefault(name, []).append(each.argmax(1).cpu())
            rows[name].append(index + start)
            presence[name].append(discriminate(kind, z[chosen]).present.cpu())
            given[name].append((log_prob + logabsdet[chosen]).cpu())
    return Scores(
        held,
        torch.cat(prior),
        {name: torch.cat(parts) for name, parts in rows.items() if parts},
        {name: torch.cat(parts) for name, parts in given.items() if parts},
        importance_samples,
        {name: torch.cat(parts) for name, parts in decided.items()},
        {name: torch.cat(parts) for name, parts in presence.items() if parts},
    )


@torch.no_grad()
def invertibility(model: TzK, held: EvaluationSplit, count: int = 512) -> tuple[float, float]:
    """The largest error of f_T(f_T^{-1}(T)) over `count` samples, in grey levels, or as T is without them: by `encode`
    and `decode`, and by the flow in the model's own type alone."""
    like, transform = model.like, model.flow.transform
    T = held.T[:count].to(like)
    unit = held.levels or 1
    exact, single = model.decode(model.encode(T)), transform.inverse(transform(T)[0])[0]
    return unit * (exact - T).abs().max().item(), unit * (single - T).abs().max().item()
