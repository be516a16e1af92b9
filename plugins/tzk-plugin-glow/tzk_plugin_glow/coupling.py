"""Couplings of images: one half is mapped by element, with parameters from the other."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from tzk_core.errors import TzkError, nearest
from tzk_core.transforms.layer import Layer
from tzk_plugin_glow.elementwise import AffineMap, ElementMap
from tzk_plugin_glow.mixture import MixtureMap
from tzk_plugin_glow.network import ConvolutionalNet
from tzk_plugin_glow.spline import SplineMap

MASKS = ("channels", "checkerboard", "context")
MAPS = ("affine", "mixture-of-logistics", "rational-quadratic")


def element_map(name: str, components: int, bound: float = 3.0) -> ElementMap:
    """The family of maps of that name.

    Args:
        components: of a mixture; a spline has twice as many bins.
        bound: of the log-scale of affine maps; that of the logistics in a mixture is twice as large.

    Raises:
        TzkError: for an unknown name, with the nearest, or without a component.
    """
    if components < 1:
        raise TzkError(f"a map of elements has at least one component; got {components}")
    if name == "affine":
        return AffineMap(bound)
    if name == "mixture-of-logistics":
        return MixtureMap(components, 2 * bound)
    if name == "rational-quadratic":
        return SplineMap(2 * components)
    raise TzkError(f"a coupling maps by one of {', '.join(MAPS)}; got {name!r}{nearest(name, MAPS)}")


class Coupling(Layer):
    """A map of half an image by element, with parameters from the rest.

    It starts at the identity, or close to it.

    shape: (channels, height, width).
    map: "affine", "mixture-of-logistics" or "rational-quadratic".
    components, bound: see `element_map`.
    width, blocks: of the network.
    mask: the part that is mapped: "channels" (the second half of them), "checkerboard" (the white squares), or
        "context" for every element, with a network on the context alone.
    swap: map the other part instead.
    context_channels: of the context, (batch, context_channels, height, width), an input of the network too.
    """

    white: Tensor

    def __init__(
        self,
        shape: tuple[int, ...],
        map: str = "mixture-of-logistics",
        components: int = 4,
        *,
        width: int = 48,
        blocks: int = 1,
        mask: str = "channels",
        swap: bool = False,
        context_channels: int = 0,
        bound: float = 3.0,
    ) -> None:
        super().__init__()
        if mask not in MASKS:
            raise TzkError(f"a coupling cuts by one of {', '.join(MASKS)}; got {mask!r}{nearest(mask, MASKS)}")
        if mask == "context" and context_channels < 1:
            raise TzkError("a coupling on its context alone needs context_channels of 1 or more")
        if len(shape) != 3 or (mask == "channels" and shape[0] < 2):
            raise TzkError(
                f"a coupling expects (channels, height, width), two channels or more with mask = 'channels'; "
                f"got {tuple(shape)}"
            )
        self.output_shape = tuple(shape)
        self.map = element_map(map, components, bound)
        self.mask, self.swap, self.context_channels = mask, swap, context_channels
        channels = shape[0]
        self.halves = (channels - channels // 2, channels // 2)
        read, mapped = {
            "channels": self.halves[::-1] if swap else self.halves,
            "checkerboard": (channels, channels),
            "context": (0, channels),
        }[mask]
        squares = (torch.arange(shape[1])[:, None] + torch.arange(shape[2])) % 2
        self.register_buffer("white", squares == (0 if swap else 1), persistent=False)
        self.net = ConvolutionalNet(read + context_channels, self.map.count * mapped, width, blocks=blocks)
        self.net.start_at(self.map.start())

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._couple(inputs, context, self.map.forward)

    def inverse(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._couple(inputs, context, self.map.inverse)

    def _couple(
        self, inputs: Tensor, context: Tensor | None, function: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
    ) -> tuple[Tensor, Tensor]:
        if self.mask == "channels":
            first, second = inputs.split(self.halves, 1)
            read, moved = (second, first) if self.swap else (first, second)
            values, logabsdet = function(moved, self._parameters_from(read, context))
            outputs = torch.cat([values, read] if self.swap else [read, values], 1)
        elif self.mask == "checkerboard":
            read = torch.where(self.white, 0.0, inputs)
            values, logabsdet = function(inputs, self._parameters_from(read, context))
            outputs, logabsdet = torch.where(self.white, values, inputs), torch.where(self.white, logabsdet, 0.0)
        else:
            outputs, logabsdet = function(inputs, self._parameters_from(inputs[:, :0], context))
        return outputs, logabsdet.flatten(1).sum(1)

    def _parameters_from(self, read: Tensor, context: Tensor | None) -> Tensor:
        """Parameters of every mapped element, (batch, count, channels, height, width)."""
        inputs = torch.cat([read, context], 1) if self.context_channels and context is not None else read
        return self.net(inputs).unflatten(1, (self.map.count, -1))
