"""Progress of training: a bar on a terminal, now and then a line anywhere else."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tzk_core.cli import output

if TYPE_CHECKING:
    from tzk_core.training.trainer import Progress

SECONDS_BETWEEN_LINES = 10.0


MOST = 3
"""A line names at most so many knowledge types, and counts the others."""


@contextmanager
def shown(steps: int, words: Callable[[Progress], str] | None = None) -> Iterator[Callable[[Progress], None]]:
    """A function to call with each `Progress`, within a training of `steps` steps.

    Args:
        words: the text of a `Progress`; by default how many bits the data sets take.
    """
    words = words or _bits
    if output.is_quiet():
        yield lambda progress: None
    elif sys.stderr.isatty():
        from tqdm import tqdm  # not needed for lines

        size = shutil.get_terminal_size()  # of a terminal of size 0, as in a container, tqdm would draw nothing

        with tqdm(
            total=steps,
            unit="step",
            ncols=size.columns,
            nrows=size.lines,
            bar_format="{percentage:3.0f}% {bar} {n_fmt}/{total_fmt}{postfix}",
        ) as bar:

            def show(progress: Progress) -> None:
                bar.set_postfix_str(words(progress), refresh=False)
                bar.update(progress.step - bar.n)

            yield show
    else:
        yield lines(time.monotonic, words)


def lines(clock: Callable[[], float], words: Callable[[Progress], str] | None = None) -> Callable[[Progress], None]:
    """Print a line at the first call and last step, and every ten seconds between."""
    words = words or _bits
    last: float | None = None

    def show(progress: Progress) -> None:
        nonlocal last
        now = clock()
        if last is None or progress.step >= progress.steps or now - last >= SECONDS_BETWEEN_LINES:
            last = now
            output.say(f"step {progress.step:,} of {progress.steps:,}, {words(progress)}")

    return show


def _bits(progress: Progress) -> str:
    bits = ", ".join(f"{name} {value:.3f}" for name, value in progress.bits_per_dim.items())
    held = ", ".join(f"{name} {value:.3f}" for name, value in progress.validation.items())
    best = "" if progress.best is None else f" (best at step {progress.best:,})"
    return _time(progress) + (f", bits/dim {bits}" if bits else "") + (f", validation {held}{best}" if held else "")


def gains(progress: Progress) -> str:
    """The text of a `Progress` where knowledge alone is trained: nats beyond the prior."""
    nats = [f"{name} {value:+.1f}" for name, value in list(progress.nats.items())[:MOST]]
    more = [f"{len(progress.nats) - MOST} more"] if len(progress.nats) > MOST else []
    gained = f", nats over the prior: {', '.join(nats + more)}" if nats else ""
    return f"{_time(progress)}{gained}"


def _time(progress: Progress) -> str:
    """The time left; after the step that compiled, how long that took."""
    if progress.compiled is not None:
        return f"compiled in {output.duration(progress.compiled)}"
    return f"{output.duration(progress.seconds_left)} left"
