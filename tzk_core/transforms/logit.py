"""The logit, from the unit interval to the real line (Real NVP, Section 4.1)."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from tzk_core.errors import TzkError
from tzk_core.transforms.layer import Layer


class Logit(Layer):
    """y = logit(α + (1 - 2α) x), element by element.

    x is in [0, 1]. Real NVP takes α = 0.05. A small α, such as 1e-6, spreads the background's spike out instead of
    pressing it against an edge, which leaves the flow much less to unfold.

    Raises:
        TzkError: if alpha is below 1e-7, or 0.5 or more.
    """

    def __init__(self, shape: tuple[int, ...], alpha: float = 1e-6) -> None:
        super().__init__()
        if not 1e-7 <= alpha < 0.5:
            raise TzkError(f"logit expects 1e-7 <= alpha < 0.5, below which float32 rounds 1 - alpha to 1; got {alpha}")
        self.output_shape = tuple(shape)
        self.alpha = alpha

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        scaled = self.alpha + (1 - 2 * self.alpha) * inputs
        log_p, log_q = torch.log(scaled), torch.log1p(-scaled)
        return log_p - log_q, self._constant(inputs) - (log_p + log_q).flatten(1).sum(1)

    def inverse(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        # log(p (1 - p)) from the logit itself: p rounds to 1 where 1 - p is still exact here.
        log_pq = -(functional.softplus(inputs) + functional.softplus(-inputs))
        outputs = (torch.sigmoid(inputs) - self.alpha) / (1 - 2 * self.alpha)
        return outputs, log_pq.flatten(1).sum(1) - self._constant(inputs)

    def _constant(self, inputs: Tensor) -> float:
        return inputs[0].numel() * math.log1p(-2 * self.alpha)
