"""Knowledge that contains other knowledge: what `implies` says, followed to its end (a digit is in "mnist")."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tzk_core.model import TzK  # which composes knowledge, and so needs what is here


def implied_by(model: TzK, name: str) -> set[str]:
    """Every knowledge type that the named one implies, directly or by way of others.

    Names that the model does not have, as removing knowledge may leave them, are among them. Raises `TzkError` if the
    model has no knowledge type `name`.
    """
    found: set[str] = set()
    waiting = list(model.find(name).implies)
    while waiting:
        other = waiting.pop()
        if other not in found:
            found.add(other)
            waiting += model.find(other).implies if other in model.knowledge else ()
    return found


def most_specific(model: TzK, names: Iterable[str]) -> list[str]:
    """`names` without those that others among them imply, in their order, each once.

    The product over knowledge types counts what both of two nested ones say twice; the inner one says all of it.
    """
    distinct = list(dict.fromkeys(names))
    implied = set().union(*(implied_by(model, name) for name in distinct)) if distinct else set()
    return [name for name in distinct if name not in implied]


def least_specific(model: TzK, names: Iterable[str]) -> list[str]:
    """`names` without those that imply others among them, in their order, each once: the dual of `most_specific`.

    What is not in "mnist" is no digit of it, so that not "mnist" says all of not "mnist" and not the digit.
    """
    distinct = list(dict.fromkeys(names))
    return [name for name in distinct if implied_by(model, name).isdisjoint(distinct)]
