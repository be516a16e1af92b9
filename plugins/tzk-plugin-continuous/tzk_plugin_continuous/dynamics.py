"""Networks f(t, x) of an equation, with products of Jacobian and directions."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

FIRST = 3.0
"""By what the first layer's usual start is multiplied: its units then bend within the data, not far outside of them."""

OPEN = 2.0
"""What gates start at, before the sigmoid: 0.88 of what comes in."""


class Squashed(nn.Module):
    """FFJORD's ConcatSquash, (W x + b) σ(g t + g₀) + s t.

    linear: of vectors, or a convolution of images.
    """

    def __init__(self, linear: nn.Linear | nn.Conv2d, outputs: int) -> None:
        super().__init__()
        self.linear = linear
        self.gate = nn.Linear(1, outputs)
        self.shift = nn.Linear(1, outputs, bias=False)
        nn.init.constant_(self.gate.bias, OPEN)

    def forward(self, t: Tensor, x: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        """The map of x at time t, and its Jacobian times directions.

        Args:
            t: (1,).
            x: (batch, inputs) or (batch, channels, height, width).
            directions: (batch or 1, directions, *inputs).
        """
        gate, shift = torch.sigmoid(self.gate(t)), self.shift(t)
        linear, flat = self.linear, directions.flatten(0, 1)
        if isinstance(linear, nn.Conv2d):
            gate, shift = gate[:, None, None], shift[:, None, None]  # one value a channel
            product = functional.conv2d(flat, linear.weight, padding=linear.padding)
        else:
            product = functional.linear(flat, linear.weight)
        return linear(x) * gate + shift, (product * gate).unflatten(0, directions.shape[:2])


class Dynamics(nn.Module):
    """f(t, x): squashed layers with tanh between them.

    They are fully connected on vectors, 3×3 convolutions on images.

    The last layer starts at zero, so that the flow starts at the identity. f is bounded, so that the flow exists for
    all x and all times.

    shape: (d,), or (channels, height, width).
    hidden: units, or channels, of each of `depth` hidden layers.
    """

    def __init__(self, shape: tuple[int, ...], hidden: int, depth: int) -> None:
        super().__init__()
        sizes = [shape[0], *[hidden] * depth, shape[0]]
        squashed = [_squashed(shape, *pair) for pair in zip(sizes[:-1], sizes[1:], strict=True)]
        self.squashed = nn.ModuleList(squashed)
        first, last = squashed[0], squashed[-1]
        with torch.no_grad():
            for start in first.linear.parameters():
                start.mul_(FIRST)
        for parameter in (*last.linear.parameters(), last.shift.weight):
            nn.init.zeros_(parameter)

    def forward(self, t: Tensor, x: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        """f, (batch, *shape), and its Jacobian times each direction.

        Args:
            t: (), the time.
            x: (batch, *shape).
            directions: (batch or 1, directions, *shape).

        Returns:
            f, and products, (batch or 1, directions, *shape). They are made forwards, beside f, so that they need no
            graph of autograd and have gradients of their own.
        """
        *inner, last = self.squashed
        t = t.reshape(1)
        for layer in inner:
            x, directions = layer(t, x, directions)
            x = torch.tanh(x)
            directions = directions * (1 - x.square()).unsqueeze(1)
        velocity, products = last(t, x, directions)
        return velocity, products


def _squashed(shape: tuple[int, ...], inputs: int, outputs: int) -> Squashed:
    image = len(shape) == 3
    linear = nn.Conv2d(inputs, outputs, 3, padding=1) if image else nn.Linear(inputs, outputs)
    return Squashed(linear, outputs)
