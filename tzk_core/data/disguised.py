"""Grey levels in the guise of real numbers, whose density means nothing."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from tzk_core.errors import Note

FEWEST = 8
"""Distinct values below which data are no images: indicators and small counts also lie on the grid."""


def are_grey_levels(T: Tensor, most: int = 200_000) -> bool:
    """Whether real values are multiples of 1/255 in [0, 1].

    Args:
        T: (n, *shape); nan is missing.
        most: so many values are looked at, spread over all.
    """
    flat = T.flatten()
    values = flat[:: max(1, len(flat) // most)].double()
    values = values[~values.isnan()]
    if not len(values) or values.min() < 0 or values.max() > 1:
        return False
    levels = 255 * values
    on_grid = (levels - levels.round()).abs().max() < 1e-3
    return bool(on_grid) and len(levels.round().unique()) >= FEWEST


def warn_of_grey_levels(T: Tensor, where: str, line: str) -> None:
    """Warn of real values that are grey levels.

    Args:
        line: the line of code or config that makes levels of them.
    """
    if torch.is_floating_point(T) and are_grey_levels(T):
        warnings.warn(
            f"{where}: these real values are grey levels over 255. A density of such points grows without limit, and "
            f"its bits are not those of images. Make them levels: {line}",
            Note,
            stacklevel=3,
        )
