"""What Glow has around its couplings: a scale and a shift of channels, started from data, and levels that split off."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
from nflows.transforms.base import CompositeTransform, Transform
from torch import Tensor, nn

from tzk_core.transforms.bounds import soft_bound, soft_bound_inverse
from tzk_core.transforms.layer import Layer


class ChannelAffine(Layer):
    """y = x exp(s) + t with one bounded s and one t a channel, (channels, height, width).

    `initialise` sets them so that a channel leaves with mean 0 and deviation 1; a constant channel, or a batch of one,
    gets the scale of the smallest deviation allowed, 1e-3. That it was done is kept in the state dict.
    """

    elementwise = True
    initialised: Tensor

    def __init__(self, shape: tuple[int, ...], bound: float = 8.0) -> None:
        super().__init__()
        self.output_shape, self.bound = tuple(shape), bound
        self.pixels = math.prod(shape[1:])
        self.raw_log_scale = nn.Parameter(torch.zeros(shape[0], 1, 1))
        self.shift = nn.Parameter(torch.zeros(shape[0], 1, 1))
        self.register_buffer("initialised", torch.tensor(False))

    @torch.no_grad()
    def initialise(self, inputs: Tensor) -> None:
        """From `inputs`, (batch, channels, height, width), unless that was done before."""
        if self.initialised:
            return
        deviation = inputs.std((0, 2, 3), unbiased=False, keepdim=True)[0].clamp_min(1e-3)
        self.raw_log_scale.copy_(soft_bound_inverse(-deviation.log(), self.bound))
        self.shift.copy_(-inputs.mean((0, 2, 3), keepdim=True)[0] * self._log_scale().exp())
        self.initialised.fill_(True)

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        log_scale = self._log_scale()
        return torch.addcmul(self.shift, inputs, log_scale.exp()), self._logabsdet(log_scale, inputs)

    def inverse(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        log_scale = self._log_scale()
        return (inputs - self.shift) * torch.exp(-log_scale), -self._logabsdet(log_scale, inputs)

    def _log_scale(self) -> Tensor:
        return soft_bound(self.raw_log_scale, self.bound)

    def _logabsdet(self, log_scale: Tensor, inputs: Tensor) -> Tensor:
        return (self.pixels * log_scale.sum()).expand(inputs.shape[0])


class Multiscale(Transform):
    """Levels one after the other, (channels, height, width) to (dims,): behind each but the last the first half of the
    channels is done, and the other half goes on.

    It is nflows' MultiscaleCompositeTransform as a pure function, whose parts can start from data.
    """

    def __init__(self, levels: Sequence[Transform], shapes: Sequence[tuple[int, ...]]) -> None:
        """`shapes` are those in which the levels leave, (channels, height, width) each."""
        super().__init__()
        self.levels = nn.ModuleList(levels)
        last = len(shapes) - 1
        self._done = [(c if number == last else c // 2, *sides) for number, (c, *sides) in enumerate(shapes)]
        self.output_shape = (sum(map(math.prod, self._done)),)

    @torch.no_grad()
    def initialise(self, inputs: Tensor) -> None:
        """Starts the parts that have a start of their own, one after the other, from `inputs`, (batch, c, h, w)."""
        for level, done in zip(self.levels, self._done, strict=True):
            inputs = _started(level, inputs)[:, done[0] :]

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        outputs, logabsdets = [], []
        for level, done in zip(self.levels, self._done, strict=True):
            whole, logabsdet = level(inputs, context)
            outputs.append(whole[:, : done[0]].flatten(1))
            inputs = whole[:, done[0] :]
            logabsdets.append(logabsdet)
        return torch.cat(outputs, 1), torch.stack(logabsdets).sum(0)

    def inverse(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        parts = inputs.split([math.prod(done) for done in self._done], 1)
        logabsdets: list[Tensor] = []
        whole: Tensor | None = None
        for level, done, part in list(zip(self.levels, self._done, parts, strict=True))[::-1]:
            image = part.reshape(-1, *done)
            joined = image if whole is None else torch.cat([image, whole], 1)
            whole, logabsdet = cast(Transform, level).inverse(joined, context)
            logabsdets.append(logabsdet)
        assert whole is not None
        return whole, torch.stack(logabsdets).sum(0)


def _started(transform: Transform, inputs: Tensor) -> Tensor:
    """The outputs of a transform, its parts started from what reaches them."""
    if isinstance(transform, CompositeTransform):
        for part in transform._transforms:
            inputs = _started(part, inputs)
        return inputs
    if hasattr(transform, "initialise"):
        transform.initialise(inputs)
    return transform(inputs)[0]
