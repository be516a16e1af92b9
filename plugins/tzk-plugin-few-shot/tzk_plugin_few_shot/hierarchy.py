"""A Gaussian hierarchy of classes, which predicts a new class from few samples."""

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
    """Class means m ~ N(centre, B) and samples z ~ N(m, W) of them.

    B and W are diagonal in the coordinates y = matrix (z - centre).

    centre: (d,). matrix: (d, d). inverse: that of `matrix`.
    within: W, (d,).
    between: B over W, (d,). None where the reference does not determine how the variance splits: `within` is then
        that of both together.
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
    """Estimate the hierarchy in closed form from latents.

    With groups the covariances within and between them are both diagonal in the coordinates of linear discriminants
    (PLDA, Ioffe 2006). Without, or with one sample or one class only, the covariance of the reference serves for both.
    The shared prior, N(0, I), counts as one sample in every covariance, and is all there is where m = 0.

    Args:
        reference: (m, *latent_shape), m = 0 included.
        groups: the class of every latent, (m,) integers.
        directions: how many are searched for the means of classes, which differ most along these.
        trust: along all other directions the means may differ by 1/`trust` of the variance within.

    Raises:
        TzkError: if there are not as many groups as latents.
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
    rank = min(directions, count - 1)
    # Where means are not searched for, their variance is variance within. It is rotated to its principal axes in z, so
    # that samples of one class differ most along the first of these directions.
    deviations = torch.cat([torch.ones_like(between[:rank]), (1 + between[rank:]).sqrt()])
    inverse = root @ axes * deviations
    rest = inverse[:, rank:]
    rotation = torch.linalg.eigh(rest.T @ rest).eigenvectors.flip(1)
    inverse = torch.cat([inverse[:, :rank], rest @ rotation], 1)
    matrix = torch.linalg.solve_triangular(root.T, axes, upper=True).T / deviations[:, None]
    matrix = torch.cat([matrix[:rank], rotation.T @ matrix[rank:]])
    ratio = torch.cat([between[:rank], torch.zeros_like(between[rank:])]).clamp_min(1 / trust)
    return Hierarchy(centre, matrix, inverse, torch.ones_like(ratio), ratio)


def predict(hierarchy: Hierarchy, y: Tensor, *, trust: float = 100.0, share: float = 0.1) -> tuple[Tensor, Tensor]:
    """Mean and variance, (d,) each, of the next sample of a class.

    Means and variances have the conjugate prior, normal and inverse gamma. The moments of the predictive density are
    exact (Murphy 2007, section 3).

    Args:
        y: whitened samples of the class, (n, d).
        trust: the variances are known as from this many samples.
        share: of the variance, between classes, for a single sample and a hierarchy that does not determine it. With
            more samples it is that of the largest leave-one-out predictive likelihood.
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
    """Sum of the predictive log-likelihoods, in nats, of every sample given the others.

    The total variance is 1 in every dimension.

    Args:
        y: (n, d), n at least 2.
        shares: of the variance, between classes, (s,).

    Returns:
        (s,).
    """
    others = len(y) - 1
    weight = others * shares / (others * shares + 1 - shares)
    variance = (1 - shares) * (1 + shares / (others * shares + 1 - shares))
    mean = (y.sum(0) - y) / others
    errors = (y - weight[:, None, None] * mean).square().sum((1, 2))
    return -0.5 * (errors / variance + y.numel() * (2 * torch.pi * variance).log())
