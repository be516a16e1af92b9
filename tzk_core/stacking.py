"""Knowledge types of one structure evaluated together, so that a step costs by its samples and not by their number."""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call, vmap

from tzk_core.knowledge import Knowledge


class Stack:
    """Several knowledge types of one structure; a function of one is evaluated on all with their parameters stacked.

    Whoever wrote them: a knowledge type is pure functions of its parameters, which `torch.func` can map over. One that
    is alone is evaluated as it is.
    """

    def __init__(self, kinds: Mapping[str, Knowledge], states: Sequence[Mapping[str, Tensor]]) -> None:
        self.names = tuple(kinds)
        self._first = next(iter(kinds.values()))
        self._alone = len(states) == 1
        self._frozen = False
        self._state = (
            dict(states[0]) if self._alone else {key: torch.stack([each[key] for each in states]) for key in states[0]}
        )

    def frozen(self) -> Stack:
        """The same knowledge types with parameters that receive no gradient; what they are evaluated at still does."""
        other = copy.copy(self)
        other._frozen = True
        other._state = {key: value.detach() for key, value in self._state.items()}
        return other

    def __call__(self, function: Callable[..., Any], *arguments: Any, shared: Sequence[int] = ()) -> Any:
        """function(knowledge type, *arguments), with a leading dimension for the knowledge types in every tensor of
        `arguments`, but for those at the positions `shared`, and in every tensor of the tuple that it returns."""
        mapped = [argument is not None and i not in shared for i, argument in enumerate(arguments)]

        def one(state: dict[str, Tensor], *own: Any) -> Any:
            return functional_call(self._first, state, (function, *own))

        if self._alone:
            own = [each.squeeze(0) if own else each for own, each in zip(mapped, arguments, strict=True)]
            found = one(self._state, *own) if self._frozen else function(self._first, *own)
            return tuple(each.unsqueeze(0) for each in found)
        return vmap(one, in_dims=(0, *(0 if own else None for own in mapped)))(self._state, *arguments)


@dataclass(frozen=True)
class Rectangle:
    """Knowledge types that are evaluated together, and the samples of a batch that each of them is evaluated at.

    states: parameters and buffers of each, by name. rows: (k, m), positions in the batch, padded with position 0;
    real: (k, m), where a position is no padding. m is 0 for knowledge types without samples.
    """

    kinds: Mapping[str, Knowledge]
    states: Sequence[Mapping[str, Tensor]]
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
        return Stack(self.kinds, self.states)

    def take(self, values: Tensor) -> Tensor:
        """The rows of `values`, (batch, ...), as (k, m, ...)."""
        return values.index_select(0, self.rows.flatten()).view(*self.rows.shape, *values.shape[1:])


def rectangles(
    kinds: Mapping[str, Knowledge], rows_of: Mapping[str, Tensor], sizes: dict[str, int] | None = None
) -> Iterator[Rectangle]:
    """The knowledge types in rectangles: of one structure, and with about as many samples.

    Within a rectangle the counts differ by less than a factor of two, so that padding at most doubles the work. A stack
    is made for each, and not one for all to choose from: the gradient of a choice is as large as what was chosen from.

    sizes: by knowledge, the class of counts that it was last put in. What is in it stays where it was, so that the same
    knowledge types are together in every batch, and has 2 rows at least; what is not is put in.
    """
    alike: dict[Hashable, dict[str, dict[str, Tensor]]] = {}
    for name, kind in kinds.items():
        state = _state(kind)
        size = max(16, len(rows_of[name]) - 1).bit_length() if len(rows_of[name]) or sizes is not None else 0
        if sizes is not None:
            size = sizes.setdefault(name, size)
        alike.setdefault((_structure(name, kind, state), size), {})[name] = state
    for group in alike.values():
        each = [rows_of[name] for name in group]
        rows = torch.nn.utils.rnn.pad_sequence(each, batch_first=True)
        if sizes is not None and rows.shape[1] < 2:
            rows = torch.nn.functional.pad(rows, (0, 2 - rows.shape[1]))
        counts = torch.tensor([len(r) for r in each], device=rows.device)
        real = torch.arange(rows.shape[1], device=rows.device) < counts[:, None]
        yield Rectangle({name: kinds[name] for name in group}, list(group.values()), rows, real)


def _structure(name: str, kind: Knowledge, state: Mapping[str, Tensor]) -> Hashable:
    """Equal for knowledge types that differ in the values of their tensors only; one built in Python is alone."""
    if kind.part is None:
        return name
    tensors = tuple((key, value.shape, value.dtype, value.requires_grad) for key, value in state.items())
    return kind.part.qualified_name, repr(sorted(kind.part.arguments.items())), type(kind), tensors


def _state(kind: Knowledge) -> dict[str, Tensor]:
    return {**dict(kind.named_parameters()), **dict(kind.named_buffers())}
