"""Knowledge types of one structure, evaluated together: the cost grows with samples only."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from tzk_core.knowledge.base import Knowledge
from tzk_core.knowledge.collection import KnowledgeDict
from tzk_core.knowledge.elsewhere import Elsewhere

KnowledgeByName = Mapping[str, Knowledge] | KnowledgeDict

States = Sequence[Mapping[str, Tensor]] | Mapping[str, Tensor]
"""Parameters and buffers by name: one mapping a knowledge type, or one of all k stacked, (k, ...)."""


class Stack:
    """Several knowledge types of one structure, with stacked parameters.

    A knowledge type is pure functions of its parameters, which `torch.func` can map over. A class that it cannot map
    over is evaluated one knowledge type after the other; the first failure warns.

    knowledge: by name.
    states: in the order of `knowledge`. They are stacked here where they are not; a single knowledge type is evaluated
        as it is, by its own parameters.
    not_vmappable: the classes that failed so far, to which this adds; that of the model (`TzK.not_vmappable`).
    """

    def __init__(
        self, knowledge: Mapping[str, Knowledge], states: States, not_vmappable: set[type[Knowledge]] | None = None
    ) -> None:
        self.names = tuple(knowledge)
        self.not_vmappable = set() if not_vmappable is None else not_vmappable
        self._first = next(iter(knowledge.values()))
        self._as_it_is = False
        if isinstance(states, Mapping):
            self._state = dict(states)
        elif len(states) > 1:
            self._state = {key: torch.stack([state[key] for state in states]) for key in states[0]}
        else:
            self._as_it_is, self._state = True, dict(states[0])

    def frozen(self) -> Stack:
        """The same knowledge types with parameters that receive no gradient; their arguments still do."""
        state = {key: value.detach() for key, value in self._state.items()}
        if self._as_it_is:
            state = {key: value.unsqueeze(0) for key, value in state.items()}
        return Stack(dict.fromkeys(self.names, self._first), state, self.not_vmappable)

    def __call__(self, function: Callable[..., Any], *arguments: Any, shared: Sequence[int] = ()) -> Any:
        """Evaluate function(knowledge type, *arguments) on all, with a leading dimension for the knowledge types.

        Args:
            function: returns a tuple of tensors, which may be a named one.
            arguments: tensors with that dimension, or None.
            shared: the positions of arguments that all have in common, without that dimension.

        Returns:
            A tuple like the function's, of tensors with that dimension.
        """
        mapped = [argument is not None and i not in shared for i, argument in enumerate(arguments)]
        if self._as_it_is:
            values = function(self._first, *_own(arguments, mapped, 0))
            return _like(values, (value.unsqueeze(0) for value in values))
        if len(self.names) == 1 or type(self._first) in self.not_vmappable:
            return self._one_by_one(function, arguments, mapped)
        if torch.compiler.is_compiling():
            return self._together(function, arguments, mapped)
        try:
            return self._together(function, arguments, mapped)
        except (RuntimeError, ValueError, NotImplementedError) as error:
            failure = error.with_traceback(None)  # the frames hold what was allocated
        values = self._one_by_one(function, arguments, mapped)
        if not _is_out_of_memory(failure):  # nor a mistake in `function`, which fails one by one too
            self._warn(failure)
        return values

    def _together(self, function: Callable[..., Any], arguments: Sequence[Any], mapped: Sequence[bool]) -> Any:
        """The function mapped over all knowledge types at once."""

        def one(state: Mapping[str, Tensor], *own: Any) -> Any:
            return functional_call(self._first, dict(state), (function, *own))

        return vmap(one, in_dims=(0, *(0 if own else None for own in mapped)))(self._state, *arguments)

    def _one_by_one(self, function: Callable[..., Any], arguments: Sequence[Any], mapped: Sequence[bool]) -> Any:
        """The function of one knowledge type after the other."""
        values = []
        for i in range(len(self.names)):
            state = {key: value[i] for key, value in self._state.items()}
            values.append(functional_call(self._first, state, (function, *_own(arguments, mapped, i))))
        return _like(values[0], (torch.stack(column) for column in zip(*values, strict=True)))

    def _warn(self, failure: Exception) -> None:
        """Record that the class cannot be mapped over, and say so once a model."""
        cls = type(self._first)
        self.not_vmappable.add(cls)
        reason = str(failure).strip().split("\n")[0]
        warnings.warn(
            f"{cls.__qualname__} cannot be evaluated by torch.func.vmap, so its knowledge types are evaluated one "
            f"after the other, which is slower: {reason}. `tzk_core.testing.check_knowledge` checks the class",
            stacklevel=3,
        )


def _is_out_of_memory(error: Exception) -> bool:
    """Whether an allocation failed, which says nothing of the function: a smaller batch may fit."""
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)


def _like(values: Any, others: Iterator[Tensor]) -> Any:
    """Other tensors in a tuple like `values`, named if that is."""
    return type(values)(*others) if hasattr(values, "_fields") else tuple(others)


def _own(arguments: Sequence[Any], mapped: Sequence[bool], i: int) -> list[Any]:
    """The arguments of knowledge type number i."""
    return [argument[i] if own else argument for own, argument in zip(mapped, arguments, strict=True)]


class Stacks(Protocol):
    """Where the parameters of several knowledge types come from."""

    def structure(self, name: str, knowledge: Knowledge) -> Hashable:
        """Equal for knowledge types that differ in the values of their tensors only."""
        ...

    def states(self, knowledge: Mapping[str, Knowledge]) -> States:
        """The parameters of these knowledge types, of one structure, in their order."""
        ...


class ModuleStacks:
    """The parameters of the modules themselves, which then receive the gradients."""

    def structure(self, name: str, knowledge: Knowledge) -> Hashable:
        return structure(name, knowledge)

    def states(self, knowledge: Mapping[str, Knowledge]) -> list[Mapping[str, Tensor]]:
        return [state_of(member) for member in knowledge.values()]


MODULES = ModuleStacks()


@dataclass(frozen=True)
class Rectangle:
    """k knowledge types that are evaluated together, at m samples of a batch each.

    rows: (k, m), positions in the batch, padded with position 0; m is 0 for knowledge types without samples.
    real: (k, m), where a position is no padding.
    not_vmappable: as of `Stack`.
    """

    knowledge: Mapping[str, Knowledge]
    states: States
    rows: Tensor
    real: Tensor
    not_vmappable: set[type[Knowledge]] = field(default_factory=set)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.knowledge)

    @property
    def characteristics(self) -> int:
        """The length of C, which all have in common."""
        return next(iter(self.knowledge.values())).characteristics

    @property
    def stack(self) -> Stack:
        """The parameters stacked, anew each time, so that a compiled graph contains it."""
        return Stack(self.knowledge, self.states, self.not_vmappable)

    def take(self, values: Tensor) -> Tensor:
        """The rows of `values`, (batch, ...), as (k, m, ...)."""
        return values.index_select(0, self.rows.flatten()).view(*self.rows.shape, *values.shape[1:])


def rectangles(
    knowledge: Mapping[str, Knowledge],
    rows_of: Mapping[str, Tensor],
    *,
    stacks: Stacks = MODULES,
    sizes: dict[str, int] | None = None,
    not_vmappable: set[type[Knowledge]] | None = None,
) -> Iterator[Rectangle]:
    """Knowledge types in rectangles: of one structure, and with about as many samples.

    Within a rectangle the counts differ by less than a factor of two, or are at most 4, or at most 16, so that padding
    adds little. They differ by more where types are so small that another rectangle would cost more than the padding.
    Every rectangle has a stack of its own, rather than rows of one stack: the gradient of an indexed tensor is as large
    as the whole tensor.

    Args:
        rows_of: by knowledge type, positions in the batch, (n,).
        stacks: where parameters come from.
        sizes: by knowledge type, the class of counts that it was last in. One that is in it stays in its class, so that
            the same knowledge types are together in every batch, with 2 rows at least; others are added to it.
        not_vmappable: as of `Stack`.
    """
    alike: dict[tuple[Hashable, int], dict[str, Knowledge]] = {}
    for name, member in knowledge.items():
        size = _size(len(rows_of[name]))
        if sizes is not None:
            size = sizes.setdefault(name, max(size, _size(_FEW + 1)))
        alike.setdefault((stacks.structure(name, member), size), {})[name] = member
    failed = set() if not_vmappable is None else not_vmappable
    for group in alike.values() if sizes is not None else _joined(alike, rows_of):
        rows, real = _padded([rows_of[name] for name in group], 0 if sizes is None else 2)
        yield Rectangle(group, stacks.states(group), rows, real, failed)


TOGETHER = 128
"""So many knowledge types of one structure are evaluated at a time."""


class Some(NamedTuple):
    """Knowledge types of one structure, and their tensors in the same order.

    Their modules may be one and the same, which is then evaluated on the tensors of each.
    """

    knowledge: Mapping[str, Knowledge]
    states: Sequence[Mapping[str, Tensor]]

    def each(self) -> Iterator[tuple[str, Callable[..., Any]]]:
        """Name, and a function that returns function(knowledge type, *arguments)."""
        for (name, member), state in zip(self.knowledge.items(), self.states, strict=True):
            yield name, partial(_called, member, state)


def _called(member: Knowledge, state: Mapping[str, Tensor], function: Callable[..., Any], *arguments: Any) -> Any:
    return functional_call(member, dict(state), (function, *arguments))


def in_parts(knowledge: KnowledgeByName, together: int = TOGETHER) -> Iterator[Some]:
    """All knowledge types, at most so many at a time, one structure after the other.

    A lazily opened model reads them as they are reached.
    """
    parts = getattr(type(knowledge), "in_parts", _in_parts)
    yield from parts(knowledge, together)


def evaluate_each(
    knowledge: KnowledgeByName,
    function: Callable[..., Any],
    *arguments: Tensor,
    together: int = TOGETHER,
    not_vmappable: set[type[Knowledge]] | None = None,
) -> Iterator[tuple[str, tuple[Tensor, ...]]]:
    """Yield name and function(knowledge type, *arguments), one structure after the other.

    The function returns a tuple of tensors, which may be a named one.

    Args:
        together: how many of one structure are evaluated at a time.
        not_vmappable: as of `Stack`.
    """
    for some in in_parts(knowledge, together):
        stack = Stack(some.knowledge, some.states, not_vmappable)
        columns = stack(function, *arguments, shared=range(len(arguments)))
        for name, row in zip(some.knowledge, zip(*columns, strict=True), strict=True):
            yield name, _like(columns, iter(row))


def evaluate_all(
    knowledge: KnowledgeByName,
    function: Callable[..., Any],
    *arguments: Tensor,
    together: int = TOGETHER,
    not_vmappable: set[type[Knowledge]] | None = None,
) -> dict[str, tuple[Tensor, ...]]:
    """What `evaluate_each` yields, by name, in the order of `knowledge`."""
    values = dict(evaluate_each(knowledge, function, *arguments, together=together, not_vmappable=not_vmappable))
    return {name: values[name] for name in knowledge}


def _in_parts(knowledge: KnowledgeByName, together: int) -> Iterator[Some]:
    alike: dict[Hashable, dict[str, Knowledge]] = {}
    for name, member in knowledge.items():
        alike.setdefault(structure(name, member), {})[name] = member
    for group in map(iter, [members.items() for members in alike.values()]):
        while some := dict(itertools.islice(group, together)):
            yield Some(some, MODULES.states(some))


def _joined(
    alike: Mapping[tuple[Hashable, int], dict[str, Knowledge]], rows_of: Mapping[str, Tensor]
) -> Iterator[dict[str, Knowledge]]:
    """Knowledge types of one structure and size.

    Those of neighbouring sizes are together where the padding costs less than a call. Those without samples stay by
    themselves, as they are evaluated at other samples.
    """
    by_structure: dict[Hashable, list[int]] = {}
    for structure, size in alike:
        by_structure.setdefault(structure, []).append(size)
    for structure, sizes in by_structure.items():
        joined: dict[str, Knowledge] = {}
        for size in sorted(sizes):
            group = alike[structure, size]
            if joined and not _is_little(joined, group, rows_of):
                yield joined
                joined = {}
            joined = joined | group
            if not size:
                yield joined
                joined = {}
        if joined:
            yield joined


def _is_little(fewer: Mapping[str, Knowledge], more: Mapping[str, Knowledge], rows_of: Mapping[str, Tensor]) -> bool:
    """Whether it costs little to evaluate knowledge types at more samples, as others are."""
    most, own = (max(len(rows_of[name]) for name in group) for group in (more, fewer))
    parameters = sum(parameter.numel() for parameter in next(iter(fewer.values())).parameters())
    return len(fewer) * (most - own) * parameters <= _LITTLE


_LITTLE = 2**20
"""So many products, of parameters and samples, take less time than another call of `torch.func.vmap`."""

_FEW = 4
"""Up to so many samples are padded to one another."""


def _size(count: int) -> int:
    """Equal for numbers of samples that are padded to one."""
    if count <= _FEW:
        return min(count, 1)
    return max(16, count - 1).bit_length()


def _padded(positions: Sequence[Tensor], least: int) -> tuple[Tensor, Tensor]:
    """Positions, (m_i,) each, padded with 0 to (k, m), and where that is no padding.

    m is `least` or more.
    """
    rows = torch.nn.utils.rnn.pad_sequence(list(positions), batch_first=True)
    rows = torch.nn.functional.pad(rows, (0, max(0, least - rows.shape[1])))
    counts = torch.tensor([len(own) for own in positions], device=rows.device)
    return rows, torch.arange(rows.shape[1], device=rows.device) < counts[:, None]


def structure(name: str, knowledge: Knowledge) -> Hashable:
    """Equal for knowledge types that differ in the values of their tensors only.

    One without a part, made in Python, equals no other.
    """
    if isinstance(knowledge, Elsewhere):
        knowledge = knowledge.like
    part = knowledge.part
    if part is None:
        return name
    tensors = tuple((key, value.shape, value.dtype, value.requires_grad) for key, value in state_of(knowledge).items())
    return part.qualified_name, repr(sorted(part.arguments.items())), type(knowledge), tensors


def state_of(knowledge: Knowledge) -> dict[str, Tensor]:
    """All parameters and buffers, those that are not saved too.

    Parameters come before buffers, and one in several places comes once, as torch names them; torch takes longer.
    """
    held = list(_held(knowledge, ""))
    parameters = {prefix + key: value for prefix, part in held for key, value in part._parameters.items()}
    buffers = {prefix + key: value for prefix, part in held for key, value in part._buffers.items()}
    found = {key: value for key, value in (parameters | buffers).items() if value is not None}
    if len({id(value) for value in found.values()}) < len(found):
        return {**dict(knowledge.named_parameters()), **dict(knowledge.named_buffers())}
    return found


def _held(module: nn.Module, prefix: str) -> Iterator[tuple[str, nn.Module]]:
    """A module and all in it, with what precedes the names of their tensors."""
    yield prefix, module
    for key, part in module._modules.items():
        if part is not None:
            yield from _held(part, f"{prefix}{key}.")
