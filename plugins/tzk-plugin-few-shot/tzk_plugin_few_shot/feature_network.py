"""A small convolutional network whose outputs have mean 0 and variance 1 over the data."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tzk_core.errors import TzkError


def _block(inputs: int, outputs: int, *, pool: bool) -> list[nn.Module]:
    layers: list[nn.Module] = [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs)]
    return [*layers, nn.ReLU(), *([nn.MaxPool2d(2)] if pool else [])]


class FeatureNetwork(nn.Module):
    """Four 3x3 convolutions, and a linear map to the features.

    Pooling follows three of the convolutions.

    The last layer is a batch normalisation without scale and shift: what is trained cannot leave the marginal N(0, 1)
    that `predictive` assumes of every feature, but in its shape.

    Args:
        shape: of an image, (channels, height, width), sides of at least 8.
        features: the number of outputs.
        channels: of the first convolution; the others have up to twice as many.
    """

    def __init__(self, shape: tuple[int, int, int], features: int, channels: int = 32) -> None:
        super().__init__()
        inputs, height, width = shape
        if min(height, width) < 8 or min(features, channels) < 1:
            raise TzkError(
                "features expect images with sides of at least 8, and at least one feature and channel; got "
                f"{height} x {width}, {features} and {channels}"
            )
        middle, most = 3 * channels // 2, 2 * channels
        self.convolutions = nn.Sequential(
            *_block(inputs, channels, pool=True),
            *_block(channels, middle, pool=True),
            *_block(middle, most, pool=False),
            *_block(most, most, pool=True),
        )
        self.linear = nn.Linear(most * (height // 8) * (width // 8), features, bias=False)
        self.normalisation = nn.BatchNorm1d(features, affine=False)

    def forward(self, images: Tensor) -> Tensor:
        """Features, (batch, features), of images, (batch, *shape)."""
        return self.normalisation(self.linear(self.convolutions(images).flatten(1)))

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Sample the weights from `generator`, scaled for ReLUs (He et al. 2015)."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                fan_in = module.weight[0].numel()
                module.weight.copy_(torch.randn(module.weight.shape, generator=generator) * (2 / fan_in) ** 0.5)
