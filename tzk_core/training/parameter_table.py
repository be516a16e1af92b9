"""Parameters of many knowledge types of one structure in one table, with its Adam.

Adam updates those rows alone that a step uses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from tzk_core.errors import TzkError
from tzk_core.knowledge import Knowledge
from tzk_core.knowledge.collection import KnowledgeDict
from tzk_core.knowledge.elsewhere import Elsewhere
from tzk_core.knowledge.stacking import States, state_of
from tzk_core.storage.clone import copy_around
from tzk_core.training.gathering import gathered
from tzk_core.world import World


@dataclass(frozen=True)
class Column:
    """A trained parameter: its place in each row of a table, and its learning rate."""

    key: str
    shape: torch.Size
    start: int
    stop: int
    rate: float


class Gathered(NamedTuple):
    """The rows of all processes, where they were taken, and those of this one elsewhere.

    fixed: by key, what is not trained, (types, numbers), and the shape of each.
    """

    values: Tensor
    moments: Tensor
    squares: Tensor
    steps: Tensor
    fixed: dict[str, tuple[Tensor, torch.Size]]


class ParameterTable:
    """Trained parameters of knowledge types of one structure, (types, parameters).

    The modules' parameters are views of it.

    A step takes the rows that it needs, whatever their number, by one operation, and updates these alone. The others
    keep their moments and counts of steps, as in `torch.optim.Adam` parameters without a gradient do.

    rows: the knowledge types whose parameters are here, by their positions in `names`: all but those `Elsewhere`.
    """

    def __init__(self, knowledge: Mapping[str, Knowledge], rate_of: Callable[[nn.Module], float]) -> None:
        self.names = tuple(knowledge)
        here = {name: kind for name, kind in knowledge.items() if not isinstance(kind, Elsewhere)}
        others = (kind.like for kind in knowledge.values() if isinstance(kind, Elsewhere))
        self._like: Knowledge = next(others, next(iter(knowledge.values())))
        self.columns = tuple(_columns(self._like, rate_of))
        trained = {column.key for column in self.columns}
        parameters = {name: dict(kind.named_parameters()) for name, kind in here.items()}
        self._parameters = {name: [own[column.key] for column in self.columns] for name, own in parameters.items()}
        with torch.no_grad():
            tables = [torch.cat([part.detach().flatten() for part in own]) for own in self._parameters.values()]
            like = [own for key, own in self._like.named_parameters() if key in trained]
            self.values = torch.stack(tables) if tables else like[0].new_empty(0, self.columns[-1].stop)
        self._fixed = {
            name: {key: value for key, value in state_of(kind).items() if key not in trained}
            for name, kind in here.items()
        }
        self._bind([row for row, name in enumerate(self.names) if name in here])
        self.moments = torch.zeros_like(self.values)
        self.squares = torch.zeros_like(self.values)
        self.steps = torch.zeros(len(self.rows), len(self.columns))
        self._taken: list[tuple[list[int], list[Tensor]]] = []
        self._dense: tuple[list[int], Tensor] = [], self.values[:0]

    def _bind(self, rows: Sequence[int]) -> None:
        """Make parameters views of the table, which has these rows."""
        self.rows = tuple(rows)
        self._row = {self.names[row]: place for place, row in enumerate(self.rows)}
        for name, place in self._row.items():
            for column, parameter in zip(self.columns, self._parameters[name], strict=True):
                parameter.data = self.values[place, column.start : column.stop].view(column.shape)
        self._places = [self._parameters[self.names[row]][0].data_ptr() for row in self.rows]

    def divide(self, rows: Sequence[int], members: KnowledgeDict) -> None:
        """Keep these rows alone, of all; in `members` the others are `Elsewhere` then."""
        index = torch.tensor(rows, dtype=torch.int64)
        self.values, self.moments, self.squares = (
            table[index.to(table.device)] for table in (self.values, self.moments, self.squares)
        )
        self.steps = self.steps[index]
        self.forget()
        kept = {self.names[row] for row in rows}
        self._like = copy_around(self._like, {key: own.clone() for key, own in self._like.state_dict().items()})
        for name in self.names:
            if name not in kept:
                members[name] = Elsewhere(self._like, members[name].implies)
                del self._parameters[name], self._fixed[name]
        self._bind(rows)

    def gathered(self, world: World, *, take: bool) -> Gathered:
        """All rows, those of others from their owners, where they are to be taken.

        All processes are to call it together.
        """
        count = len(self.names)
        values, moments, squares, steps = (
            gathered(world, table, self.rows, count=count, take=take)
            for table in (self.values, self.moments, self.squares, self.steps)
        )
        fixed = {}
        trained = {column.key for column in self.columns}
        for key, like in state_of(self._like).items():
            if key not in trained:
                own = [self._fixed[self.names[row]][key].detach().flatten() for row in self.rows]
                table = torch.stack(own) if own else like.new_empty(0, like.numel())
                if like.numel():
                    table = gathered(world, table, self.rows, count=count, take=take)
                fixed[key] = (table, like.shape)
        return Gathered(values, moments, squares, steps, fixed)

    def unite(self, world: World, members: KnowledgeDict, attach: Callable[[Knowledge], None]) -> None:
        """Have all rows again, and knowledge types around them.

        They take the place of those that are `Elsewhere`. All processes are to call it together.
        """
        every = self.gathered(world, take=True)
        here = set(self.rows)
        self.values, self.moments, self.squares, self.steps = every[:4]
        for row, name in enumerate(self.names):
            if row not in here:
                state = self._state_of(every, row)
                own = {key: state[key].clone() for key in self._like.state_dict()}
                kind = copy_around(self._like, own)
                for key, value in state_of(kind).items():
                    if key not in own:
                        value.data.copy_(state[key])
                kind.describe_as(implies=members[name].implies)
                attach(kind)
                members[name] = kind.eval()
                trained = dict(kind.named_parameters())
                self._parameters[name] = [trained[column.key] for column in self.columns]
                keys = {column.key for column in self.columns}
                self._fixed[name] = {key: value for key, value in state_of(kind).items() if key not in keys}
        self._bind(range(len(self.names)))

    @contextmanager
    def lent(self, world: World, members: KnowledgeDict, *, take: bool) -> Iterator[None]:
        """Within the block, the table has all rows, and those `Elsewhere` have tensors."""
        every = self.gathered(world, take=take)
        own = self.values, self.moments, self.squares, self.steps
        here, keys = set(self.rows), list(self._like.state_dict())
        others = [(row, members[name]) for row, name in enumerate(self.names) if take and row not in here]
        if take:
            self.values, self.moments, self.squares, self.steps = every[:4]
        for row, placeholder in others:
            vars(placeholder)["source"] = partial(self._stored, every, row, keys)
        try:
            yield
        finally:
            for _, placeholder in others:
                vars(placeholder)["source"] = None
            self.values, self.moments, self.squares, self.steps = own

    def _stored(self, every: Gathered, row: int, keys: Sequence[str]) -> dict[str, Tensor]:
        state = self._state_of(every, row)
        return {key: state[key] for key in keys}

    def _state_of(self, every: Gathered, row: int) -> dict[str, Tensor]:
        """All tensors of a knowledge type, by the keys of `state_of`."""
        state = {key: table[row].view(shape) for key, (table, shape) in every.fixed.items()}
        return state | {
            column.key: every.values[row, column.start : column.stop].view(column.shape) for column in self.columns
        }

    def states(self, knowledge: Mapping[str, Knowledge]) -> States:
        """These rows; what they are evaluated as receives the gradients that `step` takes."""
        rows = [self._row[name] for name in knowledge]
        if any(self._parameters[name][0].data_ptr() != self._places[self._row[name]] for name in knowledge):
            raise TzkError("the model was moved to another device or type since its training began: train it anew")
        chosen = self.values.index_select(0, torch.tensor(rows, device=self.values.device))
        leaves = [
            chosen[:, column.start : column.stop].view(len(rows), *column.shape).requires_grad_()
            for column in self.columns
        ]
        self._taken.append((rows, leaves))
        state = {column.key: leaf for column, leaf in zip(self.columns, leaves, strict=True)}
        fixed = [self._fixed[name] for name in knowledge]
        for key in fixed[0]:
            state[key] = torch.stack([own[key] for own in fixed])
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


def _columns(knowledge: Knowledge, rate_of: Callable[[nn.Module], float]) -> Iterator[Column]:
    start = 0
    for prefix, module in knowledge.named_modules():
        for key, parameter in module.named_parameters(prefix, recurse=False):
            if parameter.requires_grad:
                yield Column(key, parameter.shape, start, start + parameter.numel(), rate_of(module))
                start += parameter.numel()
