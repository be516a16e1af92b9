"""Knowledge types by name, and which of them contain which: `implies`, followed to its end."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from torch import nn

from tzk_core import names as naming
from tzk_core.errors import TzkError, nearest
from tzk_core.knowledge.base import Knowledge

if TYPE_CHECKING:
    from collections.abc import ItemsView


MOST_NAMES = 8
"""An error names at most so many knowledge types."""


class KnowledgeDict(nn.ModuleDict):
    """Knowledge types by name, in the order in which they came.

    opaque_types: those that cannot be used here, because their plugin is not installed or they belong to another
        shared flow. They are by name, as in their files, with the `reason`, and are saved back unchanged.
    """

    if TYPE_CHECKING:  # torch types its members as `Module`

        def __getitem__(self, key: str) -> Knowledge: ...
        def items(self) -> ItemsView[str, Knowledge]: ...

    def __init__(self, knowledge: Mapping[str, Knowledge] | None = None) -> None:
        super().__init__()
        self.opaque_types: dict[str, Any] = {}
        self._folded: dict[str, str] = {}  # names by `names.key`: a thousand are added sooner so
        self.update(knowledge or {})

    def __setitem__(self, key: str, module: nn.Module) -> None:
        super().__setitem__(key, module)
        self._folded[naming.key(key)] = key

    def name_taken(self, name: str) -> str | None:
        """The name here that differs from `name` in case at most, or None."""
        key = naming.key(name)
        if (other := self._folded.get(key)) is not None and other in self:
            return other
        return next((other for other in self.opaque_types if naming.key(other) == key), None)

    def find(self, name: str) -> Knowledge:
        """The knowledge type of that name.

        Raises:
            TzkError: with the nearest names, if there is none.
        """
        if name in self.opaque_types:
            raise TzkError(self.opaque_types[name].reason)
        if name not in self:
            raise TzkError(f"this model has no knowledge type {name!r}{nearest(name, self) or _there(self)}")
        return self[name]

    def implies_of(self, name: str) -> tuple[str, ...]:
        """What a knowledge type implies directly.

        Raises:
            TzkError: if there is none of that name.
        """
        return self.find(name).implies

    def implied_by(self, name: str) -> set[str]:
        """Every knowledge type that the named one implies, directly or by way of others.

        Names that are not here, as removing knowledge may leave them, are among them.

        Raises:
            TzkError: if there is no knowledge type `name`.
        """
        implied: set[str] = set()
        waiting = list(self.implies_of(name))
        while waiting:
            other = waiting.pop()
            if other not in implied:
                implied.add(other)
                waiting += self.implies_of(other) if other in self else ()
        return implied

    def most_specific(self, names: Iterable[str]) -> list[str]:
        """`names` without those that others among them imply, in their order, without duplicates.

        Of two nested knowledge types the inner one implies the outer, and a product of both would count it twice.
        """
        distinct = list(dict.fromkeys(names))
        implied = {other for name in distinct for other in self.implied_by(name)}
        return [name for name in distinct if name not in implied]

    def least_specific(self, names: Iterable[str]) -> list[str]:
        """`names` without those that imply others among them: the dual of `most_specific`.

        What is not in "mnist" is no digit of it, so that not "mnist" implies not the digit.
        """
        distinct = list(dict.fromkeys(names))
        return [name for name in distinct if self.implied_by(name).isdisjoint(distinct)]


def _there(names: Iterable[str]) -> str:
    """What there is instead, for an error."""
    first = [repr(name) for name in names]
    more = f" and {len(first) - MOST_NAMES} more" if len(first) > MOST_NAMES else ""
    return f"; there is {', '.join(first[:MOST_NAMES])}{more}" if first else "; it has none"
