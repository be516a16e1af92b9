"""Observers of others, kept from changing a training or ending it."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from tzk_core.errors import Note, TzkError
from tzk_core.plugins import Observer as ObserverSpec
from tzk_core.plugins import Registered, registry
from tzk_core.plugins.isolation import worded
from tzk_core.protection import protected
from tzk_core.training.observers import Checkpoint, End, Logged, Observer, Progress, Start
from tzk_core.training.own import refuse_own
from tzk_core.training.validation import Validated


class Guarded(Observer):
    """An observer that can neither change a training nor end it.

    Args:
        name: of the observer and its plugin, for the report of what it raises.
    """

    def __init__(self, observer: Observer, name: str) -> None:
        self.observer, self.name = observer, name
        self._started = self._reported = False

    def on_start(self, start: Start) -> None:
        self._started = True
        self._call("on_start", start)

    def on_step(self, progress: Progress) -> None:
        if type(self.observer).on_step is not Observer.on_step:  # protection at every step takes time
            self._call("on_step", progress)

    def on_log(self, logged: Logged) -> None:
        self._call("on_log", logged)

    def on_validation(self, validated: Validated) -> None:
        self._call("on_validation", validated)

    def on_checkpoint(self, checkpoint: Checkpoint) -> None:
        self._call("on_checkpoint", checkpoint)

    def on_end(self, end: End) -> None:
        self._call("on_end", end)

    def on_failure(self, error: BaseException) -> None:
        if self._started:
            self._call("on_failure", error)

    def _call(self, method: str, event: object) -> None:
        with protected():
            try:
                getattr(self.observer, method)(event)
            except KeyboardInterrupt:  # the user's
                raise
            except BaseException as error:
                self._report(method, error)

    def _report(self, method: str, error: BaseException) -> None:
        if self._reported:
            return
        self._reported = True
        warnings.warn(
            f"the {self.name} raised {worded(error)} in {method}; the training goes on, and what else it raises is "
            "not shown",
            Note,
            stacklevel=2,
        )


@contextmanager
def outcome(observers: Sequence[Observer]) -> Iterator[None]:
    """Report to the observers what ends the block, if that is an exception."""
    try:
        yield
    except BaseException as error:
        for observer in observers:
            observer.on_failure(error)
        raise


def observer_of(part: Registered, arguments: Mapping[str, Any]) -> Guarded:
    """Build a registered observer.

    Raises:
        TzkError: if it is the core's own, or its class cannot be imported, raises, or is no `Observer`.
    """
    refuse_own(part)
    name = f"observer {part.name!r} of plugin {part.plugin!r} ({part.distribution} {part.version})"
    with protected():
        make = part.load()
        try:
            observer = make(**arguments)
        except TzkError:
            raise
        except Exception as error:
            raise TzkError(f"the {name} cannot be made: {worded(error)}") from error
    if not isinstance(observer, Observer):
        raise TzkError(f"the {name} should be a {_EXPECTED}; got {type(observer).__name__}")
    return Guarded(observer, name)


def guarded(observers: Sequence[Observer | str]) -> list[Guarded]:
    """Guard the observers of a call, which may be named as plugins register them.

    Raises:
        TzkError: for anything else, and as `observer_of` does.
    """
    if isinstance(observers, str | Observer) or not isinstance(observers, Iterable):
        raise TzkError(f"observers are expected as a list; got {observers!r}: write observers=[...]")
    return [_guarded(observer) for observer in observers]


def _guarded(observer: Observer | str) -> Guarded:
    if isinstance(observer, str):
        return observer_of(registry().find(ObserverSpec, observer), {})
    if not isinstance(observer, Observer):
        raise TzkError(f"an observer is expected as a {_EXPECTED}, or by its name; got {observer!r}")
    return Guarded(observer, f"observer {type(observer).__name__}")


_EXPECTED = "tzk_core.training.observers.Observer"
