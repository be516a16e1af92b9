"""The integral over characteristics: p(z given κ=1) = ∫ p(z given C) p(C) dC by importance sampling, or as a sum."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tzk_core.errors import TzkError
from tzk_core.knowledge.base import Knowledge


def log_prob_present(
    kind: Knowledge, z: Tensor, samples: int, *, generator: torch.Generator, prior_share: float = 0.125
) -> Tensor:
    """Importance-weighted lower bound of log p(z given κ=1), (batch,), in nats; tight as `samples` grows, and exact,
    whatever `samples`, where C has finitely many values.

    The proposal is the encoder mixed with the prior: round(prior_share · samples), at least one, come from the prior
    and the rest from the encoder, each weighed by the density of the whole mixture (Veach & Guibas' balance
    heuristic), so that a narrow encoder costs at most log(1/prior_share) nats and its estimate stays unbiased.
    """
    return log_prob_present_from(kind, z, draw(kind, z, samples, generator=generator), prior_share=prior_share)


def draw(kind: Knowledge, z: Tensor, samples: int, *, generator: torch.Generator) -> Tensor:
    """Standard Gaussian noise for `log_prob_present_from`, (batch, samples, c)."""
    return torch.randn(z.shape[0], samples, kind.characteristics, generator=generator).to(z)


def log_prob_present_from(kind: Knowledge, z: Tensor, noise: Tensor, *, prior_share: float = 0.125) -> Tensor:
    """The same as a function of the standard Gaussian `noise`, (batch, samples, c), that its samples of C stand for.

    The mean of its exponential over the noise is p(z given κ=1), whatever the number of samples.
    """
    if kind.support() is not None:
        return log_joint(kind, z).logsumexp(1)
    samples, noise = noise.shape[1], noise.to(z)
    from_prior = samples if samples == 1 else min(samples - 1, max(1, round(prior_share * samples)))
    C = torch.cat([kind.imagine(noise[:, :from_prior]), kind.encode(z, noise[:, from_prior:])], 1)
    log_prior = kind.log_prob_characteristics(C)
    log_share_prior = math.log(from_prior / samples)
    log_proposal = log_prior + log_share_prior
    if from_prior < samples:
        log_share_encoder = math.log1p(-from_prior / samples)
        log_encoder = kind.log_prob_characteristics_given(C, z) + log_share_encoder
        log_proposal = torch.logaddexp(log_proposal, log_encoder)
    log_weights = kind.log_prob_latent(z, C) + log_prior - log_proposal
    return torch.logsumexp(log_weights, 1) - math.log(samples)


def log_joint(kind: Knowledge, z: Tensor) -> Tensor:
    """log p(z, C given κ=1) of every C of a finite `support`, (batch, m), in nats."""
    support = kind.support()
    if support is None:
        raise TzkError(f"{type(kind).__name__} has a C with any value, not one of finitely many")
    C = support.to(z).expand(z.shape[0], *support.shape)
    return kind.log_prob_latent(z, C) + kind.log_prob_characteristics(C)
