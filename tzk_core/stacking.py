"""Knowledge types of one structure evaluated together, so that a step costs by its samples and not by their number."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call, vmap

from tzk_core.knowledge import Knowledge


class Stack:
    """Several knowledge types of one structure; a function of one is evaluated on all with their parameters stacked.

    Whoever wrote them: a knowledge type is pure functions of its parameters, which `torch.func` can map over.
    """

    def __init__(self, kinds: Mapping[str, Knowledge]) -> None:
        self.names = tuple(kinds)
        self._first = next(iter(kinds.values()))
        states = [_state(kind) for kind in kinds.values()]
        self._alone = len(states) == 1
        self._state = states[0] if self._alone else {key: torch.stack([s[key] for s in states]) for key in states[0]}

    @property
    def characteristics(self) -> int:
        """The length of C, of each."""
        return self._first.characteristics

    def select(self, names: Sequence[str]) -> Stack:
        """The stack of some of these knowledge types, in the order of `names`."""
        if tuple(names) == self.names:
            return self
        index = [self.names.index(name) for name in names]
        return self._with({key: value[index] for key, value in self._state.items()}, names)

    def frozen(self) -> Stack:
        """The same knowledge types with parameters that receive no gradient; what they are evaluated at still does."""
        return self._with({key: value.detach() for key, value in self._state.items()}, self.names)

    def __call__(self, function: Callable[..., Any], *arguments: Any, shared: Sequence[int] = ()) -> Any:
        """function(knowledge type, *arguments), with a leading dimension for the knowledge types in every tensor of
        `arguments`, but for those at the positions `shared`, and in every tensor of the tuple that it returns."""
        mapped = [argument is not None and i not in shared for i, argument in enumerate(arguments)]

        def one(state: dict[str, Tensor], *own: Any) -> Any:
            return functional_call(self._first, state, (function, *own))

        if self._alone:
            own = [each.squeeze(0) if own else each for own, each in zip(mapped, arguments, strict=True)]
            return tuple(each.unsqueeze(0) for each in one(self._state, *own))
        return vmap(one, in_dims=(0, *(0 if own else None for own in mapped)))(self._state, *arguments)

    def _with(self, state: dict[str, Tensor], names: Sequence[str]) -> Stack:
        other = Stack.__new__(Stack)
        other.names, other._first, other._alone, other._state = tuple(names), self._first, self._alone, state
        return other


def stacks(kinds: Mapping[str, Knowledge]) -> Iterator[Stack]:
    """The knowledge types in stacks of one structure, in the order in which a structure first occurs."""
    alike: dict[Hashable, dict[str, Knowledge]] = {}
    for name, kind in kinds.items():
        alike.setdefault(_structure(name, kind), {})[name] = kind
    return (Stack(group) for group in alike.values())


@dataclass(frozen=True)
class Routed:
    """Which samples of a batch go to which knowledge types of a stack, as one rectangle.

    names: the knowledge types; rows: (k, m), positions in the batch, padded with position 0; real: (k, m), where a
    position is no padding.
    """

    names: tuple[str, ...]
    rows: Tensor
    real: Tensor

    def take(self, values: Tensor) -> Tensor:
        """The rows of `values`, (batch, ...), as (k, m, ...)."""
        return values.index_select(0, self.rows.flatten()).view(*self.rows.shape, *values.shape[1:])


def route(rows_of: Mapping[str, Tensor]) -> Iterator[Routed]:
    """Rectangles for the knowledge types that have samples, those with about as many samples together: within a
    rectangle the counts differ by less than a factor of two, so that padding at most doubles the work."""
    alike: dict[int, list[str]] = {}
    for name, rows in rows_of.items():
        if len(rows):
            alike.setdefault(max(16, len(rows) - 1).bit_length(), []).append(name)
    for names in alike.values():
        each = [rows_of[name] for name in names]
        rows = torch.nn.utils.rnn.pad_sequence(each, batch_first=True)
        counts = torch.tensor([len(r) for r in each], device=rows.device)
        real = torch.arange(rows.shape[1], device=rows.device) < counts[:, None]
        yield Routed(tuple(names), rows, real)


def _structure(name: str, kind: Knowledge) -> Hashable:
    """Equal for knowledge types that differ in the values of their tensors only; one built in Python is alone."""
    if kind.part is None:
        return name
    shapes = tuple((key, value.shape, value.dtype) for key, value in _state(kind).items())
    trained = tuple(parameter.requires_grad for parameter in kind.parameters())
    return kind.part.qualified_name, repr(sorted(kind.part.arguments.items())), type(kind), shapes, trained


def _state(kind: Knowledge) -> dict[str, Tensor]:
    return {**dict(kind.named_parameters()), **dict(kind.named_buffers())}
