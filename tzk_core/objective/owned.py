"""Knowledge types that one process has for all.

z of samples goes to their owners, and its gradient comes back.

Given z, the terms of knowledge types (Eq. 3 to 5) are independent, so that those of an owner are added to what others
have. Exclusive knowledge types, which are summed over together, have one owner.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tzk_core.errors import TzkError, nearest
from tzk_core.model import TzK
from tzk_core.objective.latents import Encodable
from tzk_core.objective.routing import BatchLabels, Noise, Routing, may_have
from tzk_core.objective.shard import Shard
from tzk_core.objective.terms import Encoded, Total, encode, knowledge_terms
from tzk_core.objective.wording import Wording
from tzk_core.observations import Observations
from tzk_core.world import World

Router = Callable[..., Routing]
"""`routing.route` without its first three arguments, characteristics and noise."""


@dataclass(frozen=True)
class Owners:
    """The processes that have some knowledge types; all have the others.

    of: by knowledge type, the rank of its owner.
    """

    world: World
    of: Mapping[str, int]

    def shared(self, labels: BatchLabels) -> BatchLabels:
        """The labels of the knowledge types that all processes have."""
        return BatchLabels(*({name: row for name, row in rows.items() if name not in self.of} for rows in labels))

    def own(self, labels: BatchLabels) -> BatchLabels:
        """The labels of the knowledge types that this process has for all."""
        rank = self.world.rank
        return BatchLabels(*({name: row for name, row in rows.items() if self.of.get(name) == rank} for rows in labels))

    def check_whole(self, exclusive: Iterable[Collection[str]]) -> None:
        """Check that the members of an exclusive group have one owner.

        Raises:
            TzkError: for a group that is split.
        """
        for group in exclusive:
            if len({self.of.get(name) for name in group}) > 1:
                raise TzkError(
                    f"the exclusive knowledge types {', '.join(group)} have several owners: this group is not in the "
                    "first batch of the training, by which owners are settled. Write owners_from = 0 in [training]"
                )


class OwnedTerms(NamedTuple):
    """What the knowledge types of one owner add to the objective, in nats.

    value: a scalar, the sum over samples of what Eq. 5 is the mean of.
    log_capacity: (batch,), to log M. prior_weight: a scalar, the sum over samples of the weight of log p(T).
    sums: by knowledge type, as of `Terms.sums`.
    """

    value: Tensor
    log_capacity: Tensor
    prior_weight: Tensor
    sums: dict[str, Tensor]


def owners_of(
    names: Iterable[str],
    exclusive: Iterable[Collection[str]],
    size: int,
    *,
    costs: Mapping[str, float] | None = None,
    given: Mapping[str, int] | None = None,
) -> dict[str, int]:
    """The owners of knowledge types among so many processes.

    They are as given, or by a hash of the name. The members of an exclusive group have one owner: that of those which
    are given one, or else that of the first in alphabetical order.

    Args:
        costs: of knowledge types that are few and large, which go one after the other, the costliest first, to the
            process with the least cost so far: a hash would not even them out.
        given: numbers by name or pattern, of which the owner is the remainder by `size`.

    Raises:
        TzkError: for a group whose members are given several owners.
    """
    together = {name: {name} for name in names}
    for group in exclusive:
        joined = set().union(*(together[name] for name in group if name in together))
        together |= dict.fromkeys(joined, joined)
    leaders = {name: min(members) for name, members in together.items()}
    said = {leader: _said(together[leader], given or {}) for leader in leaders.values()}
    total: dict[str, float] = {}
    for name, leader in leaders.items():
        total[leader] = total.get(leader, 0.0) + (costs or {}).get(name, math.inf)
    load = [0.0] * size
    of: dict[str, int] = {}
    for leader in sorted(total, key=lambda leader: (said[leader] is None, -total[leader], _hash(leader))):
        number, even = said[leader], math.isfinite(total[leader])
        if number is not None:
            of[leader] = number % size
        else:
            of[leader] = load.index(min(load)) if even else _hash(leader) % size
        if even:
            load[of[leader]] += total[leader]
    return {name: of[leader] for name, leader in leaders.items()}


def _said(members: Collection[str], given: Mapping[str, int]) -> int | None:
    """The number that knowledge types which have one owner are given; None without."""
    said = {name: number for name in sorted(members) if (number := _given(name, given)) is not None}
    if len(set(said.values())) > 1:
        words = ", ".join(f"{name!r} {number}" for name, number in said.items())
        raise TzkError(
            f"the exclusive knowledge types {', '.join(sorted(members))} have one owner, and owners in [training] "
            f"gives several: {words}. Give all of them the same number"
        )
    return next(iter(said.values()), None)


def _given(name: str, given: Mapping[str, int]) -> int | None:
    """The number that a knowledge type is given; None without."""
    if name in given:
        return given[name]
    return next((number for pattern, number in given.items() if fnmatchcase(name, pattern)), None)


def check_given(given: Iterable[str], names: Collection[str]) -> None:
    """Check that every name or pattern is of some knowledge type.

    Raises:
        TzkError: naming one that is of none.
    """
    for pattern in given:
        if pattern not in names and not any(fnmatchcase(name, pattern) for name in names):
            raise TzkError(
                f"owners in [training] has {pattern!r}, and no knowledge type that is trained is called so"
                f"{nearest(pattern, names)}"
            )


def owned_terms(
    owners: Owners,
    model: TzK,
    batch: Encodable,
    *,
    observations: Observations,
    labels: BatchLabels,
    shard: Shard,
    route: Router,
    noise: Noise,
    wording: Wording,
    emphasis: float,
) -> OwnedTerms:
    """The terms of the knowledge types of this process, at the samples of all shards.

    All processes are to call it together, and, if the flow is trained, to differentiate `value`.

    Args:
        batch: the shard of this process.
        observations, labels, noise: of the whole batch.
    """
    owners.check_whole(observations.exclusive)
    needed = _needed(owners, labels, wording, size=shard.size)
    here = encode(model.flow, batch, Routing((), (), observations.T.new_zeros(())), wording=wording, emphasis=emphasis)
    packed = torch.cat([here.z.flatten(1), here.log_prob_z[:, None]], 1)
    received = _exchanged(owners.world, packed, needed=needed.to(packed.device), shard=shard)
    rows = torch.nonzero(needed[owners.world.rank]).squeeze(1).to(packed.device)
    z, log_prob_z = received[:, :-1].view(-1, *here.z.shape[1:]), received[:, -1]
    own, some = owners.own(labels), observations.take(rows)
    own = BatchLabels(*({name: row[rows.to(row.device)] for name, row in table.items()} for table in own))
    knowledge = {name: model.find(name) for name in own.presence}
    routing = route(knowledge, some, own, characteristics=some.characteristics, noise=noise)
    zeros = torch.zeros_like(log_prob_z)
    encoded = Encoded(z, zeros, log_prob_z, None, zeros, routing, wording, emphasis)
    total = knowledge_terms(Total(zeros, zeros, zeros if emphasis else None, zeros), encoded)
    names = [name for each in routing.routes for name in each.rectangle.names]
    sums = torch.cat([zeros.new_zeros(0, 4), *total.sums]).cpu()
    return OwnedTerms(
        total.of_samples(emphasis).sum() + received.flatten()[:0].sum(),  # which every process differentiates
        zeros.new_zeros(shard.size).index_copy(0, rows, total.log_capacity.detach()),
        total.prior_weight.detach().sum(),
        dict(zip(names, sums, strict=True)),
    )


def _needed(owners: Owners, labels: BatchLabels, wording: Wording, *, size: int) -> Tensor:
    """The samples that each owner needs, (processes, batch) bool, the same in all processes."""
    needed = torch.zeros(owners.world.size, size, dtype=torch.bool)
    names = [name for name in labels.presence if name in owners.of]
    if names:
        presence, weights = (torch.stack([table[name] for name in names]).cpu() for table in labels)
        takes_part = may_have(presence, wording) | (weights != 0)
        counts = torch.zeros(owners.world.size, size, dtype=torch.int64)
        counts.index_add_(0, torch.tensor([owners.of[name] for name in names]), takes_part.long())
        needed = counts > 0
    return needed


def _exchanged(world: World, values: Tensor, *, needed: Tensor, shard: Shard) -> Tensor:
    """The rows that this process needs, in order, from all shards.

    Args:
        values: (shard, n).
        needed: (processes, batch) bool.
    """
    shards = [Shard.of(shard.size, rank, world.size) for rank in range(world.size)]
    leaving = needed[:, shard.rows]
    arriving = [int(needed[world.rank, other.rows].sum()) for other in shards]
    chosen = values.index_select(0, torch.nonzero(leaving)[:, 1])
    sent: Tensor = _Exchange.apply(chosen, world, leaving.sum(1).tolist(), arriving)
    return sent


class _Exchange(torch.autograd.Function):
    """Rows to other processes, and gradients of rows back."""

    @staticmethod
    def forward(  # noqa: PLR0917 -- torch calls it by position
        ctx: Any, values: Tensor, world: World, sends: Sequence[int], receives: Sequence[int]
    ) -> Tensor:
        ctx.world, ctx.sends, ctx.receives = world, list(sends), list(receives)
        return world.exchange(values, ctx.sends, ctx.receives)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        return ctx.world.exchange(gradients[0], ctx.receives, ctx.sends), None, None, None


def _hash(name: str) -> int:
    """The same number in every process, of every version of Python."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big")
