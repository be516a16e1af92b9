"""The mapped dimension of `torch.vmap` folded into a leading dimension of an operator, and back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor

from tzk_core.transforms.layer import leading


def folded(info: Any, in_dims: Sequence[int | None], tensors: Sequence[Tensor]) -> Iterator[Tensor]:
    """Tensors with the mapped dimension in front and joined with the first of their own."""
    for tensor in leading(info, tuple(in_dims), tuple(tensors)):
        yield tensor.flatten(0, 1)


def unfolded(tensor: Tensor, info: Any, dim: int) -> Tensor:
    """The inverse of `folded`, where the joined dimension is `dim`."""
    return tensor.unflatten(dim, (info.batch_size, tensor.shape[dim] // info.batch_size))
