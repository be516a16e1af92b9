"""Progress of training: a bar on a terminal, now and then a line anywhere else."""

from __future__ import annotations

import math
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Self

from tzk_core.training.observers import End, Observer, Progress, Start

SECONDS_BETWEEN_LINES = 10.0

MOST = 3
"""A line names at most so many knowledge types, and counts the others."""

Words = Callable[["Progress"], str]


class ProgressLine(Observer):
    """Shows how far a training is.

    It is a bar on a terminal, and now and then a line anywhere else.

    A context that takes the bar away at its end, since evaluation and its lines come before `on_end`.

    Args:
        words: the text of a `Progress`; by default how many bits the data sets take, shorter where a bar is narrow.
        say: takes the lines; by default they go to stderr.
    """

    def __init__(self, words: Words | None = None, *, say: Callable[[str], None] | None = None) -> None:
        self._words, self._say = words, say or _to_stderr
        self._drawn = ExitStack()
        self._show: Callable[[Progress], None] | None = None

    def begin(self, steps: int) -> None:
        """Show the start of a training of so many steps."""
        self.close()
        if sys.stderr.isatty():
            self._show = self._drawn.enter_context(_bar(steps, self._words))
        else:
            self._show = lines(time.monotonic, self._words, say=self._say)

    def close(self) -> None:
        """Take the bar away, if there is one."""
        self._drawn.close()
        self._show = None

    def on_start(self, start: Start) -> None:
        self.begin(start.steps)

    def on_step(self, progress: Progress) -> None:
        if self._show is None:
            self.begin(progress.steps)
        if self._show is not None:
            self._show(progress)

    def on_end(self, end: End) -> None:
        self.close()

    def on_failure(self, error: BaseException) -> None:
        self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextmanager
def _bar(steps: int, words: Words | None) -> Iterator[Callable[[Progress], None]]:
    """A function to call with each `Progress`, which moves a bar on the terminal."""
    from tqdm import tqdm  # not needed for lines

    size = shutil.get_terminal_size()  # of a terminal of size 0, as in a container, tqdm would draw nothing
    with tqdm(
        total=steps,
        unit="step",
        ncols=size.columns,
        nrows=size.lines,
        bar_format="{percentage:3.0f}% {bar} {n_fmt}/{total_fmt}{postfix}",
    ) as line:
        room = size.columns - len(f"100%   {steps}/{steps}, ")

        def show(progress: Progress) -> None:
            line.set_postfix_str(words(progress) if words else fitting(progress, room), refresh=False)
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


def fitting(progress: Progress, room: int) -> str:
    """The longest text of a `Progress` that `room` characters hold.

    It is `bits`, or has means over the data sets. Where those do not fit either, "steps/s" is "/s", and then pace and
    memory go.
    """
    means = [
        f"{title} {math.fsum(values.values()) / len(values):.3f}"
        for title, values in (("bits/dim", progress.bits_per_dim), ("validation", progress.validation))
        if values
    ]
    paces = (_pace(progress), _pace(progress).replace(" steps/s", "/s"), _left(progress))
    shorter = [", ".join([pace, *means]) for pace in paces]
    return next((text for text in (bits(progress), *shorter) if len(text) <= room), shorter[-1])


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
    parts = [_left(progress)]
    if progress.compiled is not None:
        return parts[0]
    if progress.steps_per_second:
        parts.append(f"{progress.steps_per_second:.3g} steps/s")
    if progress.memory:
        parts.append(f"{progress.memory / 1e9:.2g} GB")
    return ", ".join(parts)


def _left(progress: Progress) -> str:
    """The time left, or how long compiling took."""
    if progress.compiled is not None:
        return f"compiled in {duration(progress.compiled)}"
    return f"{duration(progress.seconds_left)} left"


def _to_stderr(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
