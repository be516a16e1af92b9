"""One command at a time writes to a run; any number read it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from tzk_core.errors import TzkError
from tzk_core.storage.atomic import tidy

LOCK = ".lock"
"""The file in a run folder that is locked. It stays there, as removing it would let two have it; a kill frees it."""


@contextmanager
def writing(run: Path) -> Iterator[None]:
    """Within the block, no other process may be in such a block for this folder.

    The folder is tidied first.

    Raises `TzkError` if one is in it.
    """
    lock = FileLock(run / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise TzkError(
            f"another command is writing to {run}: wait until it has ended, or stop it; it may be on another machine"
        ) from None
    try:
        tidy(run)
        yield
    finally:
        lock.release()
