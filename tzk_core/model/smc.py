"""Sequential Monte Carlo: Gaussian noise weighted by a function of it, in small steps."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from tzk_core.errors import TzkError

Weight = Callable[[Tensor], Tensor]
"""Noise, (n, dims), to the logarithm of its weight, (n,); -inf where it has none."""

AIM = 0.3  # the acceptance that the step size of a move is adapted to


@dataclass(frozen=True)
class Tempering:
    """Numbers of particles, moves and steps, and the effective sample sizes to preserve.

    particles: how many.
    moves: Metropolis moves of every particle after every step.
    min_ess_fraction: the effective sample size that a step has to leave, as a fraction of the particles; steps are as
        long as it allows.
    most_steps: where to give up.
    min_ess: a population of fewer effective ancestors is refused.
    """

    particles: int = 1024
    moves: int = 8
    min_ess_fraction: float = 0.5
    most_steps: int = 100
    min_ess: float = 20.0

    def __post_init__(self) -> None:
        if self.particles < 2 or self.moves < 1 or self.most_steps < 1 or not 0 < self.min_ess_fraction < 1:
            raise TzkError(
                "tempering takes at least 2 particles, 1 move and 1 step, and a min_ess_fraction between 0 and 1; "
                f"got {self}"
            )


@dataclass(frozen=True)
class Population:
    """Equally weighted particles, and statistics of their tempering.

    noise: (particles, dims).
    log_normaliser: log of the mean weight of the Gaussian noise, in nats; its exponential is unbiased.
    standard_error: of `log_normaliser`.
    ess: the effective number of ancestors, 1 / Σ s² with s the shares of the weight by first particle. Where one step
        was enough it is the effective sample size of importance sampling.
    ancestors: how many are left.
    importance_ess: the effective sample size that importance sampling in one step would have had.
    acceptance: of the moves of the last step.
    steps: how many.
    """

    noise: Tensor
    log_normaliser: float
    standard_error: float
    ess: float
    ancestors: int
    importance_ess: float
    acceptance: float
    steps: int


@torch.no_grad()
def temper(
    log_weight: Weight, dims: int, settings: Tempering, *, generator: torch.Generator, like: Tensor
) -> Population:
    """Sample particles of density N(noise; 0, I) · weight(noise) / normaliser.

    They are exact as their number grows. The weight is taken to powers that rise from 0 to 1, as fast as the effective
    sample size allows. After every step the particles are resampled, systematically, and moved (Del Moral, Doucet &
    Jasra 2006).

    The standard error is that of one run, from the shares of the weight by first particle. Two particles sampled by
    weight descend from different ones with a probability that is 1 less the relative variance of the normaliser. That
    holds once `correction` makes up for resampling (Lee & Whiteley 2018, who correct for multinomial resampling).

    Args:
        like: of the type and device to use.

    Raises:
        TzkError: if the weight is zero everywhere, the steps do not get to its whole, or fewer ancestors than `min_ess`
            are effective. Ancestors only become fewer, so that it is raised early.
    """
    count = settings.particles
    noise = torch.randn(count, dims, generator=generator).to(like)
    value = log_weight(noise)
    family = torch.arange(count, device=noise.device)
    importance_ess = _ess(value)
    exponent, log_normaliser, step_size, steps = 0.0, 0.0, 1.0, 0
    corrected = count / (count - 1)  # the first particles are independent: two sampled are the same in 1/count of cases
    while exponent < 1:
        if steps == settings.most_steps or importance_ess == 0:
            raise _no_end(steps, exponent, count, has_weight=importance_ess > 0)
        rise = _rise(value, 1 - exponent, settings.min_ess_fraction)
        exponent, steps = (1.0 if rise == 1 - exponent else exponent + rise), steps + 1
        log_normaliser += (torch.logsumexp(rise * value, 0) - math.log(count)).item()
        share = torch.softmax((rise * value).double(), 0)
        shares = torch.zeros_like(share).index_add_(0, family, share)
        squares = shares.square().sum().item()
        left = len(family.unique()) if exponent < 1 else 1 / squares
        if left < settings.min_ess:
            raise _few_ancestors(left, settings, steps=steps, exponent=exponent)
        corrected *= correction(shares, count) if exponent < 1 else 1.0
        chosen = systematic(share, count, generator)
        noise, value, family = noise[chosen], value[chosen], family[chosen]
        for _ in range(settings.moves):
            noise, value, accepted = move(
                log_weight, noise, value, exponent=exponent, step_size=step_size, generator=generator
            )
            acceptance = accepted.double().mean().item()
            step_size = min(1.0, step_size * math.exp(acceptance - AIM))
    variance = 1 - corrected * (1 - squares)
    return Population(
        noise=noise,
        log_normaliser=log_normaliser,
        standard_error=math.sqrt(max(variance, 0.0)),
        ess=1 / squares,
        ancestors=len(family.unique()),
        importance_ess=importance_ess,
        acceptance=acceptance,
        steps=steps,
    )


def move(
    log_weight: Weight,
    noise: Tensor,
    value: Tensor,
    *,
    exponent: float,
    step_size: float,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor, Tensor]:
    """Move every particle once by preconditioned Crank-Nicolson (Cotter et al. 2013).

    √(1 - s²) noise + s · new noise, s being the step size, leaves the Gaussian as it is. So accepting by the weights
    alone leaves N(noise; 0, I) · weight(noise)^exponent as it is, in any number of dimensions. At s = 1 the proposal
    is independent of the particle.

    Returns:
        Noise, its log-weight `value`, and which were accepted, (n,).
    """
    fresh = torch.randn(noise.shape, generator=generator).to(noise)
    proposal = math.sqrt(1 - step_size**2) * noise + step_size * fresh
    proposed = log_weight(proposal)
    threshold = torch.rand(len(noise), generator=generator, dtype=torch.float64).log().to(value)
    accepted = threshold < exponent * (proposed - value)
    rows = accepted[:, None]
    return torch.where(rows, proposal, noise), torch.where(accepted, proposed, value), accepted


def correction(shares: Tensor, count: int) -> float:
    """Factor by which systematic resampling lessens the probability of two different families.

    The probability is that of two particles sampled at random.

    Args:
        shares: (families,), of the weight, summing to 1. Families lie side by side, as `systematic` leaves them.
        count: of particles.

    Returns:
        (1 - Σ s²) / E[1 - Σ (n/count)²], n being how many particles of a family are left. That is count · s, rounded
        down or, with a probability of its fraction f, up, and has the variance f (1 - f). Where it is binomial, as in
        multinomial resampling, the same ratio is count / (count - 1).
    """
    fraction = (count * shares) % 1
    apart = 1 - shares.square().sum().item()
    left = apart - (fraction * (1 - fraction)).sum().item() / count**2
    return apart / left if left > 0 else 1.0  # one family is left, and there are no others to lose


def systematic(share: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Sample `count` indices in proportion to shares, (n,), by one common random number."""
    start = torch.rand((), generator=generator, dtype=torch.float64)
    places = (torch.arange(count, dtype=torch.float64) + start) / count
    return torch.searchsorted(share.double().cumsum(0), places.to(share.device)).clamp_max(len(share) - 1)


