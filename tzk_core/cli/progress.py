"""How far training is: a bar on a terminal, a plain line now and then anywhere else."""

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


@contextmanager
def shown(steps: int) -> Iterator[Callable[[Progress], None]]:
    """A function to call with each `Progress`, within a training of `steps` steps."""
    if sys.stderr.isatty():
        from tqdm import tqdm  # not needed for lines

        size = (
            shutil.get_terminal_size()
        )  # of a terminal of size 0, as in a container, tqdm would draw nothing

        with tqdm(
            total=steps,
            unit="step",
            ncols=size.columns,
            nrows=size.lines,
            bar_format="{percentage:3.0f}% {bar} {n_fmt}/{total_fmt}{postfix}",
        ) as bar:

            def show(progress: Progress) -> None:
                bar.set_postfix_str(_said(progress), refresh=False)
                bar.update(progress.step - bar.n)

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
    return f"{output.duration(progress.seconds_left)} left" + (f", bits/dim {bits}" if bits else "")
