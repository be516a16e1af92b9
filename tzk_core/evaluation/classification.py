"""Classification by Bayes from p(T given K), and by the discriminators or the encoder.

A class is a member of a partition, or one of finitely many C.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from tzk_core.evaluation.likelihood import EvaluationSplit, Scores, decided
from tzk_core.evaluation.metrics import Column, Evaluated
from tzk_core.model import TzK


class Classification:
    """The core's own metric: accuracies of partitions and of observed C.

    A partition has several members in a data set. Such a C has finitely many values.

    It is the core's own metric: results.json always has its rows, under "classification".
    """

    columns = (
        Column("count", "samples"),
        Column("bayes_accuracy", "share", "higher"),
        Column("discriminator_accuracy", "share", "higher"),
        Column("disagreement", "share", "lower"),
    )

    def rows(self, evaluated: Evaluated) -> list[dict[str, Any]]:
        """One row for each partition and each such C."""
        scores, held_out = evaluated.scores, evaluated.held_out
        several = {
            title: members
            for title, members in evaluated.partitions.items()
            if sum(len(held_out.rows(name)) > 0 for name in members) > 1
        }
        observed = {name for name, C in held_out.characteristics.items() if not C.isnan().all()}
        finite = [name for name in scores.decided if name in observed]
        return [
            *(classification(scores, title, members) for title, members in several.items()),
            *(classification_of_characteristics(evaluated.model, scores, name) for name in finite),
        ]


def classification(scores: Scores, partition: str, log_weights: Mapping[str, float]) -> dict[str, Any]:
    """Accuracies on one split, by Bayes and by discriminators, and their disagreement.

    They are of the samples whose labels decide; the members were scored on all.
    """
    names, held_out = list(log_weights), scores.held_out
    known = decided(held_out, names)
    truth = held_out.presence_of(names)[known].argmax(1)
    bayes = torch.stack([scores.conditional[name] + log_weights[name] for name in names]).argmax(0)[known]
    discriminator = torch.stack([scores.presence[name] for name in names]).argmax(0)[known]
    return _compared(held_out, partition, truth=truth, bayes=bayes, discriminator=discriminator)


@torch.no_grad()
def classification_of_characteristics(model: TzK, scores: Scores, name: str, *, chunk: int = 512) -> dict[str, Any]:
    """Accuracies for a C with finitely many values, on samples in which it was observed.

    They are by Bayes, and by the encoder p(C given z, κ=1). Several dequantisations are weighted by their p(T).
    """
    held_out, knowledge = scores.held_out, model.find(name)
    support = knowledge.support()
    assert support is not None
    rows = scores.rows[name]
    known = ~held_out.characteristics[name][rows].isnan().any(1)
    rows, bayes = rows[known], scores.decided[name][known]
    distances = (held_out.characteristics[name][rows].unsqueeze(1) - support.cpu()).abs().sum(2)

    like = model.like
    total: Tensor | None = None
    for T in held_out.dequantisations():
        parts = []
        for part in T[rows].split(chunk):
            z, logabsdet = model.flow.encode(part.to(like))
            log_prob = model.flow.base.log_prob(z).double() + logabsdet
            encoded = knowledge.log_prob_characteristics_given(support.to(z).expand(len(z), *support.shape), z)
            parts.append((encoded + log_prob.unsqueeze(1)).cpu())
        log_joint = torch.cat(parts)
        total = log_joint if total is None else torch.logaddexp(total, log_joint)
    assert total is not None
    return _compared(held_out, f"C of {name}", truth=distances.argmin(1), bayes=bayes, discriminator=total.argmax(1))


def _compared(
    held_out: EvaluationSplit, partition: str, *, truth: Tensor, bayes: Tensor, discriminator: Tensor
) -> dict[str, Any]:
    return {
        "partition": partition,
        "dataset": held_out.dataset,
        "split": held_out.split,
        "count": len(truth),
        "bayes_accuracy": (bayes == truth).double().mean().item(),
        "discriminator_accuracy": (discriminator == truth).double().mean().item(),
        "disagreement": (bayes != discriminator).double().mean().item(),
    }
