"""How far training is: a bar on a terminal, a plain line now and then anywhere else."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

from tzk_core.cli import output

SECONDS_BETWEEN_LINES = 10.0


class Progress(Protocol):
    """What training says after a step: how many of `steps` are done, and the current bits per dim by data
    set."""

    step: int
    steps: int
    seconds_left: float | None
    bits_per_dim: Mapping[str, float]


@contextmanager
def shown(steps: int) -> Iterator[Callable[[Progress], None]]:
    """A function to call with each `Progress`, within a training of `steps` steps."""
    if sys.stderr.isatty():
        from tqdm import tqdm  # not needed for lines

        with tqdm(
            total=steps,
            unit="step",
            dynamic_ncols=True,
            bar_format="{percentage:3.0f}% {bar} {n_fmt}/{total_fmt}{postfix}",
        ) as bar:

            def show(progress: Progress) -> None:
                bar.n = progress.step
                bar.set_postfix_str(_said(progress), refresh=False)
                bar.update(0)
                bar.refresh()

            yield show
    else:
        yield lines(time.monotonic)


def lines(clock: Callable[[], float]) -> Callable[[Progress], None]:
    """Prints a line at the first call, at the last step, and at most every ten seconds between."""
    last: float | None = None

    def show(progress: Progress) -> None:
        nonlocal last
        now = clock()
        if last is None or progress.step >= progress.steps or now - last >= SECONDS_BETWEEN_LINES:
            last = now
            output.say(f"step {progress.step:,} of {progress.steps:,}, {_said(progress)}")

    return show


def _said(progress: Progress) -> str:
    bits = ", ".join(f"{name} {value:.3f}" for name, value in progress.bits_per_dim.items())
    left = "" if progress.seconds_left is None else f"{output.duration(progress.seconds_left)} left"
    return ", ".join(part for part in (left, f"bits/dim {bits}" if bits else "") if part)
