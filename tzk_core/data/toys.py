"""Toy data in two dimensions: two moons, and rings."""

from __future__ import annotations

from inspect import getdoc

import numpy as np
import torch

from tzk_core.data.protocol import Samples, check_split
from tzk_core.data.splits import check_drawn
from tzk_core.errors import TzkError
from tzk_core.random_streams import numpy_stream


class Toy:
    """Points in the plane, (n, 2) float32, around curves.

    Label column `label`: the curve.

    Args:
        noise: the standard deviation of the points around their curve.
        train, validation, test: the number of points of each split.
        seed: every split is generated independently from it.
    """

    name: str
    curves: tuple[str, ...]
    shape: tuple[int, ...] = (2,)
    levels: int | None = None
    original_dims: int | None = 2

    def __init__(
        self, noise: float = 0.08, *, train: int = 4000, validation: int = 500, test: int = 1000, seed: int = 0
    ) -> None:
        if noise < 0:
            raise TzkError(f"{self.name}: noise = {noise}, expected a standard deviation, at least 0")
        self.noise, self.seed = noise, seed
        self.counts = {"train": train, "validation": validation, "test": test}
        check_drawn(self.counts, self.name)

    def points(self, curve: str, share: np.ndarray) -> np.ndarray:
        """Points of a curve, (n, 2), at shares of its length, (n,)."""
        raise NotImplementedError

    def split(self, split: str) -> Samples:
        """`Samples` of "train", "validation" or "test"; the curves have equally many points."""
        check_split(split)
        count = self.counts[split]
        random = numpy_stream(self.seed, self.name, split)
        labels = random.permutation(np.array(self.curves)[np.arange(count) % len(self.curves)])
        T = self.noise * random.standard_normal((count, 2))
        share = random.uniform(size=count)
        for curve in self.curves:
            rows = labels == curve
            T[rows] += self.points(curve, share[rows])
        return Samples(T=torch.from_numpy(T.astype(np.float32)), labels={"label": labels})


class TwoMoons(Toy):
    __doc__ = f"Two half circles, the upper and the lower one, that interlock.\n\n{getdoc(Toy)}"

    name = "two-moons"
    curves = ("upper", "lower")

    def points(self, curve: str, share: np.ndarray) -> np.ndarray:
        x, y = np.cos(np.pi * share), np.sin(np.pi * share)
        return np.stack([x - 0.5, y - 0.25] if curve == "upper" else [0.5 - x, 0.25 - y], axis=1)


class Rings(Toy):
    __doc__ = f"Two circles around the origin, the inner of radius 0.75 and the outer of 1.75.\n\n{getdoc(Toy)}"

    name = "rings"
    curves = ("inner", "outer")

    def points(self, curve: str, share: np.ndarray) -> np.ndarray:
        radius = 0.75 if curve == "inner" else 1.75
        return radius * np.stack([np.cos(2 * np.pi * share), np.sin(2 * np.pi * share)], axis=1)
