"""Small sets of drawn glyphs, made in code: digits, invented letters, and signs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from inspect import getdoc

import numpy as np
import torch

from tzk_core.data.protocol import Samples, check_split
from tzk_core.data.splits import check_drawn
from tzk_core.data.strokes import FACTORS, Factors, Points, arc, render
from tzk_core.errors import TzkError
from tzk_core.random_streams import numpy_stream

LARGEST = 8192
"""The largest side of an image in pixels."""

DIGITS: dict[str, Sequence[Points]] = {
    "0": [arc((0, 0), (0.6, 0.95), (90, 450), pieces=14)],
    "1": [[(-0.35, 0.5), (0.1, 0.95), (0.1, -0.95)]],
    "2": [[*arc((0, 0.45), (0.55, 0.5), (160, -30), pieces=8), (-0.6, -0.95), (0.62, -0.95)]],
    "3": [
        [*arc((-0.05, 0.5), (0.5, 0.45), (140, -80), pieces=7), *arc((-0.05, -0.45), (0.6, 0.5), (80, -145), pieces=8)]
    ],
    "4": [[(0.3, -0.95), (0.3, 0.95), (-0.65, -0.35), (0.7, -0.35)]],
    "5": [[(0.5, 0.95), (-0.45, 0.95), (-0.5, 0.12), *arc((-0.05, -0.35), (0.6, 0.6), (115, -145), pieces=9)]],
    "6": [[(0.35, 0.95), (-0.15, 0.6), (-0.5, 0.05), *arc((0.02, -0.42), (0.55, 0.53), (170, 530), pieces=12)]],
    "7": [[(-0.6, 0.95), (0.6, 0.95), (-0.15, -0.95)]],
    "8": [arc((0, 0.5), (0.45, 0.45), (-90, 270), pieces=11), arc((0, -0.47), (0.58, 0.5), (90, 450), pieces=12)],
    "9": [[*arc((-0.02, 0.42), (0.52, 0.53), (0, 360), pieces=12), (0.48, 0.1), (0.3, -0.95)]],
}

LETTERS: dict[str, Sequence[Points]] = {
    "ha": [[(-0.6, -0.95), (-0.6, 0.95)], [(0.6, -0.95), (0.6, 0.95)], [(-0.6, 0.5), (0.6, -0.5)]],
    "ka": [[(-0.75, -0.95), (0, 0.95), (0.75, -0.95)], [(0, 0.95), (0, -0.95)]],
    "mo": [[*arc((0, -0.05), (0.7, 0.85), (60, 380), pieces=12), (0.1, 0.2), (-0.15, -0.15)]],
    "ro": [arc((0, 0), (0.7, 0.5), (0, 360), pieces=14), [(0, 0.95), (0, -0.95)]],
    "ti": [[(-0.7, 0.9), (0.7, 0.9)], [(-0.7, -0.9), (0.7, -0.9)], [(0, 0.9), (0, -0.9)]],
    "zu": [[(0.65, 0.95), (-0.65, 0.4), (0.65, -0.1), (-0.65, -0.6)], [(-0.65, -0.6), (0.65, -0.95)]],
}

SIGNS: dict[str, Sequence[Points]] = {
    "arrow": [[(-0.8, 0), (0.8, 0)], [(0.25, 0.6), (0.8, 0), (0.25, -0.6)]],
    "hash": [
        [(-0.35, 0.9), (-0.35, -0.9)],
        [(0.35, 0.9), (0.35, -0.9)],
        [(-0.8, 0.35), (0.8, 0.35)],
        [(-0.8, -0.35), (0.8, -0.35)],
    ],
    "plus": [[(-0.8, 0), (0.8, 0)], [(0, 0.8), (0, -0.8)]],
    "sun": [arc((0, 0), (0.8, 0.8), (0, 360), pieces=14), arc((0, 0), (0.1, 0.1), (0, 360), pieces=6)],
    "times": [[(-0.7, 0.7), (0.7, -0.7)], [(-0.7, -0.7), (0.7, 0.7)]],
}


FACTOR_CLASSES = {
    "slant": ("left", "upright", "right"),
    "thickness": ("thin", "normal", "thick"),
    "scale": ("small", "normal", "large"),
}
CLASS_EDGE = 0.5  # standard deviations: 31 % of glyphs lie below the middle class, 38 % in it, 31 % above


class Glyphs:
    """Drawn glyphs of several classes, in equal numbers, with the factors that generated them.

    Label column `label`: the class. Characteristics: slant, thickness, scale, shift_x, shift_y, in standard deviations
    (see `strokes.Factors`); they mean the same in every set of glyphs. Three factors are label columns too, whose
    middle class is within half a standard deviation: `slant_class` (left, upright, right), `thickness_class` (thin,
    normal, thick) and `scale_class` (small, normal, large).

    Args:
        size: the side of the images in pixels; they are uint8 (n, 1, size, size), with bright ink on exactly 0.
        train, validation, test: the number of samples of each split.
        seed: every split is generated independently from it.
    """

    name: str
    strokes: Mapping[str, Sequence[Points]]
    levels: int | None = 256

    def __init__(
        self, size: int = 16, *, train: int = 4000, validation: int = 500, test: int = 1000, seed: int = 0
    ) -> None:
        if not 8 <= size <= LARGEST:
            raise TzkError(f"{self.name}: size = {size}, expected 8 pixels, for glyphs to be legible, to {LARGEST}")
        self.counts = {"train": train, "validation": validation, "test": test}
        check_drawn(self.counts, self.name)
        self.size, self.seed = size, seed
        self.shape: tuple[int, ...] = (1, size, size)
        self.original_dims: int | None = size * size

    def split(self, split: str) -> Samples:
        """`Samples` of "train", "validation" or "test"."""
        check_split(split)
        count = self.counts[split]
        random = numpy_stream(self.seed, self.name, split)
        known = np.array(list(self.strokes))
        labels = random.permutation(known[np.arange(count) % len(known)])
        factors = Factors.sampled(count, random)
        images = np.empty((count, self.size, self.size), dtype=np.uint8)
        for name, strokes in self.strokes.items():
            rows = np.flatnonzero(labels == name)
            chosen = Factors(*(getattr(factors, factor)[rows] for factor in FACTORS))
            images[rows] = render(strokes, chosen, size=self.size, random=random)
        return Samples(
            T=torch.from_numpy(images)[:, None],
            labels={"label": labels, **_factor_classes(factors)},
            characteristics={factor: torch.from_numpy(getattr(factors, factor)) for factor in FACTORS},
        )


def _factor_classes(factors: Factors) -> dict[str, np.ndarray]:
    """Classes of factors, by label column: below, within and above the middle."""
    edges = [-CLASS_EDGE, CLASS_EDGE]
    return {
        f"{factor}_class": np.array(names)[np.digitize(getattr(factors, factor), edges)]
        for factor, names in FACTOR_CLASSES.items()
    }


class GlyphDigits(Glyphs):
    __doc__ = f"The digits 0 to 9, drawn with strokes.\n\n{getdoc(Glyphs)}"

    name = "glyph-digits"
    strokes = DIGITS


class GlyphLetters(Glyphs):
    __doc__ = f"Six letters of an invented alphabet: {', '.join(LETTERS)}.\n\n{getdoc(Glyphs)}"

    name = "glyph-letters"
    strokes = LETTERS


class GlyphSigns(Glyphs):
    __doc__ = f"Five signs: {', '.join(SIGNS)}.\n\n{getdoc(Glyphs)}"

    name = "glyph-signs"
    strokes = SIGNS
