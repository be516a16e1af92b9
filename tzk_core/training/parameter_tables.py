"""Parameters of many knowledge types of one structure in one table, with its Adam.

Adam updates those rows alone that a step uses.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tzk_core.errors import TzkError
from tzk_core.knowledge import Knowledge
from tzk_core.knowledge.stacking import ModuleStacks, States, state_of, structure
from tzk_core.training.dividing import absent, gathered
from tzk_core.world import World

MANY = 32
"""With more knowledge types of one structure than so many, they share a table."""


@dataclass(frozen=True)
class Column:
    """A trained parameter: its place in each row of a table, and its learning rate."""

    key: str
    shape: torch.Size
    start: int
    stop: int
    rate: float


class ParameterTable:
    """Trained parameters of knowledge types of one structure, (types, parameters).

    The modules' parameters are views of it.

    A step takes the rows that it needs, whatever their number, by one operation, and updates these alone. The others
    keep their moments and counts of steps, as in `torch.optim.Adam` parameters without a gradient do.

    rows: the knowledge types whose parameters are here, by their positions in `names`; all, unless it is divided.
    """

    def __init__(self, knowledge: Mapping[str, Knowledge], rate_of: Callable[[nn.Module], float]) -> None:
        self.names = tuple(knowledge)
        self.columns = tuple(_columns(next(iter(knowledge.values())), rate_of))
        trained = {column.key for column in self.columns}
        parameters = (dict(module.named_parameters()) for module in knowledge.values())
        self._parameters = [[own[column.key] for column in self.columns] for own in parameters]
        with torch.no_grad():
            self.values = torch.stack([torch.cat([part.flatten() for part in own]) for own in self._parameters])
        self._bind(range(len(self.names)))
        self._fixed = [
            {key: value for key, value in state_of(module).items() if key not in trained}
            for module in knowledge.values()
        ]
        self.moments = torch.zeros_like(self.values)
        self.squares = torch.zeros_like(self.values)
        self.steps = torch.zeros(len(self.names), len(self.columns))
        self._taken: list[tuple[list[int], list[Tensor]]] = []
        self._dense: tuple[list[int], Tensor] = [], self.values[:0]

    def _bind(self, rows: Sequence[int]) -> None:
        """Make parameters views of the table, which has these rows; those of others are `absent`."""
        self.rows = tuple(rows)
        self._row = {self.names[row]: place for place, row in enumerate(self.rows)}
        for name, own in zip(self.names, self._parameters, strict=True):
            place = self._row.get(name)
            for column, parameter in zip(self.columns, own, strict=True):
                if place is None:
                    parameter.data = absent(parameter)
                else:
                    parameter.data = self.values[place, column.start : column.stop].view(column.shape)
        self._places = [self._parameters[row][0].data_ptr() for row in self.rows]

    def divide(self, rows: Sequence[int]) -> None:
        """Keep these rows alone, of all."""
        index = torch.tensor(rows, dtype=torch.int64)
        self.values, self.moments, self.squares = (
            table[index.to(table.device)] for table in (self.values, self.moments, self.squares)
        )
        self.steps = self.steps[index]
        self.forget()
        self._bind(rows)

    def unite(self, world: World, *, take: bool) -> None:
        """Have all rows again, those of others from their owners.

        All processes are to call it together.

        Args:
            take: whether this process wants them; else it keeps its own.
        """
        count = len(self.names)
        united = [
            gathered(world, table, self.rows, count=count, take=take)
            for table in (self.values, self.moments, self.squares, self.steps)
        ]
        if take:
            self.values, self.moments, self.squares, self.steps = united
            self._bind(range(count))

    def states(self, knowledge: Mapping[str, Knowledge]) -> States:
        """These rows; what they are evaluated as receives the gradients that `step` takes."""
        rows = [self._row[name] for name in knowledge]
        if any(self._parameters[self.rows[row]][0].data_ptr() != self._places[row] for row in rows):
            raise TzkError("the model was moved to another device or type since its training began: train it anew")
        chosen = self.values.index_select(0, torch.tensor(rows, device=self.values.device))
        leaves = [
            chosen[:, column.start : column.stop].view(len(rows), *column.shape).requires_grad_()
            for column in self.columns
        ]
        self._taken.append((rows, leaves))
        state = {column.key: leaf for column, leaf in zip(self.columns, leaves, strict=True)}
        for key in self._fixed[0]:
            state[key] = torch.stack([self._fixed[self.rows[row]][key] for row in rows])
        return state

    def gradients(self) -> list[Tensor]:
        """Those of the parameters that took part since the last step."""
        return [leaf.grad for _, leaves in self._taken for leaf in leaves if leaf.grad is not None]

    def dense(self) -> tuple[Tensor, Tensor]:
        """Gradients of the rows that took part, in table order, and which columns received any.

        Returns:
            Gradients, (rows, parameters), zeros where there are none, and (rows, columns) bool.
        """
        every = sorted(row for rows, _ in self._taken for row in rows)
        place = {row: number for number, row in enumerate(every)}
        gradients = self.values.new_zeros(len(every), self.values.shape[1])
        reached = torch.zeros(len(every), len(self.columns), dtype=torch.bool)
        for rows, leaves in self._taken:
            at = [place[row] for row in rows]
            for number, (column, leaf) in enumerate(zip(self.columns, leaves, strict=True)):
                if leaf.grad is not None:
                    gradients[at, column.start : column.stop] = leaf.grad.flatten(1)
                    reached[at, number] = True
        self._dense = every, gradients
        return gradients, reached

    def take(self, reached: Tensor) -> None:
        """Put what `dense` returned, as others have changed it, in the place of the gradients.

        Args:
            reached: (rows, columns), what has a gradient.
        """
        every, gradients = self._dense
        alike: dict[tuple[bool, ...], list[int]] = {}
        for number, pattern in enumerate(reached.tolist()):
            alike.setdefault(tuple(pattern), []).append(number)
        self._taken = []
        for pattern, numbers in alike.items():
            chosen = gradients[numbers]
            leaves = []
            for column, has in zip(self.columns, pattern, strict=True):
                leaf = chosen.new_empty(len(numbers), *column.shape)
                leaf.grad = chosen[:, column.start : column.stop].reshape(leaf.shape) if has else None
                leaves.append(leaf)
            self._taken.append(([every[number] for number in numbers], leaves))

    def forget(self) -> None:
        """Drops what took part and its gradients."""
        self._taken.clear()

    @torch.no_grad()
    def step(self, share: float, betas: tuple[float, float]) -> None:
        """Adam, with `share` of every learning rate, for what received a gradient."""
        for rows, leaves in self._taken:
            index = torch.tensor(rows, device=self.values.device)
            for run in self._runs(rows, leaves):
                first, last = self.columns[run[0]], self.columns[run[-1]]
                gradient = torch.cat([leaves[number].grad.flatten(1) for number in run], 1)  # type: ignore[union-attr]
                self.steps[rows, run[0] : run[-1] + 1] += 1
                counts = self.steps[rows, run[0]].unsqueeze(1).to(gradient)
                values, moments, squares = (
                    table[:, first.start : last.stop] for table in (self.values, self.moments, self.squares)
                )
                mean = moments.index_select(0, index).lerp_(gradient, 1 - betas[0])
                square = squares.index_select(0, index).mul_(betas[1]).addcmul_(gradient, gradient, value=1 - betas[1])
                moments.index_copy_(0, index, mean)
                squares.index_copy_(0, index, square)
                scale = square.div_(1 - betas[1] ** counts).sqrt_().add_(1e-8)
                values.index_add_(0, index, mean.mul_(-first.rate * share / (1 - betas[0] ** counts)).div_(scale))
        self.forget()

    def _runs(self, rows: Sequence[int], leaves: Sequence[Tensor]) -> Iterator[list[int]]:
        """Neighbouring columns with gradients that are alike in learning rate and steps so far."""
        steps = self.steps[rows]
        alike = (steps[:, 1:] == steps[:, :-1]).all(0).tolist()
        run: list[int] = []
        for number, leaf in enumerate(leaves):
            if leaf.grad is None:
                continue
            joins = run and run[-1] == number - 1 and alike[number - 1]
            if run and not (joins and self.columns[run[-1]].rate == self.columns[number].rate):
                yield run
                run = []
            run.append(number)
        if run:
            yield run

    def state_dict(self) -> dict[str, Any]:
        return {
            "names": list(self.names),
            "columns": [column.key for column in self.columns],
            "moments": self.moments,
            "squares": self.squares,
            "steps": self.steps,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Raises `TzkError` if it is that of other knowledge types."""
        if state["names"] != list(self.names) or state["columns"] != [column.key for column in self.columns]:
            raise TzkError("the state of this training is that of other knowledge types: it cannot be resumed")
        for own, name in ((self.moments, "moments"), (self.squares, "squares"), (self.steps, "steps")):
            own.copy_(state[name])


