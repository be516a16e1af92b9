"""Corruptions of validation images, on which a score is chosen without outside data."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

BLOCK = 8


def corrupted(images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
    """By name, corrupted images, each uint8 (n, 1, 32, 32), as the input.

    They are fixed: blocks shuffled, quadrants of others, two images at once, blurred, thickened, thinned, rotated by a
    right angle, and halved in size. No mirror image is among them, as one is held back.
    """
    x = images.float()
    orders = [torch.randperm(len(x), generator=generator) for _ in range(4)]
    quadrants = x.clone()
    quadrants[:, :, :16, 16:] = x[orders[0]][:, :, :16, 16:]
    quadrants[:, :, 16:, :16] = x[orders[1]][:, :, 16:, :16]
    quadrants[:, :, 16:, 16:] = x[orders[2]][:, :, 16:, 16:]
    half = functional.interpolate(x, scale_factor=0.5, mode="bilinear", antialias=True, align_corners=False)
    made = {
        "blocks shuffled": _shuffled(x, generator),
        "quadrants of four": quadrants,
        "two at once": torch.maximum(x, x[orders[3]]),
        "blurred": functional.avg_pool2d(x, 3, 1, 1),
        "thickened": functional.max_pool2d(x, 3, 1, 1),
        "thinned": functional.pad(-functional.max_pool2d(-x, 2, 1), (0, 1, 0, 1)),
        "rotated by 90°": x.rot90(1, (2, 3)),
        "halved in size": functional.pad(half, (8, 8, 8, 8)),
    }
    return {name: value.round().clamp(0, 255).to(torch.uint8) for name, value in made.items()}


def _shuffled(x: Tensor, generator: torch.Generator) -> Tensor:
    """Blocks of 8×8 pixels in random order."""
    side = x.shape[-1] // BLOCK
    blocks = x.unfold(2, BLOCK, BLOCK).unfold(3, BLOCK, BLOCK).reshape(len(x), side * side, BLOCK, BLOCK)
    order = torch.stack([torch.randperm(side * side, generator=generator) for _ in range(len(x))])
    mixed = blocks[torch.arange(len(x))[:, None], order].view(len(x), side, side, BLOCK, BLOCK)
    return mixed.permute(0, 1, 3, 2, 4).reshape(x.shape)
