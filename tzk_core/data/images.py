"""Image files, read, padded and resized."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torch.nn import functional

from tzk_core.errors import TzkError
from tzk_core.files import check_regular

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""Formats of these suffixes. Nothing else is opened, whatever its name, since Pillow hands an EPS to Ghostscript."""

COLOURS = {"grey": "L", "rgb": "RGB"}
GROUNDS = {"white": 255, "black": 0}
MOST_PIXELS = 2**26
"""The most pixels of one image, 8192 x 8192: a file of a few hundred bytes may declare more than fits into memory."""

CHUNK = 1024  # images resized at a time, so that the float copies of a large set need little memory

_DEEP_MODES = frozenset(["I", "F", "I;16", "I;16B", "I;16L", "I;16N"])
_MOVING = frozenset(["GIF", "PNG", "TIFF", "WEBP"])  # an MPO is a photograph and smaller copies of it
_ORIENTATION = 0x0112
_ON_THEIR_SIDE = (5, 6, 7, 8)


def read_image(file: Path, colour: str, what: str, *, ground: str = "white") -> Tensor:
    """Read an image, turned as EXIF says.

    Args:
        colour: "grey" or "rgb".
        what: the beginning of messages.
        ground: "white" or "black", the paper behind a transparent image.

    Returns:
        uint8 (c, h, w), with c = 1 for "grey" and 3 for "rgb".

    Raises:
        TzkError: if the file is no image, is damaged or too large, or has several frames or more than 8 bits a channel.
            Also if the whole picture has the colour of the ground.
    """
    with open_image(file, what) as image:
        try:
            with _without_warnings():
                pixels = _pixels(image, COLOURS[colour], GROUNDS[ground])
        except TzkError as error:
            raise TzkError(f"{what}: {file} {error}") from None
        except Exception as error:  # decoders of damaged files raise all sorts of errors
            raise _unreadable(file, error, what) from error
    return torch.from_numpy(pixels).reshape(*pixels.shape[:2], -1).permute(2, 0, 1)


def open_image(file: Path, what: str) -> Image.Image:
    """Open an image without reading its pixels; errors are those of `read_image`."""
    try:
        check_regular(file)
        with _without_warnings():
            image = Image.open(file, formats=FORMATS)
    except Image.DecompressionBombError:
        raise _too_large(file, "far too many", what) from None
    except TzkError as error:
        raise TzkError(f"{what}: {error}: remove it") from None
    except Exception as error:  # as above
        raise _unreadable(file, error, what) from error
    if image.width * image.height > MOST_PIXELS:
        image.close()
        raise _too_large(file, f"{image.width:,} x {image.height:,}", what)
    return image


def size_of(file: Path, what: str) -> tuple[int, int]:
    """Width and height of an image after it is turned; errors are those of `read_image`."""
    with open_image(file, what) as image:
        try:
            with _without_warnings():
                turned = image.getexif().get(_ORIENTATION) in _ON_THEIR_SIDE
        except Exception as error:  # as above
            raise _unreadable(file, error, what) from error
        return (image.height, image.width) if turned else (image.width, image.height)


def _pixels(image: Image.Image, mode: str, ground: int) -> np.ndarray:
    """`(h, w)` or `(h, w, 3)` uint8; TzkError says why it cannot be."""
    if _is_deep(image):
        raise TzkError(f"has more than 8 bits a channel ({image.mode}): convert it to 8, whose range only you know")
    if image.format in _MOVING and getattr(image, "n_frames", 1) > 1:
        raise TzkError(f"has {image.n_frames} frames, expected one image a file: save each as one")  # type: ignore[attr-defined]
    if image.format == "BMP":
        image = _with_fourth_channel(image)
    ImageOps.exif_transpose(image, in_place=True)
    if not image.has_transparency_data:
        return np.array(image.convert(mode))
    seen = image.convert("RGBA")
    pixels, opposite = (_laid_on(seen, level, mode) for level in (ground, 255 - ground))
    if np.ptp(pixels) == 0 and np.ptp(opposite) > 0:
        names = {level: name for name, level in GROUNDS.items()}
        raise TzkError(
            f"shows {names[ground]} on a transparent ground, of which nothing is left on {names[ground]}: "
            f'give ground = "{names[255 - ground]}"'
        )
    return pixels


def _with_fourth_channel(image: Image.Image) -> Image.Image:
    """A BMP of 32 bits with its fourth channel as transparency.

    Pillow drops that where the header does not say what it is, which many programs leave out. It means nothing where it
    is the same everywhere.
    """
    tiles = getattr(image, "tile", ())
    arguments = tiles[0][3] if tiles else ()
    if not isinstance(arguments, tuple) or not arguments or arguments[0] != "BGRX":
        return image
    seen = image.copy()
    fourth: Any = Image.open(getattr(image, "filename", ""), formats=("BMP",))
    fourth.tile = [(*tile[:3], ("BGRA", *tile[3][1:])) for tile in fourth.tile]
    fourth._mode = "RGBA"
    alpha = fourth.getchannel("A")
    if alpha.getextrema()[0] != alpha.getextrema()[1]:
        seen.putalpha(alpha)
    return seen


def _laid_on(image: Image.Image, level: int, mode: str) -> np.ndarray:
    """Compose an RGBA image with paper of one grey level."""
    paper = Image.new("RGBA", image.size, (level, level, level, 255))
    return np.array(Image.alpha_composite(paper, image).convert(mode))


def _is_deep(image: Image.Image) -> bool:
    """Whether a channel has more than 8 bits, which Pillow would cut silently."""
    decoders = [tile[3] if isinstance(tile[3], tuple) else (tile[3],) for tile in getattr(image, "tile", ())]
    arguments = [str(argument) for decoder in decoders for argument in decoder]
    deep_raw = any(text.split(";")[-1].startswith(("16", "32")) for text in arguments if ";" in text)
    above = image.format == "PPM" and any(text.isdecimal() and int(text) > 255 for text in arguments)
    return image.mode in _DEEP_MODES or deep_raw or above


def pad(images: Tensor, size: int) -> Tensor:
    """Pad images with zeros; an odd one is to the right or below.

    Args:
        images: (n, c, h, w).

    Returns:
        (n, c, size, size).
    """
    rows, columns = size - images.shape[-2], size - images.shape[-1]
    return functional.pad(images, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2))


def resize(images: Tensor, size: int) -> Tensor:
    """Resize images: antialiased bilinear, rounded to 8 bits.

    Args:
        images: uint8 (n, c, h, w).

    Returns:
        uint8 (n, c, size, size).
    """
    result = torch.empty(*images.shape[:2], size, size, dtype=torch.uint8)
    for chunk, target in zip(images.split(CHUNK), result.split(CHUNK), strict=True):
        smooth = functional.interpolate(chunk.float(), (size, size), mode="bilinear", antialias=True)
        target.copy_(smooth.round_().clamp_(0, 255))
    return result


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Silence Pillow's warnings.

    They are about damaged parts of files that it skips, and about sizes above a limit that is higher than ours.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield


def _too_large(file: Path, pixels: str, what: str) -> TzkError:
    return TzkError(
        f"{what}: {file} has {pixels} pixels, expected at most {MOST_PIXELS:,} in all: scale it down or remove it"
    )


def _unreadable(file: Path, error: Exception, what: str) -> TzkError:
    reason = str(error) or type(error).__name__
    if isinstance(error, UnidentifiedImageError):
        reason = f"it is none of {', '.join(FORMATS)}"
    return TzkError(f"{what}: cannot read the image {file} ({reason}): replace or remove it")