class ParameterTables:
    """A table for every structure that more than `MANY` of the knowledge types have.

    What is in none is stacked as it is, and its parameters have gradients of their own.

    divided: whether each process has some rows of the tables, and no others.
    """

    def __init__(
        self, knowledge: Mapping[str, Knowledge], rate_of: Callable[[nn.Module], float], betas: tuple[float, float]
    ) -> None:
        self._betas = betas
        self.divided = False
        self._others = ModuleStacks()
        self._table_of: dict[str, ParameterTable] = {}
        self._tables: list[ParameterTable] = []
        alike: dict[Hashable, dict[str, Knowledge]] = {}
        owners: dict[int, int] = {}
        for module in knowledge.values():
            for _, parameter in module.named_parameters(remove_duplicate=False):
                owners[id(parameter)] = owners.get(id(parameter), 0) + 1
        for name, module in knowledge.items():
            own = [parameter for parameter in module.parameters() if parameter.requires_grad]
            uniform = len({(parameter.dtype, parameter.device) for parameter in own}) == 1
            if uniform and all(owners[id(parameter)] == 1 for parameter in own):
                alike.setdefault(structure(name, module), {})[name] = module
        for group in alike.values():
            if len(group) > MANY:
                table = ParameterTable(group, rate_of)
                self._tables.append(table)
                self._table_of |= dict.fromkeys(group, table)

    def divide(self, owners: Mapping[str, int], rank: int) -> None:
        """Keep the knowledge types of this process alone, which the tables then are of."""
        self.divided = True
        for table in self._tables:
            table.divide([row for row, name in enumerate(table.names) if owners[name] == rank])

    def unite(self, world: World) -> None:
        """Have all knowledge types in all processes again, which are to call it together."""
        if self.divided:
            for table in self._tables:
                table.unite(world, take=True)
        self.divided = False

    @contextmanager
    def whole(self, world: World) -> Iterator[None]:
        """Within the block, the first process has all knowledge types, to write or copy them.

        All processes are to enter it together.
        """
        own = [table.rows for table in self._tables]
        if self.divided:
            for table in self._tables:
                table.unite(world, take=world.first)
        try:
            yield
        finally:
            if self.divided and world.first:
                for table, rows in zip(self._tables, own, strict=True):
                    table.divide(rows)

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


def _columns(knowledge: Knowledge, rate_of: Callable[[nn.Module], float]) -> Iterator[Column]:
    start = 0
    for prefix, module in knowledge.named_modules():
        for key, parameter in module.named_parameters(prefix, recurse=False):
            if parameter.requires_grad:
                yield Column(key, parameter.shape, start, start + parameter.numel(), rate_of(module))
                start += parameter.numel()
