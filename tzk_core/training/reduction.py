"""A training step in several processes, each with a shard of the batch.

Gradients and what is logged are summed.

Every process draws the whole batch and its noise by (seed, step), and evaluates Eq. 5 on its own shard, weighted by the
shard's share. The sum over the processes is Eq. 5 of the batch, and so is that of gradients. Then all take one and the
same step. `DistributedDataParallel` is not used: it averages over processes, which need not have as many samples each,
and wants to know beforehand which parameters a batch reaches.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from tzk_core.errors import TzkError
from tzk_core.model import SharedFlow
from tzk_core.objective import Capacity
from tzk_core.objective.capacity import means_of
from tzk_core.objective.shard import Shard
from tzk_core.observations import Observations
from tzk_core.training.parameter_tables import ParameterTables
from tzk_core.world import World

APART = 1e-3
"""How far z of a whole batch may be from that of its shards, relative to its norm, before a flow is refused."""


def shard_of(world: World, size: int) -> Shard | None:
    """The shard that this process evaluates of a batch of `size` samples.

    Returns:
        None for the whole batch.

    Raises:
        TzkError: for a batch of fewer samples than there are processes.
    """
    if world.size == 1:
        return None
    if size < world.size:
        raise TzkError(
            f"a batch of {size} samples cannot be cut for {world.size} processes: start fewer, or write a batch_size "
            f"of at least {world.size}"
        )
    return Shard.of(size, world.rank, world.size)


def reduced(
    world: World,
    shard: Shard,
    capacity: Capacity,
    *,
    missing: Tensor | None,
    parameters: Sequence[Tensor],
    tables: ParameterTables,
) -> Capacity:
    """The objective of the whole batch, with gradients summed over all processes.

    The gradients are those of parameters and tables. Those of divided tables are of the whole batch already.

    A parameter that the shard of some process reached has a gradient then, and no other has.

    Args:
        capacity: of the shard of this process; gradients are of its value times the share of the shard.
        missing: where T of the whole batch was not observed, (batch,); None if it was everywhere.
    """
    dense = [] if tables.divided else tables.dense()
    reached = [torch.tensor([parameter.grad is not None for parameter in parameters], dtype=torch.bool)]
    reached += [columns.flatten() for _, columns in dense]
    summary = _Summary(shard, capacity, missing)
    numbers = torch.cat([summary.pack(), *(columns.double() for columns in reached)])
    world.sum(numbers)
    packed, *counts = numbers.split([len(numbers) - sum(map(len, reached)), *map(len, reached)])
    some = [parameter for parameter, count in zip(parameters, counts[0].tolist(), strict=True) if count]
    for parameter in some:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    _sum_together(world, [*_gradients(some), *(gradients for gradients, _ in dense)])
    if not tables.divided:
        tables.take([(count > 0).view_as(columns) for count, (_, columns) in zip(counts[1:], dense, strict=True)])
    return summary.unpack(packed)


def norm_of(world: World, shared: Sequence[Tensor], tables: ParameterTables, *, shards: Sequence[Tensor]) -> Tensor:
    """The norm of the gradient of parameters and tables, which may be divided.

    Args:
        shared: gradients that all processes have.
        shards: those that this process alone has.
    """
    if not tables.divided and not shards:
        return torch.nn.utils.get_total_norm([*shared, *tables.gradients()])
    here, everywhere = [*shards], [*shared]
    (here if tables.divided else everywhere).extend(tables.gradients())
    squares = [torch.nn.utils.get_total_norm(gradients) ** 2 for gradients in (everywhere, here)]
    own = squares[1].to("cpu", torch.float64).reshape(1)
    world.sum(own)
    return (squares[0].to(own) + own[0]).sqrt()


def check_independent(flow: SharedFlow, T: Tensor, shards: Iterable[Shard]) -> None:
    """Check that z depends on its sample alone, which lets a batch be cut.

    Args:
        T: observed samples, (n, *shape).
        shards: of these.

    Raises:
        TzkError: for a flow of which that is not so, as with batch normalisation or dropout.
    """
    before = [(buffer, buffer.clone()) for buffer in flow.buffers()]
    with torch.no_grad(), torch.random.fork_rng():
        whole, _ = flow.encode(T)
        cut = torch.cat([flow.encode(T[shard.rows])[0] for shard in shards if shard.stop > shard.start])
        for buffer, value in before:
            buffer.copy_(value)
    if torch.linalg.vector_norm(cut - whole) > APART * torch.linalg.vector_norm(whole):
        raise TzkError(
            "this flow cannot be trained in several processes: z of a sample depends on who else is in its batch, as "
            "with batch normalisation, or on chance, as with dropout. Train it in one process"
        )


def checked_cut(flow: SharedFlow, observations: Observations, size: int) -> bool:
    """Check that a batch may be cut for `size` processes.

    Returns:
        False where none of its T is observed, so that nothing could be checked.

    Raises:
        TzkError: as `check_independent`.
    """
    missing = observations.missing()
    T = observations.T if missing is None else observations.T[~missing]
    if len(T):
        check_independent(flow, T, [Shard.of(len(T), rank, size) for rank in range(size)])
    return bool(len(T))


class _Summary:
    """What a step reports of its batch, as a vector in float64.

    Its sum over the shards is that of the batch.
    """

    def __init__(self, shard: Shard, capacity: Capacity, missing: Tensor | None) -> None:
        self._shard, self._capacity = shard, capacity
        self._names = sorted(capacity.sums)  # the same in all processes, whose routes have another order
        seen = torch.ones(shard.size) if missing is None else (~missing).to("cpu", torch.float32)
        self._seen, self._observed = seen.bool(), float(seen[shard.rows].sum())

    def pack(self) -> Tensor:
        capacity, share = self._capacity, self._shard.share
        weight = capacity.prior_weight.detach() * self._observed if self._observed else torch.zeros(())
        scalars = [
            capacity.value.detach() * share,
            weight,
            *(mean.detach() * share for mean in capacity.terms.values()),
        ]
        log_prob_T = torch.where(self._seen[self._shard.rows], _plain(capacity.log_prob_T), 0.0)
        pieces = [torch.stack([_plain(scalar) for scalar in scalars])]
        pieces += [_plain(capacity.sums[name]) for name in self._names]
        log_capacity = self._placed(_plain(capacity.log_capacity))
        if capacity.owned is not None:
            log_capacity = log_capacity + _plain(capacity.owned)
        pieces += [self._placed(log_prob_T), log_capacity]
        return torch.cat(pieces)

    def unpack(self, packed: Tensor) -> Capacity:
        capacity, size = self._capacity, self._shard.size
        sizes = [2 + len(capacity.terms), 4 * len(self._names), size, size]
        scalars, sums, log_prob_T, log_capacity = packed.split(sizes)
        value, weight, *terms = scalars.unbind()
        own = capacity.value.detach()
        by_name = dict(zip(self._names, sums.view(-1, 4).to(own.dtype), strict=True))
        inconsistency, conditional = means_of(by_name)
        return replace(
            capacity,
            value=value.to(own),
            log_prob_T=torch.where(self._seen, log_prob_T, torch.nan).to(own),
            log_capacity=log_capacity.to(own),
            inconsistency=inconsistency,
            conditional=conditional,
            prior_weight=(weight / self._seen.sum()).to(own),
            sums=by_name,
            owned=None,
            terms={name: mean.to(own) for name, mean in zip(capacity.terms, terms, strict=True)},
        )

    def _placed(self, values: Tensor) -> Tensor:
        """Values of the shard at its place in the batch, with zeros elsewhere."""
        return torch.nn.functional.pad(values, (self._shard.start, self._shard.size - self._shard.stop))


def _gradients(parameters: Iterable[Tensor]) -> Iterator[Tensor]:
    for parameter in parameters:
        if parameter.grad is not None:
            yield parameter.grad


def _sum_together(world: World, tensors: Sequence[Tensor]) -> None:
    """Sum tensors in place over all processes.

    Those of one type and device go in one message.
    """
    alike: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
    for tensor in tensors:
        alike.setdefault((tensor.dtype, tensor.device), []).append(tensor)
    for group in alike.values():
        flat = torch.cat([tensor.flatten() for tensor in group])
        world.sum(flat)
        for tensor, total in zip(group, flat.split([tensor.numel() for tensor in group]), strict=True):
            tensor.copy_(total.view_as(tensor))


def _plain(values: Tensor) -> Tensor:
    return values.detach().to("cpu", torch.float64)
