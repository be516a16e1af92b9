"""Checks of base distributions and of samplers: that densities are normalised and samples are theirs."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from tzk_core.distributions.base import Reparametrised
from tzk_core.errors import TzkError
from tzk_core.model.samplers import Sampler, Target
from tzk_core.testing.expectations import expect, expect_equal, expect_finite, expect_shape

SAMPLES = 4096
ERRORS = 5.0
"""Standard errors that a mean of samples may be off by: one in two million right densities would fail."""


def check_base(build: Callable[[tuple[int, ...]], Reparametrised], *, reach: float = 1e4) -> None:
    """Check a base distribution: a density that integrates to 1, and samples of it.

    In one dimension it is integrated numerically; its CDF at the samples has to be uniform, and so has that of samples
    from Gaussian noise, which compositions take. In more dimensions the log-density has to be that of one sample by
    itself, for any shape.

    Args:
        build: the class of the plugin, or a function that calls it with arguments.
        reach: the density has no mass to speak of beyond this, on either side.

    Raises:
        NotConforming: with what was expected and what it got.
    """
    base = build((1,))
    name = type(base).__name__
    expect(isinstance(base, Reparametrised), f"{name}: should be a tzk_core.distributions.base.Reparametrised")
    base = base.double()
    points = _grid(reach)
    log_prob = base.log_prob(points[:, None])
    expect_shape(f"{name}: log_prob", log_prob, (len(points),))
    density = log_prob.detach().exp()
    expect_finite(f"{name}: the density", density)
    cumulative = torch.cat([density.new_zeros(1), torch.cumulative_trapezoid(density, points)])
    total = cumulative[-1].item()
    expect(abs(total - 1) < 1e-3, f"{name}: the density in one dimension should integrate to 1; got {total:.5g}")
    generator = torch.Generator().manual_seed(0)
    noise = base.noise((SAMPLES,), generator).double()
    gaussian = torch.randn(SAMPLES, 1, generator=generator, dtype=torch.float64)
    for what, source in (("noise", noise), ("from_gaussian", base.from_gaussian(gaussian))):
        samples = base.from_noise(source).detach()[:, 0]
        _check_uniform(f"{name}: the CDF of samples by {what}", _interpolated(samples, points, cumulative))
    _check_noise(name, base, noise)
    for shape in ((3,), (2, 2, 2)):
        _check_shape(name, build(shape).double(), shape)


def _grid(reach: float) -> Tensor:
    """Points from -reach to reach, (n,), dense about 0."""
    end = math.asinh(reach * 1e2)
    return torch.linspace(-end, end, 200_001, dtype=torch.float64).sinh() / 1e2


def _interpolated(values: Tensor, points: Tensor, table: Tensor) -> Tensor:
    """A function at values, (n,), from a table of it at points, (m,)."""
    right = torch.searchsorted(points, values).clamp(1, len(points) - 1)
    share = (values - points[right - 1]) / (points[right] - points[right - 1])
    return table[right - 1] + share.clamp(0, 1) * (table[right] - table[right - 1])


def _check_uniform(what: str, values: Tensor) -> None:
    """Check values against the uniform distribution, by the largest distance of their CDF (Kolmogorov & Smirnov)."""
    ordered = values.sort().values
    steps = torch.arange(1, len(ordered) + 1, dtype=torch.float64) / len(ordered)
    distance = torch.maximum(steps - ordered, ordered - steps + 1 / len(ordered)).max().item()
    most = 2.7 / math.sqrt(len(ordered))  # exceeded with a probability of 2 exp(-2 · 2.7²), a millionth
    expect(distance < most, f"{what} should be uniform; it is off by {distance:.3g}, and {most:.3g} is allowed")


def _check_noise(name: str, base: Reparametrised, noise: Tensor) -> None:
    """Check that samples are a function of noise, and noise of the generator."""
    again = base.noise((SAMPLES,), torch.Generator().manual_seed(0)).double()
    expect_equal(f"{name}: noise of the same generator", again, noise, tolerance=0.0)
    expect_equal(f"{name}: from_noise again", base.from_noise(noise), base.from_noise(noise), tolerance=0.0)


def _check_shape(name: str, base: Reparametrised, shape: tuple[int, ...]) -> None:
    """Check shapes, finite values, and the independence of samples, over events of `shape`."""
    expect(base.shape == shape, f"{name}: shape should be {shape}, as it was asked for; got {base.shape}")
    noise = base.noise((5,), torch.Generator().manual_seed(1)).double()
    z = base.from_noise(noise)
    expect_shape(f"{name}: samples", z, (5, *shape))
    log_prob = base.log_prob(z)
    expect_shape(f"{name}: log_prob", log_prob, (5,))
    expect_finite(f"{name}: log_prob", log_prob)
    expect_equal(f"{name}: log_prob of the first sample by itself", base.log_prob(z[:1]), log_prob[:1], tolerance=1e-9)


def check_sampler(sampler: Sampler, *, n: int = 2048) -> None:
    """Check that a sampler of compositions samples its target, and repeats itself.

    The moments and the normaliser of the target are known.

    The target is Gaussian, with the weight exp(-|x - 1|² / 2), in three dimensions: N(½, ½), with the normaliser
    (½)^(3/2) exp(-¾). A target without any weight has to be refused with a `TzkError`.

    Args:
        n: samples to ask for.

    Raises:
        NotConforming: with what was expected and what it got.
    """
    name, dims = type(sampler).__name__, 3
    target = Target(lambda x: -0.5 * (x - 1).square().sum(1), dims, 0.0, torch.zeros((), dtype=torch.float64))
    population = sampler(target, n, torch.Generator().manual_seed(0))
    count = len(population.noise)
    expect(count >= n, f"{name}: at least {n} particles were asked for; got {count}")
    expect_shape(f"{name}: the noise of the particles", population.noise, (count, dims))
    expect_finite(f"{name}: the noise of the particles", population.noise)
    expect(0 < population.ess <= count, f"{name}: ess should be above 0 and at most {count}; got {population.ess}")
    again = sampler(target, n, torch.Generator().manual_seed(0))
    expect_equal(f"{name}: particles of the same generator", again.noise, population.noise, tolerance=0.0)
    error = ERRORS * math.sqrt(0.5 / population.ess)
    expect_equal(f"{name}: the mean", population.noise.mean(0), torch.full((dims,), 0.5).double(), tolerance=error)
    covariance = torch.cov(population.noise.T)
    error = ERRORS * 0.5 * math.sqrt(2 / population.ess)
    expect_equal(f"{name}: the covariance", covariance, 0.5 * torch.eye(dims).double(), tolerance=error)
    normaliser = -1.5 * math.log(2) - 0.75
    off = abs(population.log_normaliser - normaliser)
    expect(
        off < ERRORS * population.standard_error < 1,
        f"{name}: log_normaliser should be {normaliser:.4g} within {ERRORS:g} times standard_error = "
        f"{population.standard_error:.3g}, which should be below {1 / ERRORS:g}; it is off by {off:.3g}",
    )
    nothing = Target(lambda x: torch.full((len(x),), -math.inf).to(x), dims, 0.0, target.like)
    try:
        sampler(nothing, n, torch.Generator().manual_seed(0))
    except TzkError:
        return
    expect(condition=False, message=f"{name}: a target without any weight should raise TzkError; it returned")
