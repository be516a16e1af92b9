"""Which member of a partition a sample belongs to, or which of finitely many C it has: by Bayes from p(T given K),
and by the discriminators or the encoder."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from tzk_core.evaluation.likelihood import Held, Scores
from tzk_core.model import TzK


@torch.no_grad()
def classification(
    model: TzK, scores: Scores, partition: str, log_weights: Mapping[str, float], chunk: int = 512
) -> dict[str, Any]:
    """Accuracy on one split of both answers to the one question, and how often they differ.

    Of several dequantisations the discriminators' answers are averaged, each weighing as its p(T): p(κ given the grey
    levels), as the mean of densities is for Bayes.
    """
    names, held = list(log_weights), scores.held
    truth = held.presence[:, [held.knowledge.index(name) for name in names]].argmax(1)
    bayes = torch.stack([scores.given[name] + log_weights[name] for name in names]).argmax(0)

    def present(z: Tensor) -> Tensor:
        return torch.stack([model.find(name).log_prob_presence_given(z)[1] for name in names], 1)

    return _compared(held, partition, truth, bayes, _chosen(model, held.drawn(), present, chunk))


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

    chosen = _chosen(model, (T[rows] for T in held.drawn()), encoded, chunk)
    return _compared(held, f"C of {name}", distances.argmin(1), bayes, chosen)


def _chosen(model: TzK, drawn: Iterable[Tensor], scored: Callable[[Tensor], Tensor], chunk: int) -> Tensor:
    """Which column of the log-probabilities, (n, m), of latents is the largest, (n,), over all dequantisations."""
    like = next(model.parameters())
    total: Tensor | None = None
    for T in drawn:
        parts = []
        for part in T.split(chunk):
            z, logabsdet = model.flow.encode(part.to(like))
            log_prob = model.flow.base.log_prob(z).double() + logabsdet
            parts.append((scored(z) + log_prob.unsqueeze(1)).cpu())
        found = torch.cat(parts)
        total = found if total is None else torch.logaddexp(total, found)
    assert total is not None
    return total.argmax(1)


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
