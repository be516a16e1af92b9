"""Ratios of Gaussians: the components of one class, relative to the reference N(0, I)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tzk_core.distributions.base import Reparametrised

ROUNDS = 10
"""Of the k-means that gathers the samples of a component."""

LEAST = 20
"""Samples of the class for every component: with fewer there are fewer different components."""

OWN = 0.5
"""The share of a component's own covariance; the rest is the covariance within all components of the class."""


class Components(nn.Module):
    """log N(y; mean_c, S_c) - log N(y; 0, I) of a class's components c.

    They are in closed form.

    Buffers only: nothing of it is trained, and nothing of it depends on another class.
    """

    means: Tensor
    whitenings: Tensor
    log_volumes: Tensor

    def __init__(self, components: int, dims: int) -> None:
        super().__init__()
        self.register_buffer("means", torch.zeros(components, dims))
        self.register_buffer("whitenings", torch.eye(dims).repeat(components, 1, 1))
        self.register_buffer("log_volumes", torch.zeros(components))

    def forward(self, y: Tensor) -> Tensor:
        """The log ratios, (batch, components), in nats, of y, (batch, dims)."""
        scaled = torch.einsum("cij,cbj->bci", self.whitenings, y.unsqueeze(0) - self.means.unsqueeze(1))
        return self.log_volumes - 0.5 * scaled.square().sum(-1) + 0.5 * y.square().sum(-1, keepdim=True)

    @torch.no_grad()
    def fit(
        self,
        y: Tensor,
        *,
        shrinkage: float,
        trust: float,
        generator: torch.Generator,
        weights: Tensor | None = None,
        scales: Tensor | None = None,
    ) -> Tensor:
        """Fit to y, (n, dims), of the class alone.

        A covariance is half the component's own and half that within all of the class's. A share `shrinkage` of it is
        isotropic, and the identity, which without scales is the reference's, counts as `trust` samples.

        Args:
            weights: how much of every sample is of the class, (n,), in [0, 1]; all of it by default.
            scales: of y, (dims,): all of the above, and the distances of k-means, are of y times these; 1 by default.

        Returns:
            The weights of the components, (components,). They sum to 1.
        """
        scales = torch.ones_like(y[0]).double() if scales is None else scales.double()
        y = y.double() * scales
        weights = torch.ones_like(y[:, 0]) if weights is None else weights.to(y)
        total = float(weights.sum())
        count = min(len(self.means), max(1, int(total) // LEAST), len(y))
        centres, nearest = gather(y, count, generator, weights=weights)
        sizes = torch.bincount(nearest, weights, minlength=count)
        within = _covariance(y - centres[nearest], weights)
        identity = torch.eye(y.shape[1], dtype=y.dtype)
        repeats = torch.bincount(torch.arange(len(self.means)) % count, minlength=count)
        for number in range(len(self.means)):
            which = number % count
            covariance = within
            if sizes[which] >= LEAST:
                own, shares = y[nearest == which], weights[nearest == which]
                own = own - shares @ own / shares.sum()
                covariance = (1 - OWN) * within + OWN * _covariance(own, shares)
            covariance = (1 - shrinkage) * covariance + shrinkage * within.diagonal().mean() * identity
            covariance = (total * covariance + trust * identity) / (total + trust)
            root = torch.linalg.cholesky(covariance)
            self.means[number] = centres[which] / scales
            self.whitenings[number] = torch.linalg.solve_triangular(root, identity, upper=False) * scales
            self.log_volumes[number] = scales.log().sum() - root.diagonal().log().sum()
        shares = (sizes / total / repeats)[torch.arange(len(self.means)) % count]
        return shares.clamp_min(1e-6) / shares.clamp_min(1e-6).sum()


class Categorical(Reparametrised):
    """The component of a sample, one number 0 … components - 1, with the probabilities `weights`."""

    weights: Tensor

    def __init__(self, components: int) -> None:
        super().__init__((1,))
        self.register_buffer("weights", torch.full((components,), 1 / components))

    def fit(self, values: Tensor) -> None:
        """Fit nothing: components are found, not observed."""

    def standardise(self, values: Tensor) -> Tensor:
        """The components as they are."""
        return values

    def _log_prob(self, inputs: Tensor, context: Tensor | None) -> Tensor:
        return select(self.weights.log(), inputs)

    def from_noise(self, noise: Tensor, context: Tensor | None = None) -> Tensor:
        return quantile(noise, self.weights)


def gather(y: Tensor, count: int, generator: torch.Generator, *, weights: Tensor) -> tuple[Tensor, Tensor]:
    """k-means: centres, (count, dims), and the nearest of them of every row of y, (n,).

    It starts from random rows, of which those of little weight come late.
    """
    order = torch.randperm(len(y), generator=generator)
    late = torch.arange(1, len(y) + 1) / weights[order].cpu()
    centres = y[order[late.argsort(stable=True)[:count]]]
    nearest = torch.cdist(y, centres).argmin(1)
    for _ in range(ROUNDS):
        sizes = torch.bincount(nearest, weights, minlength=count)
        sums = torch.zeros_like(centres).index_add_(0, nearest, y * weights[:, None])
        centres = torch.where((sizes > 0)[:, None], sums / sizes.clamp_min(1e-12)[:, None], centres)
        nearest = torch.cdist(y, centres).argmin(1)
    return centres, nearest


def select(values: Tensor, C: Tensor) -> Tensor:
    """The value at component C, (…, 1); `values` are (components,), (batch, components) or (batch, 1, components)."""
    one_hot = (C.round() == torch.arange(values.shape[-1], dtype=C.dtype, device=C.device)).to(values.dtype)
    return (one_hot * values).sum(-1)


def quantile(noise: Tensor, probabilities: Tensor) -> Tensor:
    """The number, (…, 1), at the quantile of standard Gaussian noise, (…, 1), of probabilities, (…, numbers)."""
    below = probabilities.cumsum(-1)[..., :-1]
    return (torch.special.ndtr(noise) > below).to(noise.dtype).sum(-1, keepdim=True)


def _covariance(deviations: Tensor, weights: Tensor) -> Tensor:
    return (deviations * weights[:, None]).T @ deviations / weights.sum()
