"""Ctrl-C between steps: what comes within a step waits for its end, so that checkpoints are of whole ones."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

INTERRUPTED = 130
"""The exit status of a program that Ctrl-C ended."""


@contextmanager
def deferred() -> Iterator[Callable[[], None]]:
    """Within the block the first Ctrl-C is only noted: the function given, called where it is safe, raises
    KeyboardInterrupt for it. A second one does not wait. Off the main thread, where no signal ever arrives,
    nothing changes."""
    noted = False

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal noted
        if noted:
            raise KeyboardInterrupt
        noted = True

    def check() -> None:
        if noted:
            raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield check
        return
    before = signal.signal(signal.SIGINT, note)
    try:
        yield check
    finally:
        signal.signal(signal.SIGINT, before)
