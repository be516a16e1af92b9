"""Arguments for the operators of the kernels: sizes, values and where they lie in memory."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

BOUND = 1.5
LIMIT = 2.0
KNEES = (0.0, 0.5, 1.0)
"""Of SymLog; 0 stands for none. The values of `affine` lie on both sides of them."""
SIZES = {"one": (1, 1, 1), "odd": (2, 9, 300), "none": (1, 0, 4), "wide": (1, 3, 1500)}
"""Groups, batch and dimensions."""


def affine(
    size: tuple[int, int, int], dtype: torch.dtype = torch.float64, scale: float = 2.0, *, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """x, raw_log_scale and shift."""
    source = torch.Generator().manual_seed(seed)
    groups, batch, dims = size
    x, raw, shift = (
        torch.randn(*shape, generator=source, dtype=torch.float64)
        for shape in ((groups, batch, dims), (groups, dims), (groups, dims))
    )
    return (scale * x).to(dtype), raw.to(dtype), shift.to(dtype)


def tiled(size: tuple[int, int, int, int], dtype: torch.dtype = torch.float64) -> tuple[Tensor, ...]:
    """rows, weight, raw_log_scale and shift, of groups, batch, tiles and dimensions."""
    groups, batch, tiles, dims = size
    source = torch.Generator().manual_seed(0)
    shapes = (groups, batch * tiles, dims), (groups, dims, dims), (groups, tiles, dims), (groups, tiles, dims)
    return tuple(torch.randn(*shape, generator=source, dtype=torch.float64).to(dtype) for shape in shapes)


def mixture(
    batch: int, components: int, n: int, *, dtype: torch.dtype = torch.float64, scale: float = 2.0
) -> tuple[Tensor, Tensor]:
    """x and the parameters of its mixture and affine map."""
    source = torch.Generator().manual_seed(0)
    x = scale * torch.randn(batch, n, generator=source, dtype=torch.float64)
    return x.to(dtype), torch.randn(batch, 3 * components + 2, n, generator=source, dtype=torch.float64).to(dtype)


def strided(tensor: Tensor) -> Tensor:
    """The same values in other places of memory."""
    return tensor.transpose(0, -1).contiguous().transpose(0, -1)


def differences(found: tuple[Tensor, ...], expected: tuple[Tensor, ...], floor: float = 1e-30) -> Iterator[float]:
    """Of each tensor the largest difference, relative to its largest value or to `floor`, whichever is more."""
    for mine, its in zip(found, expected, strict=True):
        assert mine.shape == its.shape and mine.dtype == its.dtype
        yield (mine - its).abs().max().item() / max(its.abs().max().item(), floor) if its.numel() else 0.0
