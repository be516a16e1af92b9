"""Statistics for out-of-distribution detection, large for observations in distribution."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tzk_core.errors import TzkError, nearest
from tzk_core.model import TzK
from tzk_plugin_outside.evidence import Evidence

STATISTICS = {
    "likelihood": "log p(T)",
    "typicality": "minus the distance of log p(T) from its mean on validation data, in standard deviations",
    "complexity": "log p(T) plus the length of T compressed without loss (Serrà et al. 2020)",
    "ratio": "the largest log p(z given K) - log p(z)",
    "best": "the largest log p(T given K)",
    "mixture": "log of the mean of p(T given K) over knowledge types, weighed by p(κ=1)",
    "presence": "the largest log p(κ=1 given T)",
    "joint": "typicality of log p(T), ratio and length together, by Mahalanobis distance",
    "dose": "how usual statistics of the model, of patches and features are, by densities of training images",
}
"""The meanings of the statistics, by name."""

NEED_KNOWLEDGE = ("ratio", "best", "mixture", "presence", "joint")
NEED_DATA = ("typicality", "joint", "dose")
ON_REQUEST = ("dose",)
"""Those that are fitted to training images, and are part of the evidence only where they are asked for."""


@dataclass(frozen=True)
class Reference:
    """Weights of the model and moments of in-distribution data, which statistics compare with.

    log_weights: of the mixture, by knowledge type; their exponentials sum to 1.
    moments: by data set, mean and covariance of `_features` on its validation split, (features,) and (features,
        features). Without any there is neither `typicality` nor `joint`.
    """

    log_weights: Mapping[str, float]
    moments: Mapping[str, tuple[Tensor, Tensor]]

    @classmethod
    def of(cls, model: TzK, knowledge: Sequence[str], validation: Mapping[str, Evidence]) -> Reference:
        """The reference of a model and validation data, by data set.

        The mixture is over the most specific of `knowledge`, in proportion to p(κ=1).
        """
        specific = model.knowledge.most_specific(knowledge)
        weights = [model.find(name).log_prob_presence().present.item() for name in specific]
        total = torch.tensor(weights, dtype=torch.float64).logsumexp(0).item() if weights else 0.0
        moments = {}
        for name, own in validation.items():
            features = _features(own)
            moments[name] = (features.mean(0), features.T.cov(correction=0).reshape(2 * features.shape[1:]))
        return cls({name: weight - total for name, weight in zip(specific, weights, strict=True)}, moments)


def statistics(evidence: Evidence, reference: Reference) -> dict[str, Tensor]:
    """Statistics by name, as in `STATISTICS`, (n,) each; those that this evidence allows."""
    values = {"likelihood": evidence.log_prob.double()}
    log_prob, log_ratio = values["likelihood"], evidence.log_ratio.double()
    if evidence.code_length is not None:
        values["complexity"] = log_prob + evidence.code_length.double()
    if evidence.knowledge:
        weighted = [log_ratio[:, evidence.knowledge.index(name)] + w for name, w in reference.log_weights.items()]
        values["ratio"] = log_ratio.max(1).values
        values["best"] = log_prob + values["ratio"]
        values["mixture"] = log_prob + torch.stack(weighted).logsumexp(0)
        values["presence"] = evidence.log_presence.double().max(1).values
    if reference.moments:
        features = _features(evidence)
        values["typicality"] = _typicality(features[:, :1], [(m[:1], c[:1, :1]) for m, c in reference.moments.values()])
        if evidence.knowledge:
            values["joint"] = _typicality(features, list(reference.moments.values()))
    if evidence.dose is not None:
        values["dose"] = evidence.dose
    return {name: values[name] for name in STATISTICS if name in values}


def _features(evidence: Evidence) -> Tensor:
    """(n, features): log p(T), the best log ratio and the code length, if any."""
    columns = [evidence.log_prob]
    columns += [evidence.log_ratio.max(1).values] if evidence.knowledge else []
    columns += [evidence.code_length] if evidence.code_length is not None else []
    return torch.stack([column.double() for column in columns], 1)


def _typicality(features: Tensor, moments: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Minus the Mahalanobis distance, (n,), from the nearest of several means."""
    distances = []
    for mean, covariance in moments:
        inverse = torch.linalg.pinv(covariance, hermitian=True)
        away = features - mean
        distances.append(((away @ inverse) * away).sum(1).clamp_min(0).sqrt())
    return -torch.stack(distances).min(0).values


def check_statistic(name: str) -> None:
    """Check that there is a statistic of this name.

    Raises:
        TzkError: with the nearest names, if there is none.
    """
    if name not in STATISTICS:
        known = nearest(name, STATISTICS) or f" (there is {', '.join(STATISTICS)})"
        raise TzkError(f"no statistic is called {name!r}{known}")
