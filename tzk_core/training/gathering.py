"""Tables whose rows processes have divided, and what stands for the rows of others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from tzk_core.world import World

CHUNK = 2**24
"""So many bytes of a table are gathered at once."""


def absent(like: Tensor) -> Tensor:
    """What stands for another process's tensor: nan, in the memory of one number."""
    return like.new_full((), torch.nan).expand(like.shape)


def present(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state without what is `absent`, as far as it has more numbers than one."""
    return {key: value for key, value in state.items() if value.numel() <= 1 or any(value.stride())}


def gathered(world: World, own: Tensor, rows: Sequence[int], *, count: int, take: bool) -> Tensor:
    """A table of all rows, of those that every process has.

    It is `own` if it is not to be taken. What is summed are bytes, one process having them and the others zeros, so
    that nothing is rounded.
    """
    whole = own.new_empty(count if take else 0, *own.shape[1:])
    chunk = max(1, CHUNK // (own.shape[1] * own.element_size()))
    index = torch.tensor(rows, dtype=torch.int64)
    for start in range(0, count, chunk):
        part = own.new_zeros(min(chunk, count - start), *own.shape[1:])
        here = torch.nonzero((index >= start) & (index < start + chunk)).squeeze(1)
        part[(index[here] - start).to(own.device)] = own[here.to(own.device)]
        world.sum(part.view(torch.uint8))
        if take:
            whole[start : start + chunk] = part
    return whole if take else own
