"""Mixtures of fixed components in a row, by shares of them that a network gives."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from tzk_plugin_glow.pixels import FLOOR


def shares_of(parameters: Tensor, start: Tensor, areas: Tensor) -> Tensor:
    """The shares of components, of which `FLOOR` makes a uniform distribution.

    Args:
        parameters: logits, less those of `start`, (batch, count, …).
        start: the shares where the logits are zero, (count,).
        areas: the shares that together are uniform, up to a factor, (count,).
    """
    every = [-1, *[1] * (parameters.dim() - 2)]
    shares = functional.softmax(parameters + start.log().view(every), 1)
    return (1 - FLOOR) * shares + FLOOR * (areas / areas.sum()).view(every)


def around(shares: Tensor) -> tuple[Tensor, Tensor]:
    """The sums of `shares`, (batch, count, …), before and after each, without cancellation in either tail."""
    return shares.cumsum(1) - shares, shares.flip(1).cumsum(1).flip(1) - shares


def gather(table: Tensor, index: Tensor) -> Tensor:
    """`table`, (batch, n, …), at `index`, (batch, …)."""
    return table.gather(1, index.unsqueeze(1)).squeeze(1)
