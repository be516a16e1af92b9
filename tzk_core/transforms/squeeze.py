"""Squeeze and unsqueeze: pixels to channels and back (paper, Fig. 2)."""

from __future__ import annotations

from torch import Tensor

from tzk_core.errors import TzkError
from tzk_core.transforms.layer import Layer


def _squeeze(inputs: Tensor, factor: int, tiling: str) -> Tensor:
    batch, channels, height, width = inputs.shape
    if tiling == "strided":
        cut = inputs.view(batch, channels, height // factor, factor, width // factor, factor)
        moved = cut.permute(0, 1, 3, 5, 2, 4)
    else:
        cut = inputs.view(batch, channels, factor, height // factor, factor, width // factor)
        moved = cut.permute(0, 1, 2, 4, 3, 5)
    return moved.reshape(batch, channels * factor**2, height // factor, width // factor)


def _unsqueeze(inputs: Tensor, factor: int, tiling: str) -> Tensor:
    batch, channels, height, width = inputs.shape
    cut = inputs.view(batch, channels // factor**2, factor, factor, height, width)
    moved = cut.permute(0, 1, 4, 2, 5, 3) if tiling == "strided" else cut.permute(0, 1, 2, 4, 3, 5)
    return moved.reshape(batch, channels // factor**2, height * factor, width * factor)


class Squeeze(Layer):
    """Space to channels, (c, h, w) to (c f², h/f, w/f).

    It is a permutation of the dimensions, with log|det| = 0.

    Args:
        shape: (c, h, w).
        factor: f.
        tiling: "strided": a channel holds every f-th pixel, as in Real NVP (space to depth). "blocks": a channel holds
            one of the f×f blocks that the image is cut into, in which neighbours stay neighbours.

    Raises:
        TzkError: if the sides are not divisible by the factor, or the tiling is unknown.
    """

    def __init__(self, shape: tuple[int, ...], factor: int = 2, tiling: str = "strided") -> None:
        super().__init__()
        _check(factor, tiling)
        if len(shape) != 3 or shape[1] % factor or shape[2] % factor:
            raise TzkError(
                f"squeeze by {factor} expects (channels, height, width) with sides divisible by {factor}; "
                f"got {tuple(shape)}"
            )
        channels, height, width = shape
        self.output_shape = (channels * factor**2, height // factor, width // factor)
        self.factor, self.tiling = factor, tiling

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return _squeeze(inputs, self.factor, self.tiling), inputs.new_zeros(inputs.shape[0])

    def inverse(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return _unsqueeze(inputs, self.factor, self.tiling), inputs.new_zeros(inputs.shape[0])


class Unsqueeze(Layer):
    """Channels to space, (c f², h, w) to (c, h f, w f).

    It is the inverse of `Squeeze` with the same factor and tiling.
    """

    def __init__(self, shape: tuple[int, ...], factor: int = 2, tiling: str = "strided") -> None:
        super().__init__()
        _check(factor, tiling)
        if len(shape) != 3 or shape[0] % factor**2:
            raise TzkError(
                f"unsqueeze by {factor} expects (channels, height, width) with channels divisible by {factor**2}; "
                f"got {tuple(shape)}"
            )
        channels, height, width = shape
        self.output_shape = (channels // factor**2, height * factor, width * factor)
        self.factor, self.tiling = factor, tiling

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return _unsqueeze(inputs, self.factor, self.tiling), inputs.new_zeros(inputs.shape[0])

    def inverse(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return _squeeze(inputs, self.factor, self.tiling), inputs.new_zeros(inputs.shape[0])


def _check(factor: int, tiling: str) -> None:
    if factor < 1:
        raise TzkError(f"squeeze expects a factor of at least 1; got {factor}")
    if tiling not in ("strided", "blocks"):
        raise TzkError(f"squeeze expects the tiling 'strided' or 'blocks'; got {tiling!r}")
