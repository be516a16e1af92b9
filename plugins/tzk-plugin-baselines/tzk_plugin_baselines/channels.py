"""The levels of Glow: half of the channels leave after every level but the last."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
from nflows.transforms.base import Transform
from torch import Tensor, nn

from tzk_core.transforms.composite import initialise


class Multiscale(Transform):
    """Levels one after the other, (channels, height, width) to (dims,).

    After every level but the last the first half of the channels leaves, and the other half goes on. This is nflows'
    MultiscaleCompositeTransform as a pure function, whose parts can start from data.
    """

    def __init__(self, levels: Sequence[Transform], shapes: Sequence[tuple[int, ...]]) -> None:
        """`shapes` are the output shapes of the levels, (channels, height, width)."""
        super().__init__()
        self.levels = nn.ModuleList(levels)
        last = len(shapes) - 1
        self._done = [(c if number == last else c // 2, *sides) for number, (c, *sides) in enumerate(shapes)]
        self.output_shape = (sum(map(math.prod, self._done)),)

    @torch.no_grad()
    def initialise(self, inputs: Tensor) -> None:
        """Initialise the levels from data, one after the other; `inputs` are (batch, c, h, w)."""
        for level, done in zip(self.levels, self._done, strict=True):
            inputs = initialise(level, inputs)[:, done[0] :]

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
