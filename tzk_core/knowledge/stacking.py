"""Knowledge types of one structure evaluated together, so that a step costs by its samples and not by their number."""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.func import functional_call, vmap

from tzk_core.knowledge.base import Knowledge

States = Sequence[Mapping[str, Tensor]] | Mapping[str, Tensor]
"""Parameters and buffers of several knowledge types, by name: those of each, or of all at once, (k, ...)."""


class Stack:
    """Several knowledge types of one structure; a function of one is evaluated on all with their parameters stacked.

    Whoever wrote them: a knowledge type is pure functions of its parameters, which `torch.func` can map over. One that
    it cannot map over is evaluated one after the other, and so are all of its class from then on.

    states: in the order of `kinds`. Given for each, they are stacked here; a single knowledge type is evaluated as it
        is, by its own parameters.
    """

    def __init__(self, kinds: Mapping[str, Knowledge], states: States) -> None:
        self.names = tuple(kinds)
        self._first = next(iter(kinds.values()))
        self._as_it_is = False
        if isinstance(states, Mapping):
            self._state = dict(states)
        elif len(states) > 1:
            self._state = {key: torch.stack([each[key] for each in states]) for key in states[0]}
        else:
            self._as_it_is, self._state = True, dict(states[0])

    def frozen(self) -> Stack:
        """The same knowledge types with parameters that receive no gradient; what they are evaluated at still does."""
        other = copy.copy(self)
        other._state = {key: value.detach() for key, value in self._state.items()}
        if self._as_it_is:
            other._as_it_is = False
            other._state = {key: value.unsqueeze(0) for key, value in other._state.items()}
        return other

    def __call__(self, function: Callable[..., Any], *arguments: Any, shared: Sequence[int] = ()) -> Any:
        """function(knowledge type, *arguments), with a leading dimension for the knowledge types in every tensor of
        `arguments`, but for those at the positions `shared`, and in every tensor of the tuple that it returns."""
        mapped = [argument is not None and i not in shared for i, argument in enumerate(arguments)]
        if self._as_it_is:
            found = function(self._first, *_own(arguments, mapped, 0))
            return tuple(each.unsqueeze(0) for each in found)

        def one(state: Mapping[str, Tensor], *own: Any) -> Any:
            return functional_call(self._first, dict(state), (function, *own))

        if len(self.names) > 1 and type(self._first) not in _ALONE:
            together = vmap(one, in_dims=(0, *(0 if own else None for own in mapped)))
            if torch.compiler.is_compiling():
                return together(self._state, *arguments)
            try:
                return together(self._state, *arguments)
            except (RuntimeError, ValueError, NotImplementedError):
                _ALONE.add(type(self._first))
        each = [
            one({key: value[i] for key, value in self._state.items()}, *_own(arguments, mapped, i))
            for i in range(len(self.names))
        ]
        return tuple(torch.stack(values) for values in zip(*each, strict=True))


_ALONE: set[type[Knowledge]] = set()
"""Classes that `torch.func` cannot map over."""


def _own(arguments: Sequence[Any], mapped: Sequence[bool], i: int) -> list[Any]:
    """The arguments of knowledge type number i."""
    return [each[i] if own else each for own, each in zip(mapped, arguments, strict=True)]


class Stacks(Protocol):
    """Where the parameters of several knowledge types come from."""

    def structure(self, name: str, kind: Knowledge) -> Hashable:
        """Equal for knowledge types that differ in the values of their tensors only."""
        ...

    def states(self, kinds: Mapping[str, Knowledge]) -> States:
        """Those of these knowledge types, of one structure, in their order."""
        ...


class ModuleStacks:
    """The parameters of the modules themselves, which then receive the gradients."""

    def structure(self, name: str, kind: Knowledge) -> Hashable:
        return structure(name, kind)

    def states(self, kinds: Mapping[str, Knowledge]) -> States:
        return [state_of(kind) for kind in kinds.values()]


MODULES = ModuleStacks()


@dataclass(frozen=True)
class Rectangle:
    """Knowledge types that are evaluated together, and the samples of a batch that each of them is evaluated at.

    rows: (k, m), positions in the batch, padded with position 0; real: (k, m), where a position is no padding. m is 0
    for knowledge types without samples.
    """

    kinds: Mapping[str, Knowledge]
    states: States
    rows: Tensor
    real: Tensor

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.kinds)

    @property
    def characteristics(self) -> int:
        """The length of C, of each."""
        return next(iter(self.kinds.values())).characteristics

    @property
    def stack(self) -> Stack:
        """Made when it is needed, so that a compiled objective has the stacking in its graph."""
        return Stack(self.kinds, self.states)

    def take(self, values: Tensor) -> Tensor:
        """The rows of `values`, (batch, ...), as (k, m, ...)."""
        return values.index_select(0, self.rows.flatten()).view(*self.rows.shape, *values.shape[1:])


def rectangles(
    kinds: Mapping[str, Knowledge],
    rows_of: Mapping[str, Tensor],
    stacks: Stacks = MODULES,
    sizes: dict[str, int] | None = None,
) -> Iterator[Rectangle]:
    """The knowledge types in rectangles: of one structure, and with about as many samples.

    Within a rectangle the counts differ by less than a factor of two, or are at most 4, or at most 16, so that padding
    adds little. A stack is made for each, and not one for all to choose from: the gradient of a choice is as large as
    what was chosen from.

    sizes: by knowledge, the class of counts that it was last put in. What is in it stays where it was, so that the same
    knowledge types are together in every batch, and has 2 rows at least; what is not is put in.
    """
    alike: dict[Hashable, dict[str, Knowledge]] = {}
    for name, kind in kinds.items():
        size = _size(len(rows_of[name]))
        if sizes is not None:
            size = sizes.setdefault(name, max(size, _size(_FEW + 1)))
        alike.setdefault((stacks.structure(name, kind), size), {})[name] = kind
    for group in alike.values():
        rows, real = _padded([rows_of[name] for name in group], 0 if sizes is None else 2)
        yield Rectangle(group, stacks.states(group), rows, real)


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
            values = Stack(some, MODULES.states(some))(function, *arguments, shared=range(len(arguments)))
            found |= dict(zip(some, zip(*values, strict=True), strict=True))
    return {name: found[name] for name in kinds}


_FEW = 4
"""Up to so many samples are padded to one another."""


def _size(count: int) -> int:
    """Equal for numbers of samples that are padded to one."""
    if count <= _FEW:
        return min(count, 1)
    return max(16, count - 1).bit_length()


def _padded(each: Sequence[Tensor], least: int) -> tuple[Tensor, Tensor]:
    """Positions, (m_i,) each, as one rectangle (k, m), padded with 0, and where it is no padding, (k, m); m is `least`
    or more."""
    rows = torch.nn.utils.rnn.pad_sequence(list(each), batch_first=True)
    rows = torch.nn.functional.pad(rows, (0, max(0, least - rows.shape[1])))
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
