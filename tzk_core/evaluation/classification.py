"""Which member of a partition a sample belongs to, or which of finitely many C it has: by Bayes from p(T given K),
and by the discriminators or the encoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from tzk_core.evaluation.likelihood import EvaluationSplit, Scores, decided
from tzk_core.model import TzK


def classification(scores: Scores, partition: str, log_weights: Mapping[str, float]) -> dict[str, Any]:
    """Accuracy on one split of both answers to the one question, and how often they differ, where the labels decide;
    the members are scored everywhere."""
    names, held = list(log_weights), scores.held
    known = decided(held, names)
    truth = held.presence_of(names)[known].argmax(1)
    bayes = torch.stack([scores.given[name] + log_weights[name] for name in names]).argmax(0)[known]
    discriminator = torch.stack([scores.presence[name] for name in names]).argmax(0)[known]
    return _compared(held, partition, truth=truth, bayes=bayes, discriminator=discriminator)


@torch.no_grad()
def classification_of_characteristics(model: TzK, scores: Scores, name: str, chunk: int = 512) -> dict[str, Any]:
    """The same of a knowledge type whose C has finitely many values, on samples in which it was observed: by Bayes, and
    by its encoder p(C given z, κ=1). Of several dequantisations each weighs as its p(T)."""
    held, kind = scores.held, model.find(name)
    support = kind.support()
    assert support is not None
    rows = scores.rows[name]
    known = ~held.characteristics[name][rows].isnan().any(1)
    rows, bayes = rows[known], scores.decided[name][known]
    distances = (held.characteristics[name][rows].unsqueeze(1) - support.cpu()).abs().sum(2)

    like = model.like
    total: Tensor | None = None
    for T in held.dequantisations():
        parts = []
        for part in T[rows].split(chunk):
            z, logabsdet = model.flow.encode(part.to(like))
            log_prob = model.flow.base.log_prob(z).double() + logabsdet
            encoded = kind.log_prob_characteristics_given(support.to(z).expand(len(z), *support.shape), z)
            parts.append((encoded + log_prob.unsqueeze(1)).cpu())
        found = torch.cat(parts)
        total = found if total is None else torch.logaddexp(total, found)
    assert total is not None
    return _compared(
        held, f"C of {name}", truth=distances.argmin(1), bayes=bayes, discriminator=total.argmax(1)
    )


def _compared(
    held: EvaluationSplit, partition: str, *, truth: Tensor, bayes: Tensor, discriminator: Tensor
) -> dict[str, Any]:
    return {
        "partition": partition,
        "dataset": held.dataset,
        "split": held.split,
        "count": len(truth),
        "bayes_accuracy": (bayes == truth).double().mean().item(),
        "discriminator_accuracy": (discriminator == truth).double().mean().item(),
        "disagreement": (bayes != discriminator).double().mean().item(),
    }
