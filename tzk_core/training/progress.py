"""Progress of training: a bar on a terminal, now and then a line anywhere else."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tzk_core.training.observers import Progress

SECONDS_BETWEEN_LINES = 10.0

MOST = 3
"""A line names at most so many knowledge types, and counts the others."""

Words = Callable[["Progress"], str]


@contextmanager
def bar(
    steps: int, words: Words | None = None, *, otherwise: Callable[[], Callable[[Progress], None]] | None = None
) -> Iterator[Callable[[Progress], None]]:
    """A function to call with each `Progress`, within a training of `steps` steps.

    Args:
        words: the text of a `Progress`; by default how many bits the data sets take.
        otherwise: makes the function where stderr is no terminal; by default it prints lines there.
    """
    words = words or bits
    if not sys.stderr.isatty():
        yield otherwise() if otherwise else lines(time.monotonic, words, say=_to_stderr)
        return
    from tqdm import tqdm  # not needed for lines

    size = shutil.get_terminal_size()  # of a terminal of size 0, as in a container, tqdm would draw nothing
    with tqdm(
        total=steps,
        unit="step",
        ncols=size.columns,
        nrows=size.lines,
        bar_format="{percentage:3.0f}% {bar} {n_fmt}/{total_fmt}{postfix}",
    ) as line:

        def show(progress: Progress) -> None:
            line.set_postfix_str(words(progress), refresh=False)
            line.update(progress.step - line.n)

        yield show


def lines(
    clock: Callable[[], float], words: Words | None = None, *, say: Callable[[str], None]
) -> Callable[[Progress], None]:
    """Say a line at the first call and last step, and every ten seconds between."""
    words = words or bits
    last: float | None = None

    def show(progress: Progress) -> None:
        nonlocal last
        now = clock()
        if last is None or progress.step >= progress.steps or now - last >= SECONDS_BETWEEN_LINES:
            last = now
            say(f"step {progress.step:,} of {progress.steps:,}, {words(progress)}")

    return show


def bits(progress: Progress) -> str:
    """The text of a `Progress`.

    It has time, pace, memory, and bits per dim in training and validation.
    """
    training = ", ".join(f"{name} {value:.3f}" for name, value in progress.bits_per_dim.items())
    held_out = ", ".join(f"{name} {value:.3f}" for name, value in progress.validation.items())
    best = "" if progress.best is None else f" (best at step {progress.best:,})"
    parts = [
        _pace(progress),
        f"bits/dim {training}" if training else "",
        f"validation {held_out}{best}" if held_out else "",
    ]
    return ", ".join(part for part in parts if part)


def gains(progress: Progress) -> str:
    """The text of a `Progress` where knowledge alone is trained: nats beyond the prior."""
    nats = [f"{name} {value:+.1f}" for name, value in list(progress.nats.items())[:MOST]]
    more = [f"{len(progress.nats) - MOST} more"] if len(progress.nats) > MOST else []
    gained = f", nats over the prior: {', '.join(nats + more)}" if nats else ""
    return f"{_pace(progress)}{gained}"


def duration(seconds: float) -> str:
    """Seconds as 0:07, 12:34 or 1:02:03."""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _pace(progress: Progress) -> str:
    """The time left, steps per second and memory.

    After the step that compiled, how long that took.
    """
    if progress.compiled is not None:
        return f"compiled in {duration(progress.compiled)}"
    parts = [f"{duration(progress.seconds_left)} left"]
    if progress.steps_per_second:
        parts.append(f"{progress.steps_per_second:.3g} steps/s")
    if progress.memory:
        parts.append(f"{progress.memory / 1e9:.2g} GB")
    return ", ".join(parts)


def _to_stderr(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
