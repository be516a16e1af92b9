"""A training of which several processes may divide the knowledge types and the shared flow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor

from tzk_core.knowledge import Knowledge
from tzk_core.model import TzK
from tzk_core.objective.owned import Owners
from tzk_core.training.batches import Batches
from tzk_core.training.optimizers import Optimiser, parts_of, trained_tensors, trains_knowledge_by_adam
from tzk_core.training.owned_modules import OwnedModules, divisible
from tzk_core.training.ownership import owners
from tzk_core.training.parameter_tables import ParameterTables
from tzk_core.training.settings import Settings
from tzk_core.training.sharding import ShardedFlow, sharded_flow
from tzk_core.training.validation import Watch
from tzk_core.world import World


class Divided:
    """What of a training each process has: all of it, until it is divided.

    owners: of the knowledge types that are divided. sharded: the shared flow, if it is.
    """

    model: TzK
    batches: Batches
    settings: Settings
    step: int
    trained: tuple[str, ...]
    fixed_flow: bool
    world: World
    watch: Watch
    optimizer: Optimiser
    parameter_tables: ParameterTables
    terms: Any
    owners: Owners | None = None
    sharded: ShardedFlow | None = None
    _owned: OwnedModules | None = None  # with owners, those in no table

    @property
    def divided(self) -> bool:
        """Whether some process has less than all."""
        return bool(self.owners or self.sharded)

    def divide(self) -> None:
        """Leave knowledge types to one process each, as `owners_from` says.

        All processes are to call it together, with one and the same state. They go on with all in each where T may be
        missing, or an exclusive group has members that cannot be divided.
        """
        if self.owners or self.world.size == 1:
            return
        members, optimizers = self._divisible()
        if not (of := self._owners_among(members)):
            self.parameter_tables.unite(self.world, self.model)
            return
        self.owners = Owners(self.world, of)
        if not of.keys().isdisjoint(self.parameter_tables.names):
            self.parameter_tables.divide(of, self.world.rank, self.model.knowledge)
        own = {name: member for name, member in members.items() if name in of}
        self._owned = OwnedModules(self.world, own, owners=of, optimizers=optimizers)

    def _owners_among(self, members: Mapping[str, Knowledge]) -> dict[str, int]:
        """The owners of these and of types in tables; none where nothing is divided."""
        least, validation = self.settings.owners_from, self.watch.validation
        if not least or self.settings.hidden_share or validation is not None and validation.partly_missing:
            return {}
        batch, tabled = self.batches.batch(self.step), self.parameter_tables.names
        return owners(batch, self.world.size, settings=self.settings, tabled=tabled, modules=members)

    def _divisible(self) -> tuple[dict[str, Knowledge], tuple[torch.optim.Optimizer, ...]]:
        """The types in no table that processes can divide, and their optimisers."""
        optimizers = parts_of(self.optimizer)
        if self.terms or not optimizers or not trains_knowledge_by_adam(self.settings):
            return {}, ()
        alone = [name for name in self.trained if name not in self.parameter_tables.names]
        return divisible({name: self.model.find(name) for name in alone}), optimizers

    def shard(self) -> None:
        """Divide a shared flow that is trained, if `shard` asks for it."""
        if not self.fixed_flow:
            self.sharded = sharded_flow(self.model.flow, self.optimizer, settings=self.settings, world=self.world)

    def unite(self) -> None:
        """Have all knowledge types and the whole flow in all processes again.

        All are to call it together.
        """
        if self.sharded:
            self.sharded.unite()
            self.sharded = None
        if self.owners and self._owned:
            self.parameter_tables.unite(self.world, self.model)
            self._owned.unite(take=True)
            self.watch.best = self.world.of_first(self.watch.best)
            self.owners = self._owned = None

    @contextmanager
    def _whole(self) -> Iterator[None]:
        """Within the block, the first process has all knowledge types, to write or copy them.

        All processes are to enter it together.
        """
        modules = self._owned.whole() if self._owned else nullcontext()
        with self.parameter_tables.whole(self.world, self.model.knowledge), modules:
            yield

    def _shared(self) -> list[Tensor]:
        """The parameters that the optimiser moves in all processes."""
        divided = {id(parameter) for parameter in self._owned.parameters} if self._owned else set()
        moved = trained_tensors(self.optimizer)
        return [parameter for parameter in moved if id(parameter) not in divided and not self._in_shards(parameter)]

    def _whole_flow(self, *, take: bool, state: bool = True) -> AbstractContextManager[None]:
        """As `ShardedFlow.whole`, of a flow that may be whole anyway."""
        return self.sharded.whole(take=take, state=state) if self.sharded else nullcontext()

    def _in_shards(self, parameter: Tensor) -> bool:
        return self.sharded is not None and self.sharded.has(parameter)
