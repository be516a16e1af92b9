"""Features of an image: how much of it looks like patches of a dictionary, and where."""

from __future__ import annotations

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


class PatchFeatures(nn.Module):
    """y(T), whitened: under the reference it was fitted on it has mean 0 and, nearly, covariance I.

    One convolution with a dictionary of patches, in cosines (Coates, Lee and Ng 2011), a threshold, the mean over the
    cells of a grid, a square root, the leading directions of the channels, and a whitening. All of it is fitted to the
    reference without labels, in closed form or by k-means, and then is fixed. Buffers only, so that it is no part of
    what is trained.

    shape: of an image, (channels, height, width).
    filters: in the dictionary. patch: their side. channels: left of the filters. grid: cells along a side.
    """

    filters: Tensor
    mean: Tensor
    directions: Tensor
    centre: Tensor
    whitening: Tensor

    def __init__(self, shape: tuple[int, ...], *, filters: int, patch: int, channels: int, grid: int) -> None:
        super().__init__()
        if len(shape) != 3 or min(shape[1:]) < patch + STRIDE * (grid - 1):
            raise TzkError(
                f"features expects images of (channels, height, width), of at least {patch + STRIDE * (grid - 1)} "
                f"pixels a side for patches of {patch} and a grid of {grid}; got {tuple(shape)}"
            )
        if not 1 <= channels <= filters:
            raise TzkError(f"features expects channels of 1 to filters = {filters}; got {channels}")
        self.shape, self.patch, self.grid = tuple(shape), patch, grid
        self.dims = channels * grid * grid
        self.register_buffer("filters", torch.zeros(filters, shape[0], patch, patch))
        self.register_buffer("mean", torch.zeros(filters))
        self.register_buffer("directions", torch.eye(filters, channels))
        self.register_buffer("centre", torch.zeros(self.dims))
        self.register_buffer("whitening", torch.eye(self.dims))

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Sample a random dictionary, which sees something before anything was fitted."""
        self.filters.copy_(_unit(torch.randn(self.filters.shape, generator=generator)))

    @torch.no_grad()
    def fit(self, images: Tensor, generator: torch.Generator) -> None:
        """Fit dictionary, directions and whitening to reference images, (n, *shape), in [0, 1].

        Raises:
            TzkError: for fewer than two images.
        """
        if len(images) < 2:
            raise TzkError(f"features are fitted to at least two reference images; got {len(images)}")
        self.filters.copy_(self._dictionary(images, generator))
        responses = torch.cat([self.responses(part) for part in images.split(500)])
        channels = responses.transpose(1, 2).flatten(0, 1)
        self.mean.copy_(channels.mean(0))
        axes = torch.linalg.eigh((channels - self.mean).T.double().cov()).eigenvectors.flip(1)
        self.directions.copy_(axes[:, : self.directions.shape[1]])
        reduced = self._reduced(responses)
        self.centre.copy_(reduced.mean(0))
        values, axes = torch.linalg.eigh((reduced - self.centre).T.double().cov())
        values = values.clamp_min(0)
        self.whitening.copy_((axes / (values + RIDGE * values.mean()).sqrt()).T)

    def forward(self, images: Tensor) -> Tensor:
        """y, (batch, dims), of images, (batch, *shape)."""
        return (self._reduced(self.responses(images)) - self.centre) @ self.whitening.T

    def responses(self, images: Tensor) -> Tensor:
        """How much every cell of the grid looks like every filter, (batch, filters, grid²), in [0, 1]."""
        size = self.filters[0].numel()
        box = torch.ones_like(self.filters[:1])
        total = functional.conv2d(images, box, stride=STRIDE)
        squares = functional.conv2d(images.square(), box, stride=STRIDE)
        norm = (squares - total.square() / size).clamp_min(1e-12).sqrt()
        cosine = functional.conv2d(images, self.filters, stride=STRIDE) / (norm + CONTRAST)
        cells = functional.adaptive_avg_pool2d((cosine - LEAST_RESPONSE).clamp_min(0), self.grid)
        return (cells.flatten(2) + 1e-12).sqrt()

    def _reduced(self, responses: Tensor) -> Tensor:
        return ((responses.transpose(1, 2) - self.mean) @ self.directions).flatten(1)

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
