"""Batches from several data sets at once, each a function of (seed, step) alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction

import torch
from torch import Tensor

from tzk_core.data.dequantise import dequantise
from tzk_core.data.protocol import Samples
from tzk_core.errors import TzkError
from tzk_core.observations import Observations
from tzk_core.random_streams import stream


class JointBatches:
    """An endless sequence of batches in which every data set has its exact share.

    Args:
        samples: by data set, all of one shape.
        presence: (n, knowledge) in {0, 1, nan} by data set; the columns are `knowledge`.
        characteristics: (n, c) by data set and knowledge type, nan where unobserved (see `annotation`).
        knowledge: names of the knowledge types.
        weights: the share of each data set in a batch, unnormalised; None gives every sample the same chance.
        levels: the number of grey levels, for all or by data set; None for real-valued data.
        exclusive: groups of knowledge types of which every sample has exactly one (see `Observations`).
        favoured: (n,) bool by data set, samples with a share of their own, such as the few labelled ones among many.
        favoured_share: the share of favoured samples among those of their data set, above 0 and below 1.

    Raises:
        TzkError: if shapes differ, a data set is empty, or weights do not fit.
    """

    def __init__(
        self,
        samples: Mapping[str, Samples],
        presence: Mapping[str, Tensor],
        characteristics: Mapping[str, Mapping[str, Tensor]] | None = None,
        *,
        knowledge: Sequence[str] = (),
        weights: Mapping[str, float] | None = None,
        batch_size: int = 256,
        seed: int = 0,
        levels: int | None | Mapping[str, int | None] = 256,
        exclusive: Sequence[Sequence[str]] = (),
        favoured: Mapping[str, Tensor] | None = None,
        favoured_share: float = 0.5,
    ) -> None:
        _check_samples(samples)
        if batch_size < 1:
            raise TzkError(f"batch_size = {batch_size}, expected at least 1")
        self.samples = dict(samples)
        self.presence = dict(presence)
        self.characteristics = {name: dict((characteristics or {}).get(name, {})) for name in samples}
        self.knowledge = tuple(knowledge)
        self.exclusive = tuple(tuple(group) for group in exclusive)
        self.weights = _checked_weights(samples, weights)
        self.batch_size = batch_size
        self.seed = seed
        self.levels = {name: levels[name] if isinstance(levels, Mapping) else levels for name in samples}
        self._widths = {name: C.shape[1] for columns in self.characteristics.values() for name, C in columns.items()}
        self._strata = {
            name: _strata(len(split), (favoured or {}).get(name), favoured_share) for name, split in samples.items()
        }
        self._orders: dict[tuple[str, str], dict[int, Tensor]] = {}
        for name in samples:
            expected = (len(samples[name]), len(self.knowledge))
            if tuple(self.presence[name].shape) != expected:
                raise TzkError(
                    f"presence of data set '{name}': expected shape {expected} (samples, knowledge); "
                    f"got {tuple(self.presence[name].shape)}"
                )

    def batch(self, step: int) -> Observations:
        """The dequantised batch of this step, data set after data set.

        It depends on (seed, step) alone. Every epoch of a data set has each sample exactly once, in a new random order,
        and may end within a batch.
        """
        positions = self.positions(step)
        T = []
        for name, rows in positions.items():
            noise = stream(self.seed, "dequantise", name, step)
            T.append(dequantise(self.samples[name].T[rows], noise, self.levels[name]))
        return Observations(
            T=torch.cat(T),
            presence=torch.cat([self.presence[name][rows] for name, rows in positions.items()]),
            knowledge=self.knowledge,
            characteristics={
                knowledge: torch.cat([self._rows_of(knowledge, name, rows) for name, rows in positions.items()])
                for knowledge in self._widths
            },
            exclusive=self.exclusive,
        )

    def positions(self, step: int) -> dict[str, Tensor]:
        """Positions in each data set of the samples of this step's batch, (m,) int64."""
        before = shares(step * self.batch_size, self.weights)
        after = shares((step + 1) * self.batch_size, self.weights)
        return {name: self._sampled(name, before[name], after[name]) for name in self.samples}

    def sources(self, step: int) -> dict[str, slice]:
        """Rows of the batch of this step, by data set."""
        sources, start = {}, 0
        for name, rows in self.positions(step).items():
            sources[name] = slice(start, start + len(rows))
            start += len(rows)
        return sources

    def population(self) -> Tensor:
        """The share of samples with each knowledge type, (knowledge,) from 0 to 1.

        It is the share among the samples of a data set in which the knowledge is observed, averaged over data sets by
        their weights. A hundred labels of a data set therefore count as much as sixty thousand. Knowledge that is
        observed nowhere has nan.
        """
        present = torch.zeros(len(self.knowledge), dtype=torch.float64)
        total = torch.zeros(len(self.knowledge), dtype=torch.float64)
        for name, weight in self.weights.items():
            observed = (~self.presence[name].isnan()).sum(dim=0)
            share = self.presence[name].nan_to_num(0.0).double().sum(dim=0) / observed.clamp_min(1)
            present += float(weight) * share
            total += float(weight) * (observed > 0)
        return (present / total).float()

    def _rows_of(self, knowledge: str, dataset: str, rows: Tensor) -> Tensor:
        C = self.characteristics[dataset].get(knowledge)
        return torch.full((len(rows), self._widths[knowledge]), torch.nan) if C is None else C[rows]

    def _sampled(self, name: str, start: int, stop: int) -> Tensor:
        """Positions start .. stop - 1 of the endless sequence of a data set."""
        strata = self._strata[name]
        weights = {stratum: weight for stratum, (_, weight) in strata.items()}
        before, after = shares(start, weights), shares(stop, weights)
        return torch.cat(
            [
                rows[self._in_order(name, stratum, start=before[stratum], stop=after[stratum])]
                for stratum, (rows, _) in strata.items()
            ]
        )

    def _in_order(self, name: str, stratum: str, *, start: int, stop: int) -> Tensor:
        """Samples start .. stop - 1 of the endless sequence of a stratum."""
        count = len(self._strata[name][stratum][0])
        pieces = [torch.empty(0, dtype=torch.int64)]
        while start < stop:
            epoch, first = divmod(start, count)
            last = min(count, first + stop - start)
            pieces.append(self._order(name, stratum, epoch)[first:last])
            start += last - first
        return torch.cat(pieces)

    def _order(self, name: str, stratum: str, epoch: int) -> Tensor:
        """The random order of one epoch, cached beside those of the neighbouring epochs."""
        orders = self._orders.setdefault((name, stratum), {})
        if epoch not in orders:
            for old in [other for other in orders if abs(other - epoch) > 1]:
                # a batch smaller than the data set touches neighbouring epochs at most
                del orders[old]
            names = (name, stratum) if stratum else (name,)
            count = len(self._strata[name][stratum][0])
            orders[epoch] = torch.randperm(count, generator=stream(self.seed, "order", *names, epoch))
        return orders[epoch]


