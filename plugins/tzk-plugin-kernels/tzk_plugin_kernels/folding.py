"""What `torch.vmap` maps over, folded into a leading dimension that an operator has already, and back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor

from tzk_core.transforms.layer import leading


def folded(info: Any, in_dims: Sequence[int | None], given: Sequence[Tensor]) -> Iterator[Tensor]:
    """Tensors with the mapped dimension in front and joined with the first of their own."""
    for each in leading(info, tuple(in_dims), tuple(given)):
        yield each.flatten(0, 1)


def unfolded(tensor: Tensor, info: Any, dim: int) -> Tensor:
    """The inverse of `folded`, where the joined dimension is `dim`."""
    return tensor.unflatten(dim, (info.batch_size, tensor.shape[dim] // info.batch_size))
