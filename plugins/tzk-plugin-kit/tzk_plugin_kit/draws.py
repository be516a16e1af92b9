"""Whether draws follow a density.

It is for samples that are not one-to-one in their noise, as those of a mixture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from tzk_core.testing.expectations import expect, expect_finite

DRAWS = 20_000
"""Of the density and of the Gaussian beside it. Their estimates then have an error of about 1 %."""

ERRORS = 5.0
"""Standard errors at which two means differ: by chance once in two million comparisons."""

LEAST_OVERLAP = 0.02
"""Of the density and the Gaussian, below which their comparison says nothing."""

MOST_DIMS = 8
"""The dimensions whose moments are compared; all of them take part in the densities."""


@dataclass(frozen=True)
class Gaussian:
    """N(mean, factor factorᵀ), fitted to draws and somewhat wider."""

    mean: Tensor
    factor: Tensor

    @classmethod
    def fit(cls, draws: Tensor) -> Gaussian:
        """Fit to draws, (n, dims)."""
        covariance = torch.atleast_2d(torch.cov(draws.T))
        ridge = 1e-9 * covariance.diagonal().mean() * torch.eye(len(covariance), dtype=draws.dtype)
        return cls(draws.mean(0), torch.linalg.cholesky(1.2 * covariance + ridge))

    def standardise(self, values: Tensor) -> Tensor:
        """Values, (n, dims), as N(0, I)."""
        return torch.linalg.solve_triangular(self.factor, (values - self.mean).T, upper=False).T

    def log_prob(self, values: Tensor) -> Tensor:
        """(n,), in nats."""
        standard = torch.distributions.Normal(0.0, 1.0).log_prob(self.standardise(values)).sum(1)
        return standard - self.factor.diagonal().log().sum()


def expect_sampler(what: str, draws: Tensor, log_prob: Callable[[Tensor], Tensor]) -> None:
    """Check that draws follow a density, and that it integrates to 1.

    For densities p and q, ∫ h p q / (p + q) is the mean of h q / (p + q) over draws of p. It is that of h p / (p + q)
    over draws of q too (Bennett 1976; Meng and Wong 1996). Here q is a Gaussian fitted to the draws. With h = 1 the two
    means differ by the integral of p, with other h where the draws are not p's. All means are of bounded values, so
    that their errors are known. What lies outside the range of the draws is left out: C may be bounded.

    Args:
        draws: (n, *shape).
        log_prob: (n, *shape) to (n,), in nats.
    """
    flat = draws.detach().flatten(1)
    q = Gaussian.fit(flat)
    generator = torch.Generator().manual_seed(0)
    others = q.mean + torch.randn(flat.shape, generator=generator, dtype=flat.dtype) @ q.factor.T
    inside = ((others >= flat.amin(0)) & (others <= flat.amax(0))).all(1)
    with torch.no_grad():
        of_draws, of_others = log_prob(draws), log_prob(others.view(draws.shape))
    expect_finite(f"{what}: the log-density of {len(flat)} draws", of_draws)
    ours = torch.sigmoid(q.log_prob(flat) - of_draws)
    theirs = torch.sigmoid(of_others - q.log_prob(others)) * inside
    overlap, its_overlap = float(ours.mean()), float(theirs.mean())
    expect(
        max(overlap, its_overlap) >= LEAST_OVERLAP,
        f"{what}: its draws should overlap with a Gaussian of their moments to be compared; the overlap is"
        f" {overlap:.2g}: check it over fewer dimensions, or closer to its start",
    )
    for feature, (mine, its) in _features(q.standardise(flat), q.standardise(others)):
        difference = float((mine * ours).mean() - (its * theirs).mean())
        error = float((((mine * ours).var() + (its * theirs).var()) / len(flat)).sqrt())
        expect(
            abs(difference) <= ERRORS * error + 1e-6,
            f"{what}: the density of {len(flat)} draws is not that of log_prob, by {feature}: {difference:+.3g} with an"
            f" error of {error:.2g}; the density integrates to {its_overlap / overlap:.3g} over what is drawn."
            " Normalise it, and draw from it: `from_noise(noise)` should follow `log_prob`",
        )


def _features(ours: Tensor, theirs: Tensor) -> Iterator[tuple[str, tuple[Tensor, Tensor]]]:
    """Names and bounded functions of standardised values, (n, dims), each (n,)."""
    yield "its integral", (torch.ones_like(ours[:, 0]), torch.ones_like(theirs[:, 0]))
    for dim in range(min(ours.shape[1], MOST_DIMS)):
        mine, its = ours[:, dim], theirs[:, dim]
        yield f"the mean of dimension {dim}", (mine.tanh(), its.tanh())
        yield f"the spread of dimension {dim}", ((mine.square() - 1).tanh(), (its.square() - 1).tanh())
        yield f"the shape of dimension {dim}", ((2 * mine).cos(), (2 * its).cos())
    if ours.shape[1] > 1:
        yield "the product of the first two dimensions", (ours[:, :2].prod(1).tanh(), theirs[:, :2].prod(1).tanh())


def expect_same_distribution(what: str, ours: Tensor, theirs: Tensor) -> None:
    """Check that two sets of draws, (n, *shape), have equal means of bounded functions."""
    mine, its = ours.flatten(1), theirs.flatten(1)
    scale = its.std(0)
    for feature, (one, other) in _features((mine - its.mean(0)) / scale, (its - its.mean(0)) / scale):
        difference = float(one.mean() - other.mean())
        error = float((one.var() / len(one) + other.var() / len(other)).sqrt())
        expect(
            abs(difference) <= ERRORS * error + 1e-6,
            f"{what} should have one distribution; they differ in {feature} by {difference:.3g} ± {error:.2g}",
        )
