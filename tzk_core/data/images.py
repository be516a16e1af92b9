"""Images: reading one from a file, padding and resizing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from tzk_core.errors import TzkError

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
COLOURS = {"grey": "L", "rgb": "RGB"}
CHUNK = 1024  # images resized at a time, so that the float copies of a large set need little memory

_UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)  # what Pillow raises
_DEEP_MODES = frozenset(["I", "F", "I;16", "I;16B", "I;16L", "I;16N"])


def read_image(file: Path, colour: str, what: str) -> Tensor:
    """The image in a file, uint8 `(c, h, w)`; c is 1 for `colour` "grey" and 3 for "rgb".

    Raises TzkError, beginning with `what` and naming the file, if it is no image, is damaged, or has more than 8 bits
    a pixel.
    """
    with open_image(file, what) as image:
        if image.mode in _DEEP_MODES:
            raise TzkError(f"{what}: {file} has more than 8 bits a pixel ({image.mode}): convert it")
        try:
            pixels = np.array(image.convert(COLOURS[colour]))
        except _UNREADABLE as error:
            raise _unreadable(file, error, what) from error
    return torch.from_numpy(pixels).reshape(*pixels.shape[:2], -1).permute(2, 0, 1)


def open_image(file: Path, what: str) -> Image.Image:
    """The file opened, its pixels not read yet; TzkError as `read_image` raises it."""
    try:
        return Image.open(file)
    except _UNREADABLE as error:
        raise _unreadable(file, error, what) from error


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


def _unreadable(file: Path, error: Exception, what: str) -> TzkError:
    return TzkError(f"{what}: cannot read the image {file} ({error}): replace or remove it")
