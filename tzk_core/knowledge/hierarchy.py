"""A Gaussian hierarchy of classes: what a few samples of a new class say of it, given what other samples are like."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tzk_core.errors import TzkError
from tzk_core.transforms.shrinkage import shrunk_covariance

SHARES = torch.linspace(0.01, 0.99, 50, dtype=torch.float64)
"""The shares of variance between classes that are tried where the reference has no classes."""


@dataclass(frozen=True)
class Hierarchy:
    """The mean of a class is m ~ N(centre, B), a sample of it z ~ N(m, W), in coordinates y = matrix (z - centre).

    There both are diagonal. `within` is W, (d,); `between` is B over W, (d,), or None where the reference does not say
    how the variance splits: then `within` is that of both together. `inverse` is the inverse of `matrix`, (d, d).
    """

    centre: Tensor
    matrix: Tensor
    inverse: Tensor
    within: Tensor
    between: Tensor | None

    def whiten(self, z: Tensor) -> Tensor:
        """y, (n, d), of latents (n, *latent_shape)."""
        return (z.flatten(1).to(self.matrix) - self.centre) @ self.matrix.T


def estimate(
    reference: Tensor, groups: Tensor | None = None, *, directions: int = 20, trust: float = 100.0
) -> Hierarchy:
    """The hierarchy in closed form from latents `reference`, (m, *latent_shape), m = 0 included.

    With `groups`, (m,) integers, the class of each: covariances within and between them, diagonal together in the
    coordinates of linear discriminants (PLDA, Ioffe 2006). The classes' means are looked for in the `directions` along
    which they differ most; along all others they may differ by 1/`trust` of the variance within. Without groups, or
    with one sample or one class only, the covariance of the reference serves for both. The shared prior, N(0, I),
    counts as one sample in every covariance, and is all there is where m = 0. Raises `TzkError` if the groups are not
    as many as the reference.
    """
    x = reference.flatten(1).double()
    m = len(x)
    centre = x.sum(0) / (m + 1)  # the shared prior's sample is 0
    if groups is not None and tuple(groups.shape) != (m,):
        raise TzkError(f"groups are expected as one class for each of the {m} reference latents; got {groups.shape}")
    classes, index = torch.unique(x.new_zeros(m) if groups is None else groups, return_inverse=True)
    count = len(classes)
    if count < 2 or count == m:
        roots, axes = torch.linalg.eigh(shrunk_covariance(x - centre))
        roots, axes = roots.flip(0).sqrt(), axes.flip(1)
        return Hierarchy(centre, axes.T / roots[:, None], axes * roots, torch.ones_like(roots), None)

    sizes = torch.bincount(index).to(x)
    means = torch.zeros(count, x.shape[1], dtype=x.dtype).index_add_(0, index, x) / sizes[:, None]
    root = torch.linalg.cholesky(shrunk_covariance(x - means[index], m - count))
    scaled = torch.linalg.solve_triangular(root, (means - centre).T, upper=False)
    noise = (1 / sizes).mean()  # a mean of few samples differs from the class's by that much of the variance within
    between, axes = torch.linalg.eigh(scaled @ scaled.T / (count - 1))
    between, axes = (between.flip(0) - noise).clamp_min(0), axes.flip(1)
    found = min(directions, count - 1)
    # Where means are not looked for, their variance is variance within. Turned to its principal axes in z, so that
    # the first of these directions are what samples of one class differ in most.
    deviations = torch.cat([torch.ones_like(between[:found]), (1 + between[found:]).sqrt()])
    inverse = root @ axes * deviations
    rest = inverse[:, found:]
    turn = torch.linalg.eigh(rest.T @ rest).eigenvectors.flip(1)
    inverse = torch.cat([inverse[:, :found], rest @ turn], 1)
    matrix = torch.linalg.solve_triangular(root.T, axes, upper=True).T / deviations[:, None]
    matrix = torch.cat([matrix[:found], turn.T @ matrix[found:]])
    ratio = torch.cat([between[:found], torch.zeros_like(between[found:])]).clamp_min(1 / trust)
    return Hierarchy(centre, matrix, inverse, torch.ones_like(ratio), ratio)


def predict(hierarchy: Hierarchy, y: Tensor, *, trust: float = 100.0, share: float = 0.1) -> tuple[Tensor, Tensor]:
    """Mean and variance, (d,) each, of a further y of the class that y, (n, d), are of: whitened, as it is.

    Means and variances have the conjugate prior, normal and inverse gamma, the variances being known as from `trust`
    samples; the moments of the predictive density are exact (Murphy 2007, section 3). Where the hierarchy does not say
    which share of the variance is between classes, it is that of the largest leave-one-out predictive likelihood,
    `share` for a single sample.
    """
    n = len(y)
    within, between = hierarchy.within, hierarchy.between
    if between is None:
        best = share if n < 2 else float(SHARES[leave_one_out(y, SHARES.to(y)).argmax()])
        within, between = (1 - best) * within, torch.full_like(within, best / (1 - best))
    gain = n * between / (n * between + 1)
    mean = y.mean(0)
    squares = (y - mean).square().sum(0) + n / (n * between + 1) * mean.square()
    variance = (trust * within + squares) / (trust + n)
    return gain * mean, variance * (1 + between / (n * between + 1))


def leave_one_out(y: Tensor, shares: Tensor) -> Tensor:
    """For each share of variance between classes, (s,), the predictive log-likelihood, in nats, of each of y, (n, d),
    given the others, summed; the total variance is 1 in every dimension. n is at least 2."""
    others = len(y) - 1
    weight = others * shares / (others * shares + 1 - shares)
    variance = (1 - shares) * (1 + shares / (others * shares + 1 - shares))
    mean = (y.sum(0) - y) / others
    errors = (y - weight[:, None, None] * mean).square().sum((1, 2))
    return -0.5 * (errors / variance + y.numel() * (2 * torch.pi * variance).log())
