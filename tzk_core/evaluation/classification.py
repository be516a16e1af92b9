"""Which member of a partition a sample belongs to: by Bayes from p(T given K), and by the discriminators."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from tzk_core.evaluation.likelihood import Scores
from tzk_core.model import TzK


@torch.no_grad()
def classification(
    model: TzK, scores: Scores, partition: str, log_weights: Mapping[str, float], chunk: int = 512
) -> dict[str, Any]:
    """Accuracy on one split of both answers to the one question, and how often they differ."""
    names, held = list(log_weights), scores.held
    truth = held.presence[:, [held.knowledge.index(name) for name in names]].argmax(1)
    bayes = torch.stack([scores.given[name] + log_weights[name] for name in names]).argmax(0)
    like = next(model.parameters())
    discriminated = []
    for T in held.T.split(chunk):
        z = model.flow.encode(T.to(like))[0]
        odds = [kind[1] - kind[0] for kind in (model.find(name).log_prob_presence_given(z) for name in names)]
        discriminated.append(torch.stack(odds).argmax(0).cpu())
    discriminator = torch.cat(discriminated)
    return {
        "partition": partition,
        "dataset": held.dataset,
        "split": held.split,
        "count": len(truth),
        "bayes_accuracy": (bayes == truth).double().mean().item(),
        "discriminator_accuracy": (discriminator == truth).double().mean().item(),
        "disagreement": (bayes != discriminator).double().mean().item(),
    }
