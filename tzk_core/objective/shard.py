"""The shard of a batch that one process evaluates while others evaluate the rest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from tzk_core.objective.routing import BatchLabels, Noise


class Shard(NamedTuple):
    """Neighbouring samples of a batch of `size`, from `start` to before `stop`.

    What is sampled at random is sampled for the whole batch, and this shard of it is taken. The shards of a batch so
    have the random numbers that the whole one has.
    """

    start: int
    stop: int
    size: int

    @classmethod
    def of(cls, size: int, number: int, shards: int) -> Shard:
        """The shard of this number, of shards that differ by one sample at most."""
        return cls(number * size // shards, (number + 1) * size // shards, size)

    @property
    def rows(self) -> slice:
        return slice(self.start, self.stop)

    @property
    def share(self) -> float:
        """Its samples over those of the batch."""
        return (self.stop - self.start) / self.size

    def positions(self, device: torch.device | None = None) -> Tensor:
        """The positions of its samples in the batch."""
        return torch.arange(self.start, self.stop, device=device)

    def labels(self, labels: BatchLabels) -> BatchLabels:
        """The labels of its samples, of the knowledge types that take part in the batch."""
        return BatchLabels(*({name: values[self.rows] for name, values in by_name.items()} for by_name in labels))

    def noise(self, noise: Noise, chosen: Mapping[str, Tensor]) -> Noise:
        """The noise of its samples.

        Args:
            noise: of the whole batch.
            chosen: by knowledge type, the samples that noise is drawn for, (batch,) bool.
        """
        if not chosen:
            return noise
        table = torch.stack(list(chosen.values()))
        totals, before = (
            dict(zip(chosen, counts.sum(1).tolist(), strict=True)) for counts in (table, table[:, : self.start])
        )

        def of_shard(name: str, count: int) -> Tensor:
            return noise(name, totals[name])[before[name] : before[name] + count]

        return of_shard

    def among(self, rows: Tensor) -> slice:
        """Which of these positions in the batch, (n,), in order, are in it."""
        first, last = torch.searchsorted(rows, torch.tensor([self.start, self.stop], device=rows.device)).tolist()
        return slice(first, last)