def _strata(count: int, favoured: Tensor | None, share: float) -> dict[str, tuple[Tensor, Fraction]]:
    """Positions and shares of the strata of a data set, by name."""
    if favoured is None or favoured.all() or not favoured.any():
        return {"": (torch.arange(count), Fraction(1))}
    if not 0 < share < 1:
        raise TzkError(f"favoured samples are expected to have a share above 0 and below 1; got {share}")
    chosen, others = torch.nonzero(favoured).squeeze(1), torch.nonzero(~favoured).squeeze(1)
    return {"favoured": (chosen, Fraction(share)), "others": (others, 1 - Fraction(share))}


def shares(total: int, weights: Mapping[str, Fraction]) -> dict[str, int]:
    """Divide the first `total` samples of a sequence among names by weight.

    The names in turn, from the heaviest on, take their rounded share of what is left, so that counts sum to `total`. A
    count never shrinks as `total` grows, and the difference of two totals divides the samples between them. A count
    stays near its exact share: within 1/2 for two names, within 1/2 (1 + 1/2 + ... + 1/(k - 1)) for k of equal weight.
    """
    left, weight_left, counts = total, sum(weights.values()), {}
    for name, weight in sorted(weights.items(), key=lambda item: -item[1]):
        counts[name] = round_half_up(left * weight / weight_left)
        left, weight_left = left - counts[name], weight_left - weight
    return counts


def round_half_up(value: Fraction) -> int:
    """Round to the nearest integer, halves up; `round` takes halves to the even one."""
    return (2 * value.numerator + value.denominator) // (2 * value.denominator)


def _checked_weights(samples: Mapping[str, Samples], weights: Mapping[str, float] | None) -> dict[str, Fraction]:
    """Normalise weights to exact fractions, in the order of `samples`."""
    if weights is None:
        weights = {name: len(split) for name, split in samples.items()}
    if set(weights) != set(samples):
        raise TzkError(
            f"weights are for {sorted(weights)}, the data sets are {sorted(samples)}: "
            "give a weight to every data set, or to none"
        )
    for name, weight in weights.items():
        if not 0 < weight < float("inf"):
            raise TzkError(f"data set '{name}': weight = {weight}, expected a number above 0")
    total = sum(map(Fraction, weights.values()))
    return {name: Fraction(weights[name]) / total for name in samples}


def _check_samples(samples: Mapping[str, Samples]) -> None:
    if not samples:
        raise TzkError("no data set: expected at least one")
    for name, split in samples.items():
        if len(split) == 0:
            raise TzkError(f"data set '{name}': expected at least one sample; got none")
    shapes = {name: tuple(split.T.shape[1:]) for name, split in samples.items()}
    if len(set(shapes.values())) > 1:
        listed = ", ".join(f"'{name}' {shape}" for name, shape in shapes.items())
        raise TzkError(
            f"data sets that are modelled together must have one shape; got {listed}: "
            "give them the same size (`size = 32`)"
        )
