"""Which member of a partition a sample belongs to, or which of finitely many C it has: by Bayes from p(T given K),
and by the discriminators or the encoder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from tzk_core.evaluation.likelihood import Held, Scores
from tzk_core.model import TzK


@torch.no_grad()
def classification(
    model: TzK, scores: Scores, partition: str, log_weights: Mapping[str, float], chunk: int = 512
) -> dict[str, Any]:
    """Accuracy on one split of both answers to the one question, and how often they differ."""
    names, held = list(log_weights), scores.held
    truth = held.presence[:, [held.knowledge.index(name) for name in names]].argmax(1)
    bayes = torch.stack([scores.given[name] + log_weights[name] for name in names]).argmax(0)

    def odds(z: Tensor) -> Tensor:
        given = (model.find(name).log_prob_presence_given(z) for name in names)
        return torch.stack([present - absent for absent, present in given], 1)

    return _compared(held, partition, truth, bayes, _chosen(model, held.T, odds, chunk))


@torch.no_grad()
def classification_of_characteristics(model: TzK, scores: Scores, name: str, chunk: int = 512) -> dict[str, Any]:
    """The same of a knowledge type whose C has finitely many values, on samples in which it was observed: by Bayes, and
    by its encoder p(C given z, κ=1)."""
    held, kind = scores.held, model.find(name)
    support = kind.support()
    assert support is not None
    rows = scores.rows[name]
    known = ~held.characteristics[name][rows].isnan().any(1)
    rows, bayes = rows[known], scores.decided[name][known]
    distances = (held.characteristics[name][rows].unsqueeze(1) - support.cpu()).abs().sum(2)

    def encoded(z: Tensor) -> Tensor:
        return kind.log_prob_characteristics_given(support.to(z).expand(len(z), *support.shape), z)

    chosen = _chosen(model, held.T[rows], encoded, chunk)
    return _compared(held, f"C of {name}", distances.argmin(1), bayes, chosen)


def _chosen(model: TzK, T: Tensor, scored: Callable[[Tensor], Tensor], chunk: int) -> Tensor:
    """Which column of the scores, (n, m), of latents is the largest, (n,)."""
    like = next(model.parameters())
    return torch.cat([scored(model.flow.encode(part.to(like))[0]).argmax(1).cpu() for part in T.split(chunk)])


def _compared(held: Held, partition: str, truth: Tensor, bayes: Tensor, discriminator: Tensor) -> dict[str, Any]:
    return {
        "partition": partition,
        "dataset": held.dataset,
        "split": held.split,
        "count": len(truth),
        "bayes_accuracy": (bayes == truth).double().mean().item(),
        "discriminator_accuracy": (discriminator == truth).double().mean().item(),
        "disagreement": (bayes != discriminator).double().mean().item(),
    }
