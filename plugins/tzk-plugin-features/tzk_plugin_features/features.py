"""Features of observations, whitened.

Of an image they are how much of it looks like patches of a dictionary, and where.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from tzk_core.errors import TzkError

CONTRAST = 0.3
"""Added to the norm of a patch that divides its responses, in grey levels of [0, 1]: flat patches respond little."""

LEAST_RESPONSE = 0.1
"""The cosine with a filter below which a patch does not respond to it."""

RIDGE = 0.01
"""Of the mean variance, added to every variance before whitening."""

STRIDE = 2
PATCHES, ROUNDS = 40_000, 8
"""Of the dictionary: at most so many patches, and rounds of k-means."""


class Features(nn.Module):
    """Whitened features y(T), fitted on a reference.

    Under it they have mean 0 and, nearly, covariance I.

    Here y are the entries of T, of any shape. It is fitted without labels, in closed form, and then is fixed. Buffers
    only, so that it is no part of what is trained.
    """

    centre: Tensor
    whitening: Tensor

    def __init__(self, shape: tuple[int, ...], dims: int | None = None) -> None:
        super().__init__()
        self.shape = tuple(shape)
        self.dims = math.prod(shape) if dims is None else dims
        self.register_buffer("centre", torch.zeros(self.dims))
        self.register_buffer("whitening", torch.eye(self.dims))

    def initialise(self, generator: torch.Generator) -> None:
        """Sample what is random before anything was fitted; here nothing."""

    @torch.no_grad()
    def fit(self, reference: Tensor, generator: torch.Generator) -> None:
        """Fit to reference observations, (n, *shape); images are in [0, 1].

        Raises:
            TzkError: for fewer than two.
        """
        if len(reference) < 2:
            raise TzkError(f"features are fitted to at least two reference observations; got {len(reference)}")
        self.fit_map(reference, generator)
        y = torch.cat([self.map(part) for part in reference.split(500)])
        self.centre.copy_(y.mean(0))
        values, axes = torch.linalg.eigh((y - self.centre).T.double().cov())
        values = values.clamp_min(0)
        self.whitening.copy_((axes / (values + RIDGE * values.mean()).sqrt()).T)

    def forward(self, observations: Tensor) -> Tensor:
        """y, (batch, dims), of observations, (batch, *shape)."""
        return self.whiten(self.map(observations))

    def whiten(self, values: Tensor) -> Tensor:
        """y of values of `map`, (batch, dims) both."""
        return (values - self.centre) @ self.whitening.T

    def scales(self) -> Tensor:
        """The scale of every y, (dims,), in which classes are gathered and shrunk; here 1."""
        return torch.ones_like(self.centre)

    def fit_map(self, reference: Tensor, generator: torch.Generator) -> None:
        """Fit what comes before the whitening; here nothing."""

    def map(self, observations: Tensor) -> Tensor:
        """What is whitened, (batch, dims)."""
        return observations.flatten(1)


class PatchFeatures(Features):
    """Features of images: responses to a dictionary of patches.

    One convolution with a dictionary of patches is taken in cosines (Coates, Lee and Ng 2011). A threshold, the mean
    over the cells of a grid, a square root, and the leading directions of the channels follow. The dictionary is that
    of k-means.

    shape: of an image, (channels, height, width).
    filters: in the dictionary. patch: their side. channels: left of the filters. grid: cells along a side.
    """

    filters: Tensor
    mean: Tensor
    directions: Tensor

    def __init__(self, shape: tuple[int, ...], *, filters: int, patch: int, channels: int, grid: int) -> None:
        super().__init__(shape, channels * grid * grid)
        if len(shape) != 3 or min(shape[1:]) < patch + STRIDE * (grid - 1):
            raise TzkError(
                f"features expects images of (channels, height, width), of at least {patch + STRIDE * (grid - 1)} "
                f"pixels a side for patches of {patch} and a grid of {grid}; got {tuple(shape)}"
            )
        if not 1 <= channels <= filters:
            raise TzkError(f"features expects channels of 1 to filters = {filters}; got {channels}")
        self.patch, self.grid = patch, grid
        self.register_buffer("filters", torch.zeros(filters, shape[0], patch, patch))
        self.register_buffer("mean", torch.zeros(filters))
        self.register_buffer("directions", torch.eye(filters, channels))

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Sample a random dictionary, which sees something before anything was fitted."""
        self.filters.copy_(_unit(torch.randn(self.filters.shape, generator=generator)))

    def fit_map(self, reference: Tensor, generator: torch.Generator) -> None:
        self.filters.copy_(self._dictionary(reference, generator))
        channels = torch.cat([self.responses(part) for part in reference.split(500)]).transpose(1, 2).flatten(0, 1)
        self.mean.copy_(channels.mean(0))
        axes = torch.linalg.eigh((channels - self.mean).T.double().cov()).eigenvectors.flip(1)
        self.directions.copy_(axes[:, : self.directions.shape[1]])

    def map(self, observations: Tensor) -> Tensor:
        return ((self.responses(observations).transpose(1, 2) - self.mean) @ self.directions).flatten(1)

    def responses(self, images: Tensor) -> Tensor:
        """How much the cells of the grid look like the filters.

        Returns:
            (batch, filters, grid²), in [0, 1].
        """
        size = self.filters[0].numel()
        box = torch.ones_like(self.filters[:1])
        total = functional.conv2d(images, box, stride=STRIDE)
        squares = functional.conv2d(images.square(), box, stride=STRIDE)
        norm = (squares - total.square() / size).clamp_min(1e-12).sqrt()
        cosine = functional.conv2d(images, self.filters, stride=STRIDE) / (norm + CONTRAST)
        cells = functional.adaptive_avg_pool2d((cosine - LEAST_RESPONSE).clamp_min(0), self.grid)
        return (cells.flatten(2) + 1e-12).sqrt()

    def _dictionary(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Spherical k-means of patches with some contrast, (filters, channels, patch, patch)."""
        some = images[torch.randperm(len(images), generator=generator)[:1500]]
        patches = functional.unfold(some, self.patch, stride=3).transpose(1, 2).flatten(0, 1)
        patches = patches - patches.mean(1, keepdim=True)
        norm = patches.norm(dim=1, keepdim=True)
        patches = (patches / (norm + CONTRAST))[norm.squeeze(1) > CONTRAST]
        patches = patches[torch.randperm(len(patches), generator=generator)[:PATCHES]]
        if not len(patches):
            raise TzkError("features are fitted to reference images with some contrast; these are flat")
        chosen = torch.randint(len(patches), (len(self.filters),), generator=generator)
        found = patches[chosen] + 1e-3 * torch.randn(len(chosen), patches.shape[1], generator=generator)
        for _ in range(ROUNDS):
            found = functional.normalize(found, dim=1)
            sums = torch.zeros_like(found).index_add_(0, (patches @ found.T).argmax(1), patches)
            found = torch.where(sums.norm(dim=1, keepdim=True) > 0, sums, found)
        return _unit(found.view_as(self.filters))


def _unit(filters: Tensor) -> Tensor:
    """Filters of mean 0 and norm 1."""
    flat = filters.flatten(1)
    return functional.normalize(flat - flat.mean(1, keepdim=True), dim=1).view_as(filters)
