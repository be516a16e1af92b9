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


MOST = 3
"""Of more knowledge types than these a line says the number only."""


@contextmanager
def shown(steps: int, said: Callable[[Progress], str] | None = None) -> Iterator[Callable[[Progress], None]]:
    """A function to call with each `Progress`, within a training of `steps` steps. `said` words what is known
    after a step: by default how many bits the data sets take."""
    said = said or _said
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
                bar.set_postfix_str(said(progress), refresh=False)
                bar.update(progress.step - bar.n)

            yield show
    else:
        yield lines(time.monotonic, said)


def lines(
    clock: Callable[[], float], said: Callable[[Progress], str] | None = None
) -> Callable[[Progress], None]:
    """Prints a line at the first call, at the last step, and at most every ten seconds between."""
    said = said or _said
    last: float | None = None

    def show(progress: Progress) -> None:
        nonlocal last
        now = clock()
        if last is None or progress.step >= progress.steps or now - last >= SECONDS_BETWEEN_LINES:
            last = now
            output.say(f"step {progress.step:,} of {progress.steps:,}, {said(progress)}")

    return show


def _said(progress: Progress) -> str:
    bits = ", ".join(f"{name} {value:.3f}" for name, value in progress.bits_per_dim.items())
    held = ", ".join(f"{name} {value:.3f}" for name, value in progress.validation.items())
    best = "" if progress.best is None else f" (best at step {progress.best:,})"
    return _time(progress) + (f", bits/dim {bits}" if bits else "") + (f", validation {held}{best}" if held else "")


def gains(progress: Progress) -> str:
    """The same where knowledge alone is trained: what each of at most MOST types says beyond the prior."""
    nats = [f"{name} {value:+.1f}" for name, value in list(progress.nats.items())[:MOST]]
    more = [f"{len(progress.nats) - MOST} more"] if len(progress.nats) > MOST else []
    said = f", nats over the prior: {', '.join(nats + more)}" if nats else ""
    return f"{_time(progress)}{said}"


def _time(progress: Progress) -> str:
    """What is left, or what compiling took: after the step in which that was, nothing is known of the others."""
    if progress.compiled is not None:
        return f"compiled in {output.duration(progress.compiled)}"
    return f"{output.duration(progress.seconds_left)} left"
