"""Encoder and decoder of knowledge types, relative to log p(T) (paper, Eq. 1 and 2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from tzk_core.knowledge import Knowledge, discriminate
from tzk_core.knowledge.stacking import Stack
from tzk_core.objective.wording import Wording


class Sides(NamedTuple):
    """Both sides of Eq. 3 for present knowledge, in nats; (n,) each, or (k, m).

    encoder: log p_enc(K given T). decoder: log p_dec(T, K) - log p(T). Both are less log q of what was filled in.
    log_ratio: log p(z given C) - log p(z).
    """

    encoder: Tensor
    decoder: Tensor
    log_ratio: Tensor


class PresenceSides(NamedTuple):
    """p(κ given z) of k knowledge types on both sides of Eq. 3, in nats.

    absent: (k, m), log p(κ=0 given z), the encoder's.
    present: (k, m), log p(κ=1 given z).
    complement: (k, m), log p(κ=0 given z), the decoder's, which is the Bayes complement
        p(T given κ=0) p(κ=0) / p(T).
    """

    absent: Tensor
    present: Tensor
    complement: Tensor


class CharacteristicsTerms(NamedTuple):
    """The terms of C with κ = 1, in nats; (n,) each.

    filled_in: where C was not observed. log_q: the log-density that it was sampled from. log_encoded: log p(C given z).
    log_ratio: log p(z given C) - log p(z). log_prior: log p(C).
    """

    filled_in: Tensor
    log_q: Tensor
    log_encoded: Tensor
    log_ratio: Tensor
    log_prior: Tensor


def presence_sides(
    stack: Stack, z: Tensor, sampled: Tensor | None, *, divides_by_prior: bool, shared: Sequence[int] = ()
) -> PresenceSides:
    """p(κ given z) on both sides.

    Both sides of an absent κ are equal, so absence is consistent by construction. On the decoder's side the
    discriminator is not the decoder's to train, or it would learn absence twice. The decoder's pull on z balances that
    of log p(z given C) - log p(z) if `divides_by_prior`. Otherwise that division has no gradient, and neither may
    this, or f_T makes absent samples look more absent without end.

    Args:
        z: (k, m, *latent_shape), or (m, *latent_shape) if position 0 is `shared`.
        sampled: where T was missing, of the shape of the result or (m,); None if it never was. No gradient reaches the
            discriminators there, while one reaches the sample.
    """
    absent, present = stack(discriminate, z, shared=shared)
    if sampled is not None:
        frozen = stack.frozen()(discriminate, z, shared=shared)
        absent, present = torch.where(sampled, frozen.absent, absent), torch.where(sampled, frozen.present, present)
    if divides_by_prior:
        complement = stack.frozen()(discriminate, z, shared=shared).absent
    else:
        complement = absent.detach() if sampled is None else torch.where(sampled, absent, absent.detach())
    return PresenceSides(absent, present, complement)


def characteristics_terms(
    knowledge: Knowledge,
    z: Tensor,
    log_prob_z: Tensor,
    *,
    noise: Tensor,
    observed: Tensor | None,
    from_prior: bool = False,
) -> CharacteristicsTerms:
    """The terms of C, observed or filled in by its encoder or prior.

    Args:
        z: (n, *latent_shape).
        log_prob_z: (n,), log p(z) as the decoder divides by it.
        noise: (n, c), standard Gaussian, which fills in C.
        observed: (n, c), rows with nan where C is missing; None if all of it is.
        from_prior: whether a missing C is sampled from p(C), and not from p(C given z).
    """
    encoder = knowledge.encoder_at(z)
    C = knowledge.imagine(noise) if from_prior else encoder.encode(noise)
    filled_in = torch.ones_like(log_prob_z, dtype=torch.bool)
    if observed is not None:
        filled_in = observed.isnan().any(1)
        C = torch.where(filled_in[:, None], C, observed)
    log_encoded = encoder.log_prob(C)
    log_ratio = knowledge.log_prob_latent(z, C) - log_prob_z
    log_prior = knowledge.log_prob_characteristics(C)
    return CharacteristicsTerms(filled_in, log_prior if from_prior else log_encoded, log_encoded, log_ratio, log_prior)


def present_sides(  # noqa: PLR0917 -- torch.func.vmap maps positional arguments alone
    knowledge: Knowledge,
    z: Tensor,
    log_prob_z: Tensor,
    log_present: Tensor,
    noise: Tensor,
    observed: Tensor | None,
    *,
    wording: Wording,
    kl_weight: Tensor,
) -> Sides:
    """Both sides of a knowledge type with κ = 1.

    Arguments are positional, for a `Stack` to map over knowledge types.

    Args:
        log_present: (n,), log p(κ=1 given z).
        wording: of `fill_in`: whether log q of a C that was filled in stays in, as in the paper, and what q is.
        kl_weight: a scalar, the weight of log p(C) - log q of a C that was filled in.

    The other arguments are those of `characteristics_terms`.
    """
    from_prior = wording.cuts_characteristics_off
    C = characteristics_terms(knowledge, z, log_prob_z, noise=noise, observed=observed, from_prior=from_prior)
    # the encoder's own log p(C given z) cancels against log q of a C that it filled in
    log_q = torch.zeros_like(C.log_q) if wording.is_literal else torch.where(C.filled_in, C.log_q, 0.0)
    encoder = log_present + C.log_encoded - log_q
    weight = torch.where(C.filled_in, kl_weight, 1.0)
    decoder = knowledge.log_prob_presence().present + weight * C.log_prior + C.log_ratio - weight * log_q
    return Sides(encoder, decoder, C.log_ratio)


def summed_over_presence(
    sides: Sides, presence: PresenceSides, known: Tensor, *, is_literal: bool
) -> tuple[Sides, Tensor]:
    """Both sides where κ may be missing, and the decoder's share of κ = 1.

    Both branches are summed exactly: the encoder's sum to 1, the decoder's are log-sum-exp'd. The paper's wording takes
    the expectation under p(κ given z) instead.

    Args:
        known: (k, m), where κ was observed to be 1.
    """
    encoder, decoder, log_ratio = sides
    if is_literal:
        share = presence.present.exp()
        absent = presence.absent.exp()
        summed_encoder = share * encoder + absent * presence.absent
        summed_decoder = share * decoder + absent * presence.complement
    else:
        share = torch.sigmoid(decoder - presence.complement)
        summed_encoder = torch.zeros_like(encoder)
        summed_decoder = torch.logaddexp(decoder, presence.complement)
    encoder = torch.where(known, encoder, summed_encoder)
    decoder = torch.where(known, decoder, summed_decoder)
    return Sides(encoder, decoder, log_ratio), share.masked_fill(known, 1)
