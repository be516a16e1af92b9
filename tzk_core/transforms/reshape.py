"""Changes of shape and order that keep every value."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from nflows.transforms.base import Transform
from torch import Tensor

from tzk_core.transforms.layer import Layer, leading


class Flatten(Layer):
    """Flatten (c, h, w) to (c h w,), as most nflows transforms expect.

    log|det| = 0.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.input_shape = tuple(shape)
        self.output_shape = (math.prod(shape),)

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return inputs.flatten(1), inputs.new_zeros(inputs.shape[0])

    def inverse(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return inputs.view(-1, *self.input_shape), inputs.new_zeros(inputs.shape[0])


class _Permute(torch.autograd.Function):
    """Values, (…, n), in another order of the last dimension.

    Backward takes the inverse order; that of `index_select` would add up values one by one.
    """

    @staticmethod
    def forward(values: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
        return values.reshape(-1, values.shape[-1]).index_select(1, order).view(values.shape)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
        ctx.orders = inputs[1:]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        order, inverse = ctx.orders
        return _Permute.apply(grad, inverse, order), None, None

    @staticmethod
    def vmap(  # noqa: PLR0917  torch calls it by position
        info: Any, in_dims: tuple[int | None, ...], values: Tensor, order: Tensor, inverse: Tensor
    ) -> tuple[Tensor, int]:
        return _Permute.apply(*leading(info, in_dims, (values,)), order, inverse), 0


class Rearrangement(Layer):
    """Several layers that only move values, in one pass; log|det| = 0.

    `Squeeze`, `Unsqueeze` and `Flatten` are such layers.
    """

    def __init__(self, shape: tuple[int, ...], layers: Sequence[Transform]) -> None:
        super().__init__()
        moved = torch.arange(math.prod(shape)).view(1, *shape)
        for layer in layers:
            moved = layer(moved)[0]
        self.input_shape, self.output_shape = tuple(shape), tuple(moved.shape[1:])
        self._layers = tuple(layers)
        # no buffers: these do not depend on training, and are not to be stacked with what does
        self._orders = {moved.device: (moved.flatten(), moved.flatten().argsort())}

    def _order(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """The order in which values leave, and its inverse."""
        if device not in self._orders:
            order, inverse = next(iter(self._orders.values()))
            self._orders[device] = order.to(device), inverse.to(device)
        return self._orders[device]

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if torch.compiler.is_compiling():  # the compiler makes at most one pass of them by itself
            for layer in self._layers:
                inputs = layer(inputs)[0]
            return inputs, inputs.new_zeros(inputs.shape[0])
        order, inverse = self._order(inputs.device)
        outputs = _Permute.apply(inputs.flatten(1), order, inverse)
        return outputs.view(-1, *self.output_shape), inputs.new_zeros(inputs.shape[0])

    def inverse(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        order, inverse = self._order(inputs.device)
        outputs = _Permute.apply(inputs.flatten(1), inverse, order)
        return outputs.view(-1, *self.input_shape), inputs.new_zeros(inputs.shape[0])
