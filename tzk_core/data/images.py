"""Images: reading one from a file, padding and resizing."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torch.nn import functional

from tzk_core.errors import TzkError
from tzk_core.files import check_regular

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""What these suffixes stand for; nothing else is opened, whatever it is called: Pillow hands an EPS to Ghostscript."""

COLOURS = {"grey": "L", "rgb": "RGB"}
GROUNDS = {"white": 255, "black": 0}
MOST_PIXELS = 2**26
"""Of one image: 8192 x 8192. A file of a few hundred bytes may declare more than there is memory for."""

CHUNK = 1024  # images resized at a time, so that the float copies of a large set need little memory

_DEEP_MODES = frozenset(["I", "F", "I;16", "I;16B", "I;16L", "I;16N"])
_MOVING = frozenset(["GIF", "PNG", "TIFF", "WEBP"])  # an MPO is a photograph and smaller copies of it
_ORIENTATION = 0x0112
_ON_THEIR_SIDE = (5, 6, 7, 8)


def read_image(file: Path, colour: str, what: str, ground: str = "white") -> Tensor:
    """The image in a file as it is looked at, uint8 `(c, h, w)`; c is 1 for `colour` "grey" and 3 for "rgb".

    Turned as a camera says in EXIF; what is transparent shows the `ground`. Raises TzkError, beginning with `what` and
    naming the file, if it is no image, is damaged or too large, has several frames or more than 8 bits a channel, or
    if what it shows has the colour of the ground.
    """
    with open_image(file, what) as image:
        try:
            with _without_warnings():
                pixels = _pixels(image, COLOURS[colour], GROUNDS[ground])
        except TzkError as error:
            raise TzkError(f"{what}: {file} {error}") from None
        except Exception as error:  # decoders of damaged files raise whatever they come upon
            raise _unreadable(file, error, what) from error
    return torch.from_numpy(pixels).reshape(*pixels.shape[:2], -1).permute(2, 0, 1)


def open_image(file: Path, what: str) -> Image.Image:
    """The file opened, its pixels not read yet; TzkError as `read_image` raises it."""
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
    """Width and height of an image as it is looked at; TzkError as `read_image` raises it."""
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


def _laid_on(image: Image.Image, level: int, mode: str) -> np.ndarray:
    """What an RGBA image looks like on paper of one grey level."""
    paper = Image.new("RGBA", image.size, (level, level, level, 255))
    return np.array(Image.alpha_composite(paper, image).convert(mode))


def _is_deep(image: Image.Image) -> bool:
    """Whether a channel has more than 8 bits, of which Pillow would keep the first 8 without a word."""
    given = [tile[3] if isinstance(tile[3], tuple) else (tile[3],) for tile in getattr(image, "tile", ())]
    raw = [str(argument) for arguments in given for argument in arguments]
    deep_raw = any(each.split(";")[-1].startswith(("16", "32")) for each in raw if ";" in each)
    above = image.format == "PPM" and any(each.isdecimal() and int(each) > 255 for each in raw)
    return image.mode in _DEEP_MODES or deep_raw or above


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


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Pillow warns of what it skips in a damaged file, and of sizes above a limit that is higher than ours."""
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
