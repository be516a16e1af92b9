"""The slant and the thickness of handwritten strokes, measured from images."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

CHUNK = 256  # images at a time; with 1024 the float copies leave the processor's cache, which takes twice the time


def slant(images: np.ndarray) -> np.ndarray:
    """Slant: the pixels to the right for each pixel upwards.

    It is the shear of second moments under the ink, cov(x, y) / var(y), with x to the right and y upwards, which
    deskewing undoes. Shearing an image by s adds exactly s.

    Args:
        images: (n, height, width), bright ink on 0.

    Returns:
        (n,) float32, nan where there is no ink, or all of it is in one row.
    """
    return _measured(_slant, images)


def thickness(images: np.ndarray) -> np.ndarray:
    """Thickness of strokes: twice the area of the ink over the length of its outline.

    That is the width of a closed stroke. The ends of an open stroke are outline too, so that one of width w and length
    l has w l / (l + w). Grey levels are the covered share of a pixel. The length of the outline is the image's total
    variation, which soft edges do not change. A stroke below 2 pixels has no two separate edges, and may look up to 2
    wide.

    Args:
        images: (n, height, width) uint8, bright ink on 0.

    Returns:
        (n,) float32, in pixels, nan where there is no ink.
    """
    return _measured(_thickness, images)


def _measured(measure: Callable[[np.ndarray], np.ndarray], images: np.ndarray) -> np.ndarray:
    """Measure images in chunks, (n,), with nan where a ratio has no denominator."""
    with np.errstate(invalid="ignore"):
        chunks = [measure(images[first : first + CHUNK].astype(np.float32)) for first in range(0, len(images), CHUNK)]
    return np.concatenate([np.empty(0, dtype=np.float32), *chunks])


def _slant(ink: np.ndarray) -> np.ndarray:
    """Slant, from moments of the ink in one pass over the pixels."""
    _, height, width = ink.shape
    y, x = np.meshgrid((height - 1) / 2 - np.arange(height), np.arange(width) - (width - 1) / 2, indexing="ij")
    powers = np.stack([np.ones_like(x), x, y, x * y, y * y], axis=-1).reshape(height * width, -1)
    area, of_x, of_y, of_xy, of_yy = (ink.reshape(len(ink), -1).astype(np.float64) @ powers).T
    covariance, variance = area * of_xy - of_x * of_y, area * of_yy - of_y**2
    # sums of 8-bit ink at half-integer positions are exact, so that one row has a variance of exactly 0
    return (covariance / np.where(variance > 0, variance, np.nan)).astype(np.float32)


def _thickness(ink: np.ndarray) -> np.ndarray:
    """Thickness, by gradients in the middle of any four pixels.

    Pixels beyond the edge are empty.
    """
    framed = np.pad(ink, ((0, 0), (1, 1), (1, 1)))
    falling = framed[:, 1:, 1:] - framed[:, :-1, :-1]
    rising = framed[:, 1:, :-1] - framed[:, :-1, 1:]
    outline = np.sqrt((falling * falling + rising * rising) / 2).sum(axis=(1, 2))
    return 2 * ink.sum(axis=(1, 2)) / np.where(outline > 0, outline, np.nan)
