"""A small convolutional network whose outputs have mean 0 and variance 1 over the data."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tzk_core.errors import TzkError
from tzk_core.random_streams import stream
from tzk_plugin_few_shot.distortions import affine_maps, mapped

VIEW_AMOUNT = 2.0
"""The `amount` of `affine_maps` that the views of an image are under, twice that of the training."""


def _block(inputs: int, outputs: int, *, pool: bool, stride: int = 1) -> list[nn.Module]:
    size = 2 * stride + 1
    convolution = nn.Conv2d(inputs, outputs, size, padding=stride, stride=stride, bias=False)
    return [convolution, nn.BatchNorm2d(outputs), nn.ReLU(), *([nn.MaxPool2d(2)] if pool else [])]


class ResidualBlock(nn.Module):
    """Two convolutions of 3x3 beside a skip connection (He et al. 2016).

    The skip is a convolution of 1x1 where the numbers of channels differ.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        first, last = _block(inputs, outputs, pool=False), _block(outputs, outputs, pool=False)[:-1]
        self.convolutions = nn.Sequential(*first, *last)
        narrow = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.skip = nn.Identity() if inputs == outputs else nn.Sequential(narrow, nn.BatchNorm2d(outputs))

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.relu(self.convolutions(inputs) + self.skip(inputs))


def _plain(channels: int) -> list[nn.Module]:
    """Three convolutions after the first."""
    middle, most = 3 * channels // 2, 2 * channels
    return [
        *_block(channels, middle, pool=True),
        *_block(middle, most, pool=False),
        *_block(most, most, pool=True),
    ]


def _residual(channels: int) -> list[nn.Module]:
    """Three residual blocks after the first convolution."""
    middle, most = 3 * channels // 2, 2 * channels
    first, *others = ResidualBlock(channels, middle), ResidualBlock(middle, most), ResidualBlock(most, most)
    return [first, nn.MaxPool2d(2), *others, nn.MaxPool2d(2)]


def view_maps(views: int) -> Tensor:
    """The affine maps of all views but the first, (views - 1, 2, 3).

    The first is the image itself.
    """
    return affine_maps(views - 1, stream(0, "views"), amount=VIEW_AMOUNT)


class FeatureNetwork(nn.Module):
    """Four convolutions, or one and three residual blocks, and a linear map to the features.

    The convolutions are 3x3, and pooling halves what they give three times.

    The last layer is a batch normalisation without scale and shift: what is trained cannot leave the marginal N(0, 1)
    that `predictive` assumes of every feature, but in its shape.

    Features of an image are the mean over `views` of it before this normalisation: the image itself, and small affine
    maps of it, always the same. `feature_averaging.averaged` sets how many there are after training with one.

    Args:
        shape: of an image, (channels, height, width), sides of at least 8 · stride.
        features: the number of outputs.
        channels: of the first convolution; the others have up to twice as many.
        stride: of the first convolution, 1 or 2; with 2 it is 5x5.
        views: of an image, at least 1.
        residual: Take residual blocks after the first convolution.
    """

    maps: Tensor

    def __init__(
        self,
        shape: tuple[int, int, int],
        features: int,
        channels: int = 32,
        *,
        stride: int = 1,
        views: int = 1,
        residual: bool = False,
    ) -> None:
        super().__init__()
        inputs, height, width = shape
        if stride not in (1, 2) or min(height, width) < 8 * stride or min(features, channels, views) < 1:
            raise TzkError(
                "features expect a stride of 1 or 2, images with sides of at least 8 times that, and at least one "
                f"feature, channel and view; got {stride}, {height} x {width}, {features}, {channels} and {views}"
            )
        self.residual = residual
        others = _residual(channels) if residual else _plain(channels)
        self.convolutions = nn.Sequential(*_block(inputs, channels, pool=True, stride=stride), *others)
        cells = ((height + stride - 1) // stride // 8) * ((width + stride - 1) // stride // 8)
        self.linear = nn.Linear(2 * channels * cells, features, bias=False)
        self.normalisation = nn.BatchNorm1d(features, affine=False)
        self.register_buffer("maps", view_maps(views), persistent=False)

    @property
    def views(self) -> int:
        return 1 + len(self.maps)

    def forward(self, images: Tensor) -> Tensor:
        """Features, (batch, features), of images, (batch, *shape)."""
        return self.normalisation(self.raw(images))

    def raw(self, images: Tensor) -> Tensor:
        """Features before they are normalised, (batch, features)."""
        total = self._view(images)
        for one in self.maps:
            total = total + self._view(mapped(images, one.expand(len(images), -1, -1)))
        return total / self.views

    def _view(self, images: Tensor) -> Tensor:
        return self.linear(self.convolutions(images).flatten(1)).to(self.linear.weight.dtype)

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Sample the weights from `generator`, scaled for ReLUs (He et al. 2015)."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                fan_in = module.weight[0].numel()
                module.weight.copy_(torch.randn(module.weight.shape, generator=generator) * (2 / fan_in) ** 0.5)
