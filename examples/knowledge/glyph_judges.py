"""Judges of drawn digits and classifiers of single factors: kernel ridge regressions."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from tzk_core.data.glyphs import CLASS_EDGE, DIGITS, GlyphDigits
from tzk_core.data.protocol import Samples

WIDTH, RIDGE = 5.0, 1e-3  # of 3, 5 and 8, and of 0.001 and 0.01, what judged validation glyphs best
DIGIT_MEMBERS = tuple(f"digit-{label}" for label in DIGITS)
CLASSES = {"thickness": ("thin", "thick"), "slant": ("left", "right"), "scale": ("small", "large")}
"""Members that are the lower and the upper class of a factor."""

FACTOR = {member: factor for factor, members in CLASSES.items() for member in members}

Predictor = Callable[[Tensor], Tensor]
"""Images in [0, 1], (n, 1, 16, 16), to (n, targets)."""


def pixels(samples: Samples) -> Tensor:
    """Images in [0, 1], (n, 1, 16, 16)."""
    return samples.T.double() / 255


def members() -> tuple[str, ...]:
    """All members of compositions: digits, and classes of factors."""
    return (*DIGIT_MEMBERS, *FACTOR)


def shown(samples: Samples) -> dict[str, Tensor]:
    """Which members each glyph shows, (n,) bool by name, from what generated it."""
    labels = samples.labels["label"]
    each = zip(DIGIT_MEMBERS, DIGITS, strict=True)
    digits = {name: torch.tensor([other == label for other in labels]) for name, label in each}
    return {**digits, **_classes({factor: samples.characteristics[factor] for factor in CLASSES})}


def ridge(images: Tensor, targets: Tensor) -> Predictor:
    """A kernel ridge regression from images to targets, (n, targets)."""
    inputs = images.double().flatten(1)

    def kernel(T: Tensor) -> Tensor:
        return torch.exp(-torch.cdist(T, inputs).square() / (2 * WIDTH**2))

    weights = torch.linalg.solve(kernel(inputs) + RIDGE * torch.eye(len(inputs), dtype=torch.float64), targets)

    def predict(T: Tensor) -> Tensor:
        return torch.cat([kernel(part) @ weights for part in T.double().flatten(1).clamp(0, 1).split(1024)])

    return predict


class Judge:
    """Which members images show: a regression fitted to glyphs of another seed.

    Args:
        glyphs: how many it is fitted to.
    """

    def __init__(self, glyphs: int) -> None:
        samples = GlyphDigits(train=glyphs, seed=1).split("train")
        digits = torch.stack([rows for name, rows in shown(samples).items() if name not in FACTOR], 1).double()
        factors = torch.stack([samples.characteristics[factor] for factor in CLASSES], 1).double()
        self._predict = ridge(pixels(samples), torch.cat([digits, factors], 1))

    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        """(n,) bool by member."""
        answers = self._predict(images)
        best = answers[:, : len(DIGITS)].argmax(1)
        digits = {name: best == number for number, name in enumerate(DIGIT_MEMBERS)}
        return {**digits, **_classes({name: answers[:, len(DIGITS) + i] for i, name in enumerate(CLASSES)})}


def classifiers(samples: Samples) -> Callable[[Tensor], dict[str, Tensor]]:
    """Probabilities of every member by itself, (n,): least squares between 0 and 1."""
    targets = shown(samples)
    predict = ridge(pixels(samples), torch.stack([targets[name] for name in members()], 1).double())
    return lambda images: dict(zip(members(), predict(images).clamp(0, 1).unbind(1), strict=True))


def _classes(factors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Lower and upper class of factors in standard deviations, by member."""
    found = {}
    for factor, (lower, upper) in CLASSES.items():
        found[lower], found[upper] = factors[factor] < -CLASS_EDGE, factors[factor] > CLASS_EDGE
    return found
