"""Samplers: particles of a composition, from Gaussian noise and the logarithm of its weight."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from tzk_core.errors import TzkError
from tzk_core.model.smc import Population, Tempering, Weight, temper
from tzk_core.plugins import Sampler as SamplerSpec
from tzk_core.plugins import registry
from tzk_core.plugins.calling import call_part

CHUNK = 4096
"""Tries of `Rejection` at a time."""


@dataclass(frozen=True)
class Target:
    """The density to sample, N(noise; 0, I) · exp(log_weight(noise)) / normaliser.

    log_weight: noise, (n, dims), to (n,); -inf where it has none.
    dims: of the noise of a particle.
    log_bound: log_weight is nowhere more; infinity where that is not known.
    like: of the type and device of the noise.
    """

    log_weight: Weight
    dims: int
    log_bound: float
    like: Tensor


class Sampler(Protocol):
    """A sampler of a `Target`.

    It is an object of what a plugin offers, made with the arguments of `sampler`.

    It MUST return at least n particles of equal weight, and the same for the same state of the generator. It MUST
    raise `TzkError` where it cannot, saying what to do, rather than return samples of something else.
    """

    def __call__(self, target: Target, n: int, generator: torch.Generator) -> Population: ...


class SequentialMonteCarlo:
    """Tempered, resampled and moved particles (`smc.temper`); exact as their number grows.

    Args:
        particles: the least number; of n samples it is n or more.
        moves, min_ess_fraction, most_steps, min_ess: as of `Tempering`.
    """

    def __init__(
        self,
        *,
        particles: int = Tempering.particles,
        moves: int = Tempering.moves,
        min_ess_fraction: float = Tempering.min_ess_fraction,
        most_steps: int = Tempering.most_steps,
        min_ess: float = Tempering.min_ess,
    ) -> None:
        self.settings = Tempering(particles, moves, min_ess_fraction, most_steps, min_ess)

    def __call__(self, target: Target, n: int, generator: torch.Generator) -> Population:
        settings = self.settings
        if n > settings.particles:
            settings = Tempering(**{**asdict(settings), "particles": n})
        return temper(target.log_weight, target.dims, settings, generator=generator, like=target.like)


class Rejection:
    """Independent, exact samples: noise is accepted with the probability exp(log_weight - log_bound).

    The expected number of tries for a sample is exp(log_bound) over the normaliser: 1/p(κ=1) or less for every member
    beside the leader, in a consistent model. Where C is fixed, or the ratios are those of decoders, there is no bound.

    Args:
        most_tries: how many to give up after, for all samples together.
    """

    def __init__(self, *, most_tries: int = 1_000_000) -> None:
        if most_tries < 1:
            raise TzkError(f"most_tries is expected as at least 1; got {most_tries}")
        self.most_tries = most_tries

    def __call__(self, target: Target, n: int, generator: torch.Generator) -> Population:
        if not math.isfinite(target.log_bound):
            raise TzkError(
                "rejection needs a bound of the ratios, and C that is fixed, or the side of the decoder, has none. "
                "Write sampler = 'smc'"
            )
        accepted: list[Tensor] = []
        weights: list[Tensor] = []
        count = tries = 0
        while count < n:
            size = min(CHUNK, self.most_tries - tries)
            if size < 1:
                raise TzkError(
                    f"{count} of {n} samples were accepted in {tries:,} tries: raise most_tries, or write "
                    "sampler = 'smc'"
                )
            noise = torch.randn(size, target.dims, generator=generator).to(target.like)
            value = target.log_weight(noise)
            threshold = torch.rand(size, generator=generator, dtype=torch.float64).log().to(value)
            accepted.append(noise[threshold < value - target.log_bound])
            weights.append(value)
            count, tries = count + len(accepted[-1]), tries + size
        return _population(torch.cat(accepted), torch.cat(weights).double())


def _population(noise: Tensor, log_weight: Tensor) -> Population:
    """Independent particles, with the normaliser and its error from the log-weights of all tries, (tries,)."""
    tries = len(log_weight)
    share = torch.softmax(log_weight, 0)
    importance_ess = 1 / share.square().sum().item()
    return Population(
        noise=noise,
        log_normaliser=(torch.logsumexp(log_weight, 0) - math.log(tries)).item(),
        standard_error=math.sqrt(max(1 / importance_ess - 1 / tries, 0.0)),
        ess=float(len(noise)),
        ancestors=len(noise),
        importance_ess=importance_ess,
        acceptance=len(noise) / tries,
        steps=1,
    )


def sampler_of(chosen: str | Mapping[str, Any] | Sampler) -> Sampler:
    """A sampler, by name, by a table with `type` and arguments, or as it is.

    Raises:
        TzkError: if no plugin offers it, or it does not take its arguments.
    """
    if not isinstance(chosen, str | Mapping):
        return chosen
    table = {"type": chosen} if isinstance(chosen, str) else dict(chosen)
    name = table.pop("type", None)
    if not isinstance(name, str):
        raise TzkError(f"a sampler is its registered name, or a table with it as `type`; got {chosen!r}")
    sampler: Sampler = call_part(registry().find(SamplerSpec, name), table)
    return sampler
