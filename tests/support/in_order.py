"""Batches of a few samples in their order, for trainings whose steps a test can count."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch

from tzk_core.observations import Observations


class InOrder:
    """Batches of `size` of the observations in order, again from the first after the last.

    Args:
        sources: the part of a batch that each data set has; one data set "T" unless there are others.
        broken: the steps whose T lies where no float32 reaches.
    """

    def __init__(
        self,
        observations: Observations,
        *,
        size: int = 16,
        sources: Mapping[str, slice] | None = None,
        broken: Callable[[int], bool] = lambda step: False,
    ) -> None:
        self.observations, self.size = observations, size
        self._sources = sources or {"T": slice(0, size)}
        self.broken = broken

    def batch(self, step: int) -> Observations:
        rows = torch.arange(self.size * step, self.size * (step + 1)) % len(self.observations.T)
        T = self.observations.T[rows] * (math.inf if self.broken(step) else 1.0)
        return Observations(T, self.observations.presence[rows], self.observations.knowledge)

    def sources(self, step: int) -> Mapping[str, slice]:
        return self._sources