def _no_end(steps: int, exponent: float, count: int, *, has_weight: bool) -> TzkError:
    """The error of tempering that does not get to the whole weight."""
    return TzkError(
        f"{steps} steps of tempering went {exponent:.1%} of the way with {count} particles"
        + ("" if has_weight else ", and none of them has any weight")
    )


def _few_ancestors(ancestors: float, settings: Tempering, *, steps: int, exponent: float) -> TzkError:
    """The error of a population that descends from too few particles."""
    return TzkError(
        f"{ancestors:.3g} of {settings.particles} particles are effective ancestors after {steps} steps of tempering, "
        f"{exponent:.1%} of the way; at least {settings.min_ess:g} are expected"
    )


def _ess(log_weight: Tensor) -> float:
    """The effective sample size (Σ w)² / Σ w²; 0 where no weight is left."""
    if not (log_weight > -math.inf).any():
        return 0.0
    return 1 / torch.softmax(log_weight.double(), 0).square().sum().item()


def _rise(value: Tensor, left: float, min_ess_fraction: float) -> float:
    """The largest rise of the exponent that the effective sample size allows.

    Args:
        value: log-weights, (n,).
        left: the rise to an exponent of 1.
        min_ess_fraction: the effective sample size to leave, as a fraction of the particles that have any weight.
    """
    enough = min_ess_fraction * (value > -math.inf).sum().item()
    if _ess(left * value) >= enough:
        return left
    low, high = 0.0, left
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if _ess(middle * value) >= enough else (low, middle)
    return high if low == 0 else low
