"""How usual the patches of an image are, by a mixture of Gaussians."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from tzk_plugin_features.mixture import Components

from tzk_core.errors import TzkError

SIZE, STRIDE = 5, 2
CONTRAST = 0.3
"""The least difference of grey levels within a patch that counts, in [0, 1]."""

COMPONENTS, PATCHES, LOWEST = 30, 30_000, 5
LEAST = -1e3
"""Log-densities of patches below it count as it, so that one patch does not decide everything."""


class PatchDensity(nn.Module):
    """A mixture of Gaussians over patches that have some contrast; buffers alone.

    It is fitted to training images without labels. `names` are the statistics of one image. They are mean and standard
    deviation of the log-density of its patches, the mean of the five lowest, and the log of the number of patches.
    """

    names = ("patches, mean", "patches, deviation", "patches, lowest", "patches, number")
    mean: Tensor
    scale: Tensor
    log_weights: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        dims = channels * SIZE * SIZE
        self.components = Components(COMPONENTS, dims)
        self.register_buffer("mean", torch.zeros(dims))
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("log_weights", torch.zeros(COMPONENTS, dtype=torch.float64))

    def fit(self, images: Tensor, generator: torch.Generator) -> None:
        """Fit to images, (n, channels, height, width).

        Raises:
            TzkError: for images with too little contrast.
        """
        patches, some = _patches(images)
        patches = patches[some]
        if len(patches) < COMPONENTS:
            raise TzkError(f"the density of patches takes images with some contrast; these have {len(patches)} such")
        patches = patches[torch.randperm(len(patches), generator=generator)[:PATCHES]]
        self.mean, self.scale = patches.mean(0), patches.std()
        weights = self.components.fit(
            (patches - self.mean) / self.scale, shrinkage=0.01, trust=1.0, generator=generator
        )
        self.log_weights = weights.log()

    def statistics(self, images: Tensor) -> Tensor:
        """(n, 4), of images, (n, channels, height, width)."""
        return torch.cat([self._statistics(part) for part in images.split(250)])

    def _statistics(self, images: Tensor) -> Tensor:
        patches, some = _patches(images)
        y = ((patches - self.mean) / self.scale).flatten(0, 1)
        density = (self.components(y) + self.log_weights).logsumexp(1) - 0.5 * y.square().sum(1)
        density = density.view(some.shape).clamp_min(LEAST)
        number = some.sum(1).clamp_min(1)
        mean = density.masked_fill(~some, 0).sum(1) / number
        variance = (density - mean[:, None]).square().masked_fill(~some, 0).sum(1) / number
        lowest = density.masked_fill(~some, -LEAST).sort(1).values[:, :LOWEST].mean(1)
        return torch.stack([mean, variance.sqrt(), lowest, number.to(mean).log()], 1)


def _patches(images: Tensor) -> tuple[Tensor, Tensor]:
    """Patches, (n, places, dims), and where they have some contrast, (n, places)."""
    patches = functional.unfold(images, SIZE, stride=STRIDE).transpose(1, 2)
    return patches, patches.amax(2) - patches.amin(2) > CONTRAST
