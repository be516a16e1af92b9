"""Progress of training, as the commands show it."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from tzk_core.cli import output
from tzk_core.training.progress import Words, bar
from tzk_core.training.progress import gains as gains
from tzk_core.training.progress import lines as lines_of

if TYPE_CHECKING:
    from tzk_core.training.observers import Progress


def shown(steps: int, words: Words | None = None) -> AbstractContextManager[Callable[[Progress], None]]:
    """A function to call with each `Progress`: a bar on a terminal, lines elsewhere."""
    if output.is_quiet():
        return nullcontext(lambda progress: None)
    return bar(steps, words, otherwise=lambda: lines(time.monotonic, words))


def lines(clock: Callable[[], float], words: Words | None = None) -> Callable[[Progress], None]:
    """Print a line at the first call and last step, and every ten seconds between."""
    return lines_of(clock, words, say=lambda text: output.say(text))
