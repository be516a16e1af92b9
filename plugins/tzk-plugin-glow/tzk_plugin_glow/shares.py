"""Mixtures of components in a row: the shares of two neighbours, and of all that lies on both sides."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor


class Around(NamedTuple):
    """Of components in a row: the sum before the first of two, these two, and the sum after the second."""

    before: Tensor
    first: Tensor
    second: Tensor
    after: Tensor


def around(shares: Tensor, first: Tensor, second: Tensor) -> Around:
    """The shares of two components and the sums on both sides, without cancellation in either tail.

    Args:
        shares: (batch, count, …).
        first, second: numbers of components, (batch, …); the second is the first or the next.
    """
    return Around(*_Around.apply(shares, first.unsqueeze(1), second.unsqueeze(1)))


class _Around(torch.autograd.Function):
    """`around` with a gradient that is written once, where its sums and choices would write one each: a third of the
    time."""

    generate_vmap_rule = True

    @staticmethod
    def forward(shares: Tensor, first: Tensor, second: Tensor) -> tuple[Tensor, ...]:
        before, after = _sides(shares, first, second)
        at_first, at_second = shares.gather(1, first), shares.gather(1, second)
        return (shares * before).sum(1), at_first.squeeze(1), at_second.squeeze(1), (shares * after).sum(1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        shares, first, second = ctx.saved_tensors
        before, after = _sides(shares, first, second)
        of_before, of_first, of_second, of_after = (gradient.unsqueeze(1) for gradient in gradients)
        gradient = torch.addcmul(of_before * before, of_after, after)
        return gradient.scatter_add(1, first, of_first).scatter_add(1, second, of_second), None, None


def _sides(shares: Tensor, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """1 for the components before the first, and for those after the second, else 0."""
    every = [-1, *[1] * (shares.dim() - 2)]
    number = torch.arange(shares.shape[1], device=shares.device, dtype=shares.dtype).view(every)
    return (first.to(number) - number).clamp(0, 1), (number - second.to(number)).clamp(0, 1)
