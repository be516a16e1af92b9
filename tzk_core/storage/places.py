"""The checkpoints of a run: the last, to go on from, and the best.

The best is the one that is used.
"""

from __future__ import annotations

from pathlib import Path

from tzk_core.errors import TzkError
from tzk_core.storage.atomic import is_there

LAST = "checkpoint"
"""The folder of the last checkpoint, with the state of its training."""

BEST = "best"
"""The folder of the best checkpoint by validation, with its step but no state to go on from."""


def checkpoint_in(path: str | Path) -> Path:
    """The checkpoint of a run that is used: the best by validation, else the last.

    `path` itself where it is a checkpoint folder. Raises `TzkError` if nothing is there.
    """
    path = Path(path)
    if not is_there(path):
        raise TzkError(f"there is no run or checkpoint at {path}")
    return next((path / name for name in (BEST, LAST) if is_there(path / name)), path)
