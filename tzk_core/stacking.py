"""Knowledge types of one structure evaluated together, so that a step costs by its samples and not by their number."""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.func import functional_call, vmap

from tzk_core.knowledge import Knowledge


class Stack:
    """Several knowledge types of one structure; a function of one is evaluated on all with their parameters stacked.

    Whoever wrote them: a knowledge type is pure functions of its parameters, which `torch.func` can map over. One that
    it cannot map over is evaluated one after the other, and so are all of its class from then on.

    state: by the name of a parameter or buffer, those of all, (k, ...), in the order of `kinds`. None, for a single
    knowledge type, evaluates it as it is.
    """

    def __init__(self, kinds: Mapping[str, Knowledge], state: Mapping[str, Tensor] | None) -> None:
        self.names = tuple(kinds)
        self._first = next(iter(kinds.values()))
        self._state = state

    @property
    def characteristics(self) -> int:
        """The length of C, of each."""
        return self._first.characteristics

    def frozen(self) -> Stack:
        """The same knowledge types with parameters that receive no gradient; what they are evaluated at still does."""
        state = self._state
        if state is None:
            state = {key: value.unsqueeze(0) for key, value in state_of(self._first).items()}
        other = copy.copy(self)
        other._state = {key: value.detach() for key, value in state.items()}
        return other

    def __call__(self, function: Callable[..., Any], *arguments: Any, shared: Sequence[int] = ()) -> Any:
        """function(knowledge type, *arguments), with a leading dimension for the knowledge types in every tensor of
        `arguments`, but for those at the positions `shared`, and in every tensor of the tuple that it returns."""
        mapped = [argument is not None and i not in shared for i, argument in enumerate(arguments)]
        if self._state is None:
            found = function(self._first, *_own(arguments, mapped, 0))
            return tuple(each.unsqueeze(0) for each in found)

        def one(state: Mapping[str, Tensor], *own: Any) -> Any:
            return functional_call(self._first, dict(state), (function, *own))

        if len(self.names) > 1 and type(self._first) not in _ALONE:
            try:
                return vmap(one, in_dims=(0, *(0 if own else None for own in mapped)))(self._state, *arguments)
            except (RuntimeError, ValueError, NotImplementedError) as error:
                _ALONE[type(self._first)] = str(error)
        each = [
            one({key: value[i] for key, value in self._state.items()}, *_own(arguments, mapped, i))
            for i in range(len(self.names))
        ]
        return tuple(torch.stack(values) for values in zip(*each, strict=True))


_ALONE: MutableMapping[type[Knowledge], str] = WeakKeyDictionary()
"""Classes that `torch.func` cannot map over, and what it said."""


def _own(arguments: Sequence[Any], mapped: Sequence[bool], i: int) -> list[Any]:
    """The arguments of knowledge type number i."""
    return [each[i] if own else each for own, each in zip(mapped, arguments, strict=True)]


class Stacks(Protocol):
    """Where stacked parameters come from."""

    def structure(self, name: str, kind: Knowledge) -> Hashable:
        """Equal for knowledge types that differ in the values of their tensors only."""
        ...

    def stack(self, kinds: Mapping[str, Knowledge]) -> Stack:
        """These knowledge types, of one structure, as one stack."""
        ...


class ModuleStacks:
    """Stacks the parameters of the modules themselves, which then receive the gradients."""

    def structure(self, name: str, kind: Knowledge) -> Hashable:
        return structure(name, kind)

    def stack(self, kinds: Mapping[str, Knowledge]) -> Stack:
        if len(kinds) == 1:
            return Stack(kinds, None)
        states = [state_of(kind) for kind in kinds.values()]
        return Stack(kinds, {key: torch.stack([each[key] for each in states]) for key in states[0]})


MODULES = ModuleStacks()


@dataclass(frozen=True)
class Rectangle:
    """Knowledge types that are evaluated together, and the samples of a batch that each of them is evaluated at.

    rows: (k, m), positions in the batch, padded with position 0; real: (k, m), where a position is no padding. m is 0
    for knowledge types without samples.
    """

    stack: Stack
    rows: Tensor
    real: Tensor

    @property
    def names(self) -> tuple[str, ...]:
        return self.stack.names

    def take(self, values: Tensor) -> Tensor:
        """The rows of `values`, (batch, ...), as (k, m, ...)."""
        return values.index_select(0, self.rows.flatten()).view(*self.rows.shape, *values.shape[1:])


def rectangles(
    kinds: Mapping[str, Knowledge], rows_of: Mapping[str, Tensor], stacks: Stacks = MODULES
) -> Iterator[Rectangle]:
    """The knowledge types in rectangles: of one structure, and with about as many samples.

    Within a rectangle the counts differ by less than a factor of two, or are at most 4, or at most 16, so that padding
    adds little. A stack is made for each, and not one for all to choose from: the gradient of a choice is as large as
    what was chosen from.
    """
    alike: dict[Hashable, dict[str, Knowledge]] = {}
    for name, kind in kinds.items():
        alike.setdefault((stacks.structure(name, kind), _size(len(rows_of[name]))), {})[name] = kind
    for group in alike.values():
        rows, real = padded([rows_of[name] for name in group])
        yield Rectangle(stacks.stack(group), rows, real)


def of_each(
    kinds: Mapping[str, Knowledge], function: Callable[..., Any], *arguments: Tensor, together: int = 128
) -> dict[str, tuple[Tensor, ...]]:
    """By name, the tuple of tensors function(knowledge type, *arguments), `together` of one structure at a time."""
    alike: dict[Hashable, list[str]] = {}
    for name, kind in kinds.items():
        alike.setdefault(structure(name, kind), []).append(name)
    found: dict[str, tuple[Tensor, ...]] = {}
    for names in alike.values():
        for start in range(0, len(names), together):
            some = {name: kinds[name] for name in names[start : start + together]}
            values = MODULES.stack(some)(function, *arguments, shared=range(len(arguments)))
            found |= dict(zip(some, zip(*values, strict=True), strict=True))
    return {name: found[name] for name in kinds}


def _size(count: int) -> int:
    """Equal for numbers of samples that are padded to one."""
    if count <= 4:
        return min(count, 1)
    return max(16, count - 1).bit_length()


def padded(each: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Positions, (m_i,) each, as one rectangle (k, m), padded with 0, and where it is no padding, (k, m)."""
    rows = torch.nn.utils.rnn.pad_sequence(list(each), batch_first=True)
    counts = torch.tensor([len(r) for r in each], device=rows.device)
    return rows, torch.arange(rows.shape[1], device=rows.device) < counts[:, None]


def structure(name: str, kind: Knowledge) -> Hashable:
    """Equal for knowledge types that differ in the values of their tensors only; one built in Python is alone."""
    if kind.part is None:
        return name
    tensors = tuple((key, value.shape, value.dtype, value.requires_grad) for key, value in state_of(kind).items())
    return kind.part.qualified_name, repr(sorted(kind.part.arguments.items())), type(kind), tensors


def state_of(kind: Knowledge) -> dict[str, Tensor]:
    """All parameters and buffers, those that are not saved too."""
    return {**dict(kind.named_parameters()), **dict(kind.named_buffers())}
