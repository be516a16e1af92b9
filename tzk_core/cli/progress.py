"""Progress of training, as the commands show it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tzk_core.cli import output
from tzk_core.training.observers import Observer
from tzk_core.training.own import PROGRESS, own_observer
from tzk_core.training.progress import Words
from tzk_core.training.progress import gains as gains


@contextmanager
def shown(words: Words | None = None) -> Iterator[list[Observer]]:
    """The observer that shows the progress within the block; none with --quiet."""
    if output.is_quiet():
        yield []
        return
    with own_observer(PROGRESS, words, say=output.say) as line:
        yield [line]
