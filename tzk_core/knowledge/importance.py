"""The integral over C in p(z given κ=1), by importance sampling or as a sum."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tzk_core.errors import TzkError
from tzk_core.knowledge.base import Knowledge
from tzk_core.tensors import unmapped


def log_prob_present(
    knowledge: Knowledge, z: Tensor, samples: int, *, generator: torch.Generator, prior_share: float = 0.125
) -> Tensor:
    """Importance-weighted lower bound of log p(z given κ=1), (batch,), in nats.

    It is tight as `samples` grows, and exact for any number of them where C has finitely many values.

    The proposal is the encoder mixed with the prior: round(prior_share · samples), at least one, come from the prior
    and the rest from the encoder. All are weighted by the density of the whole mixture (Veach & Guibas' balance
    heuristic). So a narrow encoder costs at most log(1/prior_share) nats, and its estimate stays unbiased.
    """
    noise = proposal_noise(knowledge, z, samples, generator=generator)
    return log_prob_present_from(knowledge, z, noise, prior_share=prior_share)


def proposal_noise(knowledge: Knowledge, z: Tensor, samples: int, *, generator: torch.Generator) -> Tensor:
    """Standard Gaussian noise for `log_prob_present_from`, (batch, samples, c).

    All that `torch.func.vmap` maps has the same.
    """
    with unmapped():
        noise = torch.randn(z.shape[0], samples, knowledge.characteristics, generator=generator)
    return noise.to(z)


def log_prob_present_from(knowledge: Knowledge, z: Tensor, noise: Tensor, *, prior_share: float = 0.125) -> Tensor:
    """`log_prob_present` as a function of the noise of its samples of C.

    The mean of its exponential over the noise is p(z given κ=1), for any `samples`.

    Args:
        noise: standard Gaussian, (batch, samples, c).
    """
    if knowledge.support() is not None:
        return log_joint(knowledge, z).logsumexp(1)
    samples, noise = noise.shape[1], noise.to(z)
    from_prior = samples if samples == 1 else min(samples - 1, max(1, round(prior_share * samples)))
    C = torch.cat([knowledge.imagine(noise[:, :from_prior]), knowledge.encode(z, noise[:, from_prior:])], 1)
    log_prior = knowledge.log_prob_characteristics(C)
    log_share_prior = math.log(from_prior / samples)
    log_proposal = log_prior + log_share_prior
    if from_prior < samples:
        log_share_encoder = math.log1p(-from_prior / samples)
        log_encoder = knowledge.log_prob_characteristics_given(C, z) + log_share_encoder
        log_proposal = torch.logaddexp(log_proposal, log_encoder)
    log_weights = knowledge.log_prob_latent(z, C) + log_prior - log_proposal
    return torch.logsumexp(log_weights, 1) - math.log(samples)


def log_joint(knowledge: Knowledge, z: Tensor) -> Tensor:
    """log p(z, C given κ=1) over a finite support, (batch, m), in nats.

    Raises:
        TzkError: if C has any value.
    """
    support = knowledge.support()
    if support is None:
        raise TzkError(f"{type(knowledge).__name__} has a C with any value, not one of finitely many")
    C = support.to(z).expand(z.shape[0], *support.shape)
    return knowledge.log_prob_latent(z, C) + knowledge.log_prob_characteristics(C)
