"""Strokes drawn into grey-level images: polylines, bent and slanted at random, with antialiased ink."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Points = Sequence[tuple[float, float]]

FACTORS = ("slant", "thickness", "scale", "shift_x", "shift_y")
LIMIT = 2.0  # factors are standard normal, cut off here so that glyphs stay within the frame
FRAME = 0.66  # a glyph of normal scale reaches this far up and down, where half the frame's side is 1
THICKNESS = 0.2  # of a normal stroke: 1.6 pixels of 16
BEND = 0.05  # how far the wobble of the hand moves a point
CHUNK = 512  # images drawn at a time, which bounds the memory for distances


@dataclass(frozen=True)
class Factors:
    """The factors of glyphs besides their class, (n,) each, in standard deviations.

    slant: to the right. thickness: log, of the stroke. scale: of the glyph. shift_x: to the right. shift_y: upwards.
    """

    slant: np.ndarray
    thickness: np.ndarray
    scale: np.ndarray
    shift_x: np.ndarray
    shift_y: np.ndarray

    @classmethod
    def sampled(cls, count: int, random: np.random.Generator) -> Factors:
        """Sample independent standard normal factors of `count` glyphs, clipped at `LIMIT`."""
        values = random.standard_normal((len(FACTORS), count)).clip(-LIMIT, LIMIT)
        return cls(*values.astype(np.float32))


def arc(
    centre: tuple[float, float], half_axes: tuple[float, float], degrees: tuple[float, float], *, pieces: int = 8
) -> list[tuple[float, float]]:
    """Points on an ellipse, from the first of these angles to the second."""
    (x, y), (width, height) = centre, half_axes
    angles = np.radians(np.linspace(*degrees, pieces + 1))
    return [(x + width * float(np.cos(angle)), y + height * float(np.sin(angle))) for angle in angles]


def render(strokes: Sequence[Points], factors: Factors, *, size: int, random: np.random.Generator) -> np.ndarray:
    """Draw a glyph with n rows of factors.

    Args:
        strokes: polylines, with x to the right and y upwards, within 1 of the middle.
        factors: (n,) each.
        size: the side of the images, in pixels.

    Returns:
        (n, size, size) uint8, 0 where there is no ink.
    """
    starts = np.array([point for stroke in strokes for point in stroke[:-1]], dtype=np.float32)
    stops = np.array([point for stroke in strokes for point in stroke[1:]], dtype=np.float32)
    phases = random.uniform(0, 2 * np.pi, (len(factors.slant), 2)).astype(np.float32)
    starts, stops = _placed(starts, factors, phases), _placed(stops, factors, phases)
    radius = THICKNESS / 2 * np.exp(0.25 * factors.thickness)
    images = np.empty((len(radius), size, size), dtype=np.uint8)
    for first in range(0, len(radius), CHUNK):
        rows = slice(first, first + CHUNK)
        distance = _distance(starts[rows], stops[rows], size)
        ink = ((radius[rows, None] - distance) * (size / 2) + 0.5).clip(0, 1)  # covered share of each pixel
        images[rows] = np.rint(255 * ink).astype(np.uint8).reshape(-1, size, size)
    return images


def _placed(points: np.ndarray, factors: Factors, phases: np.ndarray) -> np.ndarray:
    """Transform points, (m, 2), by n rows of factors, (n, m, 2)."""
    x, y = points[:, 0], points[:, 1]
    bent_x = x + BEND * np.sin(3 * y + phases[:, :1])
    bent_y = y + BEND * np.sin(3 * x + phases[:, 1:])
    scale = FRAME * (1 + 0.07 * factors.scale)[:, None]
    slanted = bent_x + 0.2 * factors.slant[:, None] * bent_y
    return np.stack(
        [
            scale * slanted + 0.06 * factors.shift_x[:, None],
            scale * bent_y + 0.06 * factors.shift_y[:, None],
        ],
        axis=2,
    )


def _distance(starts: np.ndarray, stops: np.ndarray, size: int) -> np.ndarray:
    """The distance of the middle of every pixel to the nearest segment.

    Args:
        starts, stops: (n, m, 2), of m segments.

    Returns:
        (n, size * size).
    """
    ticks = (2 * np.arange(size, dtype=np.float32) + 1) / size - 1
    pixel_x, pixel_y = np.tile(ticks, size), np.repeat(-ticks, size)  # rows go down, y goes up
    nearest = np.full((len(starts), size * size), np.inf, dtype=np.float32)
    for segment in range(starts.shape[1]):
        origin, along = starts[:, segment], stops[:, segment] - starts[:, segment]
        dx, dy = pixel_x - origin[:, :1], pixel_y - origin[:, 1:]
        share = (dx * along[:, :1] + dy * along[:, 1:]) / np.maximum((along**2).sum(1, keepdims=True), 1e-12)
        share = share.clip(0, 1)
        dx -= share * along[:, :1]
        dy -= share * along[:, 1:]
        np.minimum(nearest, dx * dx + dy * dy, out=nearest)
    return np.sqrt(nearest)
