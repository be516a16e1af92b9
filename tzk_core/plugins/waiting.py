"""Code of a plugin that does not return is named while it still runs."""

from __future__ import annotations

import _thread
import contextlib
import os
import time
from collections.abc import Iterator
from typing import NamedTuple

LONG = 3.0
"""Seconds after which a plugin that has not registered is named."""

LONG_PART = 10.0
"""The same of a part, whose module may import much."""


class _Waited(NamedTuple):
    """Who is waited for, how to do without, and since when by `time.monotonic`."""

    who: str
    way_out: str
    since: float


class Waiting:
    """Names what is waited for longer than `seconds`, each once, within `watching`."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._now: _Waited | None = None

    def begin(self, who: str, way_out: str) -> None:
        """From now on it is `who`, the start of a sentence; `way_out` is one."""
        self._now = _Waited(who, way_out, time.monotonic())

    @contextlib.contextmanager
    def watching(self) -> Iterator[Waiting]:
        """Watch from another thread.

        It is one of `_thread`, which costs less than the import of `threading` and never keeps the program from ending.
        """
        done = _thread.allocate_lock()
        done.acquire()
        with contextlib.suppress(RuntimeError):  # no more threads can be started
            _thread.start_new_thread(self._watch, (done,))
        try:
            yield self
        finally:
            done.release()

    def _watch(self, done: _thread.LockType) -> None:
        said, wait = None, self._seconds
        while not done.acquire(timeout=wait):
            now, wait = self._now, self._seconds
            if now is None or now is said:
                continue
            lasted = time.monotonic() - now.since
            if lasted < self._seconds:
                wait = self._seconds - lasted
                continue
            said = now
            text = f"tzk: {now.who} has been loading for {self._seconds:g} s and goes on; {now.way_out}\n"
            with contextlib.suppress(OSError):  # no stderr
                os.write(2, text.encode())


@contextlib.contextmanager
def waiting_for(who: str, way_out: str, *, seconds: float) -> Iterator[None]:
    """Name what the block waits for once it has taken `seconds`; arguments as of `Waiting.begin`."""
    with Waiting(seconds).watching() as waiting:
        waiting.begin(who, way_out)
        yield
