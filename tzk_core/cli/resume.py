"""Whether a config is the one that a run began with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tzk_core.config import Config
from tzk_core.errors import TzkError

MAY_CHANGE = (
    ("device",),
    ("evaluation",),
    ("pictures",),
    ("published",),
    ("training", "minutes"),
    ("training", "checkpoint_every"),
)
"""What a run may go on with otherwise than it began: it changes no step of the training."""


def same_run(stored: Config, asked: Config, folder: Path) -> Config:
    """The config to go on with; TzkError with every key whose new value would make it another run."""
    changed = [
        f"{'.'.join(key)} was {old!r} and is {new!r}"
        for key, old, new in _differences(stored.model_dump(), asked.model_dump())
        if not any(key[: len(free)] == free for free in MAY_CHANGE)
    ]
    if changed:
        raise TzkError(
            f"{folder} cannot be resumed with another config than it began with: {'; '.join(changed)}. "
            "Give the old values, or begin a new run without --resume"
        )
    return asked


def _differences(old: Any, new: Any, key: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any, Any]]:
    """(key, old, new) for each value that differs, by the innermost key."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for name in dict.fromkeys([*old, *new]):
            yield from _differences(old.get(name), new.get(name), (*key, str(name)))
    elif isinstance(old, tuple) and isinstance(new, tuple) and len(old) == len(new):
        for index, (before, after) in enumerate(zip(old, new, strict=True)):
            yield from _differences(before, after, (*key, str(index)))
    elif old != new:
        yield key, old, new
