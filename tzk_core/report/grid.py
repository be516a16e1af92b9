"""A batch of images as one PNG: a grid on white, with optional labels."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

INK = "#282828"
GREY_LEVELS = (256, 64, 32, 16)


def save(
    images: torch.Tensor,
    path: Path,
    columns: int,
    *,
    scale: int | None = None,
    padding: int = 2,
    row_labels: Sequence[str] = (),
    column_labels: Sequence[str] = (),
    rows_together: int = 0,
    caption: str = "",
    limit: int = 300_000,
) -> None:
    """Write `images` row by row as a PNG at `path`; the folder must exist.

    Args:
        images: (n, C, H, W) in [0, 1], C of 1 (grey) or 3 (RGB). Values outside are clipped; nan is mid-grey.
        columns: images in a row; the last row may be shorter.
        scale: the side of the square that a pixel becomes (nearest neighbour). By default the largest for which an
            image has a side of at most 64.
        padding: white between images, in pixels of the file.
        row_labels: text to the left of each row; a newline starts a second line.
        column_labels: text above each column.
        rows_together: the number of rows after which there is a wider gap, 2 for pairs; 0 for no gaps.
        caption: text below the grid.
        limit: the largest size of the file, in bytes. A larger file gets fewer grey levels (64, 32, 16), then a smaller
            scale, then half the resolution.

    Raises:
        ValueError: if the images have another shape, or there are none.
    """
    _check(images, columns)
    if scale is None:
        scale = max(1, 64 // max(images.shape[-2:]))
    values = images.detach().to("cpu", torch.float32).nan_to_num(nan=0.5).clamp(0, 1)
    pixels = values.permute(0, 2, 3, 1).squeeze(-1).numpy()

    for levels, side in _fidelities(scale):
        quantised = _quantised(pixels, levels)
        page = _page(
            quantised,
            columns,
            scale=side,
            padding=padding,
            row_labels=row_labels,
            column_labels=column_labels,
            rows_together=rows_together,
            caption=caption,
        )
        encoded = _png(page, levels)
        if len(encoded) <= limit:
            break
    else:
        while len(encoded) > limit and min(page.size) > 1:
            page = page.reduce(2)
            encoded = _png(page, 256)
    path.write_bytes(encoded)


def _check(images: torch.Tensor, columns: int) -> None:
    if images.ndim != 4 or images.shape[0] == 0 or images.shape[1] not in (1, 3) or columns < 1:
        raise ValueError(
            f"expected images of shape (n, 1 or 3, height, width) with n >= 1 and columns >= 1; "
            f"got {tuple(images.shape)} and columns={columns}"
        )


def _fidelities(scale: int) -> Iterator[tuple[int, int]]:
    """Grey levels and scales, best first."""
    for side in range(scale, 0, -1):
        for levels in GREY_LEVELS:
            yield levels, side


def _quantised(pixels: np.ndarray, levels: int) -> np.ndarray:
    return np.round(np.round(pixels * (levels - 1)) * (255 / (levels - 1))).astype(np.uint8)


def _png(page: Image.Image, levels: int) -> bytes:
    if page.mode == "L" and levels <= 16:  # 4 bits a pixel
        page = page.point([(level * 15 + 127) // 255 for level in range(256)]).convert("P")
        page.putpalette([grey for level in range(16) for grey in (level * 17,) * 3])
    with io.BytesIO() as file:
        page.save(file, "PNG", optimize=True, **({"bits": 4} if page.mode == "P" else {}))
        return file.getvalue()


def _page(
    pixels: np.ndarray,
    columns: int,
    *,
    scale: int,
    padding: int,
    row_labels: Sequence[str],
    column_labels: Sequence[str],
    rows_together: int,
    caption: str,
) -> Image.Image:
    """Lay out grey levels, (n, H, W) or (n, H, W, 3).

    All lengths are in pixels of the file.
    """
    height, width = (side * scale for side in pixels.shape[1:3])
    rows = math.ceil(len(pixels) / columns)
    columns = min(columns, len(pixels))
    font = ImageFont.load_default(size=max(11, min(16, height // 4)))
    margin = max(8, 2 * padding)

    ruler = ImageDraw.Draw(Image.new("L", (1, 1)))

    def extent(text: str) -> tuple[int, int]:
        _, _, right, bottom = ruler.multiline_textbbox((0, 0), text, font=font)
        return math.ceil(right), math.ceil(bottom)

    left = margin + max((extent(text)[0] + margin for text in row_labels), default=0)
    top = margin + max((extent(text)[1] + margin for text in column_labels), default=0)
    gap = 3 * padding + 4

    def corner(row: int, column: int) -> tuple[int, int]:
        between = gap * (row // rows_together) if rows_together else 0
        return left + column * (width + padding), top + row * (height + padding) + between

    last_x, last_y = corner(rows - 1, columns - 1)
    mode = "RGB" if pixels.ndim == 4 else "L"
    right, bottom = last_x + width + margin, last_y + height + margin
    below = extent(caption)[1] + margin if caption else 0
    page = Image.new(mode, (max(right, extent(caption)[0] + 2 * margin), bottom + below), "white")
    for i, image in enumerate(pixels):
        page.paste(Image.fromarray(image.repeat(scale, 0).repeat(scale, 1)), corner(*divmod(i, columns)))

    draw = ImageDraw.Draw(page)
    for row, text in enumerate(row_labels[:rows]):
        middle = corner(row, 0)[1] + height // 2
        draw.multiline_text((left - margin, middle), text, fill=INK, font=font, anchor="rm", align="right")
    for column, text in enumerate(column_labels[:columns]):
        middle = corner(0, column)[0] + width // 2
        draw.multiline_text((middle, top - margin), text, fill=INK, font=font, anchor="md", align="center")
    draw.multiline_text((margin, bottom), caption, fill=INK, font=font)
    return page
