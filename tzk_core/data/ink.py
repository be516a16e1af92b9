"""What handwriting is like, measured from its images: the slant and the thickness of its strokes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

CHUNK = 256  # images measured at a time; of 1024 the float copies leave the processor's cache, at twice the time


def slant(images: np.ndarray) -> np.ndarray:
    """How far writing leans: `(n, height, width)`, ink bright on 0 -> `(n,)` float32, pixels to the right per pixel up.

    The shear of second moments, cov(x, y) / var(y) under the ink, x to the right and y upwards: what deskewing undoes.
    Shearing an image by s adds exactly s, whatever is written there. nan where no ink is, or all of it is in one row.
    """
    return _measured(_slant, images)


def thickness(images: np.ndarray) -> np.ndarray:
    """The width of strokes: `(n, height, width)` uint8, ink bright on 0 -> `(n,)` float32, in pixels.

    Twice the ink's area over the length of its outline. That is the width of a closed stroke; the ends of an open one
    are outline too, so that one w wide and l long has w l / (l + w). Grey levels are covered shares of a pixel, and the
    length of the outline is the image's total variation, which soft edges do not change. Below 2 pixels a stroke has no
    two edges to be seen and may look up to 2 wide. nan where no ink is.
    """
    return _measured(_thickness, images)


def _measured(measure: Callable[[np.ndarray], np.ndarray], images: np.ndarray) -> np.ndarray:
    """`(n,)` values, nan where a ratio has no denominator."""
    with np.errstate(invalid="ignore"):
        chunks = [
            measure(images[first : first + CHUNK].astype(np.float32)) for first in range(0, len(images), CHUNK)
        ]
    return np.concatenate([np.empty(0, dtype=np.float32), *chunks])


def _slant(ink: np.ndarray) -> np.ndarray:
    """One pass over the pixels: the sums of ink times 1, x, y, x y and y y from each image as a vector."""
    _, height, width = ink.shape
    y, x = np.meshgrid((height - 1) / 2 - np.arange(height), np.arange(width) - (width - 1) / 2, indexing="ij")
    powers = np.stack([np.ones_like(x), x, y, x * y, y * y], axis=-1).reshape(height * width, -1)
    area, of_x, of_y, of_xy, of_yy = (ink.reshape(len(ink), -1).astype(np.float64) @ powers).T
    covariance, variance = area * of_xy - of_x * of_y, area * of_yy - of_y**2
    # sums of 8-bit ink by half-integer places are exact, so that one row has a variance of exactly 0
    return (covariance / np.where(variance > 0, variance, np.nan)).astype(np.float32)


def _thickness(ink: np.ndarray) -> np.ndarray:
    """The gradient in the middle of each four pixels, those beyond the edge being empty."""
    framed = np.pad(ink, ((0, 0), (1, 1), (1, 1)))
    falling = framed[:, 1:, 1:] - framed[:, :-1, :-1]
    rising = framed[:, 1:, :-1] - framed[:, :-1, 1:]
    outline = np.sqrt((falling * falling + rising * rising) / 2).sum(axis=(1, 2))
    return 2 * ink.sum(axis=(1, 2)) / np.where(outline > 0, outline, np.nan)
