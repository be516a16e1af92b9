"""Many images as one, small enough to stand within a page."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, features
from torch import Tensor

QUALITIES = (90, 75, 55, 35)
"""Of the lossy format, tried in this order until the picture is small enough."""

LARGEST_SIDE = 4096
"""Pixels of a sprite's side; browsers decode more, slowly."""


@dataclass(frozen=True)
class Sprite:
    """Images row by row in one picture.

    Attributes:
        uri: the picture, as a data URI.
        count, columns: images in all, and in a row.
        width, height: of one image, in pixels of the sprite.
        gap: pixels between images.
    """

    uri: str
    count: int
    columns: int
    width: int
    height: int
    gap: int = 0

    @property
    def rows(self) -> int:
        return -(-self.count // self.columns)

    @property
    def sheet(self) -> tuple[int, int]:
        """Width and height of the whole, in pixels."""
        return (
            self.columns * (self.width + self.gap) - self.gap,
            self.rows * (self.height + self.gap) - self.gap,
        )


def is_image(shape: tuple[int, ...]) -> bool:
    """Whether observations of this shape can be shown as pictures: (1 or 3, height, width)."""
    return len(shape) == 3 and shape[0] in (1, 3)


def sprite(images: Tensor, columns: int, *, gap: int = 0, budget: int = 120_000) -> Sprite:
    """Put images into one picture of at most about `budget` bytes.

    Args:
        images: (n, C, H, W) in [0, 1], C of 1 or 3. Values outside are clipped, nan is mid-grey.
        gap: mid-grey pixels between images.
    """
    pixels = (torch.nan_to_num(images.detach().float().cpu(), nan=0.5).clamp(0, 1) * 255).round().byte()
    while True:
        n, _, height, width = pixels.shape
        sheet = _sheet(pixels, columns, gap)
        fits = max(sheet.size) <= LARGEST_SIDE
        for quality in QUALITIES:
            data, mime = _encoded(sheet, quality)
            if fits and len(data) <= budget:
                break
        if (fits and len(data) <= budget) or min(height, width) < 16:
            uri = f"data:image/{mime};base64,{base64.b64encode(data).decode('ascii')}"
            return Sprite(uri, n, columns, width, height, gap)
        pixels = torch.nn.functional.avg_pool2d(pixels.float(), 2).round().byte()


def _sheet(pixels: Tensor, columns: int, gap: int) -> Image.Image:
    """The images row by row, (n, C, H, W) in uint8, as one picture."""
    n, channels, height, width = pixels.shape
    rows = -(-n // columns)
    cell_height, cell_width = height + gap, width + gap
    sheet = np.full((rows * cell_height, columns * cell_width, channels), 128, np.uint8)
    for index, image in enumerate(pixels.permute(0, 2, 3, 1).numpy()):
        top, left = index // columns * cell_height, index % columns * cell_width
        sheet[top : top + height, left : left + width] = image
    whole = sheet[: rows * cell_height - gap, : columns * cell_width - gap]
    return Image.fromarray(whole[..., 0] if channels == 1 else whole)


def _encoded(picture: Image.Image, quality: int) -> tuple[bytes, str]:
    """The picture in the smallest format that is here."""
    file = io.BytesIO()
    mime = "webp" if features.check("webp") else "jpeg"
    picture.save(file, mime.upper(), quality=quality)
    return file.getvalue(), mime
