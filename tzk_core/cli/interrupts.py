"""Ctrl-C, SIGTERM and SIGHUP: all stop a command in good order.

Within a training step they wait for its end, so that a checkpoint is never of half a step.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any, Protocol

INTERRUPTED = 128 + signal.SIGINT
"""The exit status of a program that Ctrl-C ended."""

WARNINGS = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)
)  # of a batch system, `docker stop`, a closed terminal


class Stopped(KeyboardInterrupt):
    """A signal that asks the program to end, taken as Ctrl-C is.

    together: whether all of its processes take it.
    """

    def __init__(self, number: int = signal.SIGINT, *, together: bool = False) -> None:
        super().__init__(signal.Signals(number).name)
        self.number, self.together = number, together


def status(interrupt: KeyboardInterrupt) -> int:
    """The exit status after it, as shells have it: 130 for Ctrl-C, 143 for SIGTERM."""
    return 128 + getattr(interrupt, "number", signal.SIGINT)


def worded(interrupt: KeyboardInterrupt) -> str:
    """`interrupted`, and by which signal where it was not Ctrl-C."""
    number = getattr(interrupt, "number", signal.SIGINT)
    return "interrupted" if number == signal.SIGINT else f"interrupted by {signal.Signals(number).name}"


@contextmanager
def stoppable() -> Iterator[None]:
    """Within the block, SIGTERM and SIGHUP raise `Stopped`, a KeyboardInterrupt as Ctrl-C raises it."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Stopped(number)

    with _handled(WARNINGS, stop):
        yield


class Check(Protocol):
    """Raises KeyboardInterrupt for a signal that was noted; see `deferred`."""

    def __call__(self, agreed: Callable[[int], int] | None = None) -> None: ...


@contextmanager
def deferred() -> Iterator[Check]:
    """Within the block, the first Ctrl-C, SIGTERM or SIGHUP is only noted.

    The function yielded, called where it is safe, raises KeyboardInterrupt for it. A second signal does not wait. Off
    the main thread, where no signal ever arrives, nothing changes.

    Several processes that call the function together stop together: its argument returns the largest of their numbers,
    which are those of the signals that they noted, or 0. Without it, a process stops alone.
    """
    noted: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if noted:
            raise Stopped(number)
        noted.append(number)

    def check(agreed: Callable[[int], int] | None = None) -> None:
        number = noted[0] if noted else 0
        if agreed is not None:
            number = agreed(number)
        if number:
            raise Stopped(number, together=agreed is not None)

    with _handled((signal.SIGINT, *WARNINGS), note):
        yield check


def ignore() -> None:
    """Ignore all of them from now on.

    This process is about to end, and has to say why.
    """
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, *WARNINGS):
            signal.signal(number, signal.SIG_IGN)


@contextmanager
def _handled(numbers: Sequence[int], handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Within the block, `handler` has these signals, except those that are ignored (nohup)."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before: dict[int, Any] = {number: signal.getsignal(number) for number in numbers}
    taken = [number for number, old in before.items() if old not in (signal.SIG_IGN, None)]
    for number in taken:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number in taken:
            if signal.getsignal(number) is not signal.SIG_IGN:  # see `ignore`
                signal.signal(number, before[number])
