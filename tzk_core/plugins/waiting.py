"""Who is waited for: a plugin that does not return is named on stderr while it still runs."""

from __future__ import annotations

import _thread
import contextlib
import os
from collections.abc import Iterator

LONG = 3.0
"""Seconds after which a plugin that has not registered is named."""

LONG_PART = 10.0
"""The same of a part, whose module may import much."""


@contextlib.contextmanager
def waiting_for(who: str, way_out: str, *, seconds: float = LONG) -> Iterator[None]:
    """Name on stderr what the block waits for, once it has taken `seconds`.

    The threads of `_thread` cost less than the import of `threading`, and do not keep the program from ending.

    Args:
        who: is waited for, as the start of a sentence.
        way_out: what to do about it, as one.
    """
    done = _thread.allocate_lock()
    done.acquire()

    def watch() -> None:
        if not done.acquire(timeout=seconds):
            with contextlib.suppress(OSError):  # no stderr
                os.write(2, f"tzk: {who} has been loading for {seconds:g} s and goes on; {way_out}\n".encode())

    with contextlib.suppress(RuntimeError):  # no more threads can be started
        _thread.start_new_thread(watch, ())
    try:
        yield
    finally:
        done.release()
