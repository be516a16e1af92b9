"""Checks of what a user passes to a model: shape, type and finiteness, said before anything is computed."""

from __future__ import annotations

import torch
from torch import Tensor

from tzk_core.errors import TzkError


def check_observations(T: Tensor, shape: tuple[int, ...], what: str = "T") -> None:
    """Raises `TzkError` unless T is a finite, floating, non-empty (batch, *shape)."""
    expected = "(batch, " + ", ".join(map(str, shape)) + ")"
    if T.dim() != len(shape) + 1 or tuple(T.shape[1:]) != tuple(shape):
        raise TzkError(f"{what} is expected as {expected}; got {tuple(T.shape)}")
    if T.shape[0] == 0:
        raise TzkError(f"{what} is an empty batch: {tuple(T.shape)}")
    if not T.is_floating_point():
        raise TzkError(
            f"{what} is expected in floating point; got {T.dtype}. "
            "Dequantise grey levels first: tzk_core.data.dequantise.dequantise"
        )
    if not torch.isfinite(T).all():
        row = int((~torch.isfinite(T.flatten(1)).all(1)).nonzero()[0])
        raise TzkError(f"{what} holds nan or infinity, first in row {row}")


def check_characteristics(C: Tensor, batch: int, length: int, name: str) -> None:
    """Raises `TzkError` unless C is a finite (batch, length)."""
    if C.dim() != 2 or tuple(C.shape) != (batch, length):
        raise TzkError(
            f"characteristics of knowledge type {name!r} are expected as ({batch}, {length}); got {tuple(C.shape)}"
        )
    if not torch.isfinite(C).all():
        raise TzkError(f"characteristics of knowledge type {name!r} hold nan or infinity")
