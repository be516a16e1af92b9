"""Padding and resizing of grey-level images."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

CHUNK = 1024  # images resized at a time, so that the float copies of a large set need little memory


def pad(images: Tensor, size: int) -> Tensor:
    """`(n, c, h, w)` -> `(n, c, size, size)`: zeros around the image, the odd one to the right and below."""
    rows, columns = size - images.shape[-2], size - images.shape[-1]
    return functional.pad(images, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2))


def resize(images: Tensor, size: int) -> Tensor:
    """uint8 `(n, c, h, w)` -> uint8 `(n, c, size, size)`: antialiased bilinear, rounded to 8 bits."""
    result = torch.empty(*images.shape[:2], size, size, dtype=torch.uint8)
    for chunk, target in zip(images.split(CHUNK), result.split(CHUNK), strict=True):
        smooth = functional.interpolate(chunk.float(), (size, size), mode="bilinear", antialias=True)
        target.copy_(smooth.round_().clamp_(0, 255))
    return result
