"""Small random affine maps of images, as the hands of drawers differ."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def affine_maps(count: int, generator: torch.Generator, *, amount: float = 1.0) -> Tensor:
    """Sample affine maps: a rotation, scales, a shear and a shift in one.

    They are (count, 2, 3), of coordinates from -1 to 1.

    Args:
        amount: 0 gives identities. At 1 deviations are 6 degrees, 8 % and 1 pixel in 28.
    """
    random = amount * torch.randn(count, 6, generator=generator)
    angle, stretch = 0.1 * random[:, 0], 0.08 * random[:, 1:3]
    shear, shift = 0.08 * random[:, 3], 0.07 * random[:, 4:]
    cos, sin = angle.cos(), angle.sin()
    rows = torch.stack([cos * (1 + stretch[:, 0]), -sin + shear, shift[:, 0]], 1)
    columns = torch.stack([sin, cos * (1 + stretch[:, 1]), shift[:, 1]], 1)
    return torch.stack([rows, columns], 1)


def mapped(images: Tensor, maps: Tensor) -> Tensor:
    """Images under affine maps.

    Args:
        images: (n, c, h, w), 0 the ground.
        maps: (n, 2, 3).
    """
    grid = functional.affine_grid(maps.to(images), list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, align_corners=False)


def augmented(images: Tensor, generator: torch.Generator, *, amount: float = 1.0) -> Tensor:
    """Images, (n, c, h, w), each under an affine map of its own.

    `amount` is as in `affine_maps`.
    """
    return mapped(images, affine_maps(len(images), generator, amount=amount))
