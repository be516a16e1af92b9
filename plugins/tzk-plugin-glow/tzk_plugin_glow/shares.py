"""Components in a row: the shares of two neighbours, and the sums on both sides."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor


class Around(NamedTuple):
    """Two components in a row, and the sums on both sides of them."""

    before: Tensor
    first: Tensor
    second: Tensor
    after: Tensor


def around(shares: Tensor, first: Tensor, second: Tensor) -> Around:
    """The shares of two components and the sums on both sides.

    Neither tail has cancellation.

    Args:
        shares: (batch, count, …).
        first, second: numbers of components, (batch, …); the second is the first or the next.
    """
    return Around(*_Around.apply(shares, first.unsqueeze(1), second.unsqueeze(1)))


def sums(shares: Tensor) -> tuple[Tensor, Tensor]:
    """The sums of `shares`, (batch, count, …), before and after each.

    Neither tail has cancellation.
    """
    return shares.cumsum(1) - shares, shares.flip(1).cumsum(1).flip(1) - shares


def gather(table: Tensor, index: Tensor) -> Tensor:
    """`table`, (batch, n, …), at `index`, (batch, …)."""
    return table.gather(1, index.unsqueeze(1)).squeeze(1)


class _Around(torch.autograd.Function):
    """`around` with one gradient for all that it returns.

    Autograd would write one for each, of all components: that takes three times as long.
    """

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
