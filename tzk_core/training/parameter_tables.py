"""Parameters of many knowledge types in tables, one for every structure, which processes may divide."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from tzk_core.errors import TzkError
from tzk_core.knowledge import Knowledge
from tzk_core.knowledge.collection import KnowledgeDict
from tzk_core.knowledge.elsewhere import Elsewhere
from tzk_core.knowledge.stacking import ModuleStacks, States, structure
from tzk_core.model import TzK
from tzk_core.training.owned_modules import divisible, trained_of
from tzk_core.training.parameter_table import ParameterTable
from tzk_core.world import World

MANY = 32
"""With more knowledge types of one structure than so many, they share a table."""


class ParameterTables:
    """A table for every structure that more than `MANY` of the knowledge types have.

    What is in none is stacked as it is, and its parameters have gradients of their own.

    divided: whether each process has some rows of the tables, and no others.
    """

    def __init__(
        self, knowledge: Mapping[str, Knowledge], rate_of: Callable[[nn.Module], float], betas: tuple[float, float]
    ) -> None:
        self._betas = betas
        self.divided = any(isinstance(kind, Elsewhere) for kind in knowledge.values())
        self._others = ModuleStacks()
        self._table_of: dict[str, ParameterTable] = {}
        self._tables: list[ParameterTable] = []
        for group in groups_of(knowledge):
            table = ParameterTable(group, rate_of)
            self._tables.append(table)
            self._table_of |= dict.fromkeys(group, table)

    def divide(self, owners: Mapping[str, int], rank: int, members: KnowledgeDict) -> None:
        """Keep the knowledge types of this process alone; in `members` the others are `Elsewhere` then.

        Raises:
            TzkError: if others are elsewhere already than those of other processes.
        """
        for table in self._tables:
            rows = [row for row, name in enumerate(table.names) if owners[name] == rank]
            if not self.divided:
                table.divide(rows, members)
            elif list(table.rows) != rows:
                raise TzkError("the model was built for other owners of its knowledge types: build it anew")
        self.divided = True

    def unite(self, world: World, model: TzK) -> None:
        """Have all knowledge types in all processes again, which are to call it together."""
        if self.divided:
            for table in self._tables:
                table.unite(world, model.knowledge, lambda kind: kind.attach(model.flow.transform, model.flow.base))
        self.divided = False

    @contextmanager
    def whole(self, world: World, members: KnowledgeDict) -> Iterator[None]:
        """Within the block, the first process has all knowledge types, to write or copy them.

        All processes are to enter it together.
        """
        with ExitStack() as stack:
            for table in self._tables if self.divided else ():
                stack.enter_context(table.lent(world, members, take=world.first))
            yield

    @property
    def names(self) -> Collection[str]:
        """The knowledge types that are in a table."""
        return self._table_of.keys()

    def structure(self, name: str, kind: Knowledge) -> Hashable:
        return self._table_of[name] if name in self._table_of else self._others.structure(name, kind)

    def states(self, knowledge: Mapping[str, Knowledge]) -> States:
        table = self._table_of.get(next(iter(knowledge)))
        return self._others.states(knowledge) if table is None else table.states(knowledge)

    def gradients(self) -> list[Tensor]:
        return [gradient for table in self._tables for gradient in table.gradients()]

    def dense(self) -> list[tuple[Tensor, Tensor]]:
        """Of every table, gradients of what took part, and what received any: as of `ParameterTable.dense`."""
        return [table.dense() for table in self._tables]

    def take(self, reached: Sequence[Tensor]) -> None:
        """Put what `dense` returned, as others have changed it, in the place of the gradients."""
        for table, columns in zip(self._tables, reached, strict=True):
            table.take(columns)

    def forget(self) -> None:
        for table in self._tables:
            table.forget()

    def step(self, share: float) -> None:
        for table in self._tables:
            table.step(share, self._betas)

    @property
    def tensors(self) -> list[Tensor]:
        """Parameters and moments of all tables."""
        return [tensor for table in self._tables for tensor in (table.values, table.moments, table.squares)]

    @property
    def size(self) -> int:
        """Bytes of Adam's state."""
        tensors = (tensor for table in self._tables for tensor in (table.moments, table.squares, table.steps))
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    def state_dict(self) -> list[dict[str, Any]]:
        return [table.state_dict() for table in self._tables]

    def load_state_dict(self, states: Sequence[Mapping[str, Any]]) -> None:
        if len(states) != len(self._tables):
            raise TzkError(
                f"this training has {len(states)} tables of knowledge types, the model {len(self._tables)}: "
                "it began with another version of tzk, or with other knowledge types, and cannot be resumed. `tzk run` "
                "trains it anew"
            )
        for table, state in zip(self._tables, states, strict=True):
            table.load_state_dict(state)


def groups_of(knowledge: Mapping[str, Knowledge]) -> list[dict[str, Knowledge]]:
    """The knowledge types that share a table, by table."""
    alike: dict[Hashable, dict[str, Knowledge]] = {}
    alone = divisible(knowledge)
    structures: dict[int, Hashable] = {}  # of what thousands that are `Elsewhere` are like
    for name, member in knowledge.items():
        like = member.like if isinstance(member, Elsewhere) else member
        if like is member and name not in alone:
            continue
        if len({(parameter.dtype, parameter.device) for parameter in trained_of(like)}) != 1:
            continue
        if like is member:
            alike.setdefault(structure(name, like), {})[name] = member
        else:
            if id(like) not in structures:
                structures[id(like)] = structure(name, like)
            alike.setdefault(structures[id(like)], {})[name] = member
    return [group for group in alike.values() if len(group) > MANY]
