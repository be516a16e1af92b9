"""`tzk run` in a process other than the first.

It trains as the first one says, scores its part of the test data, and prints and writes nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from tzk_core.cli import interrupts
from tzk_core.world import ALONE, World

if TYPE_CHECKING:
    from tzk_core.config import Config


class Work(NamedTuple):
    """The work of a run's processes: a config, and whether they resume from a checkpoint.

    whole: whether each begins with a model of all knowledge types.
    """

    config: Config
    resume: bool
    whole: bool


def follow(world: World) -> int:
    """Train and evaluate with the first of several processes; the exit status."""
    from tzk_core.modes import flushing_denormals  # these import torch
    from tzk_core.runs.experiment import Experiment

    work: Work | None = world.of_first(None)
    if work is None:
        return 0
    experiment = Experiment(work.config, world=ALONE if work.whole else world)
    with flushing_denormals():
        with interrupts.deferred() as check:
            try:
                experiment.train(None, resume=work.resume, progress=lambda progress: check(world.largest), world=world)
            except KeyboardInterrupt as interrupt:
                if getattr(interrupt, "together", False):
                    world.wait()  # for the checkpoint of the first: a launcher ends all soon after one
                return interrupts.status(interrupt)
        try:
            experiment.evaluation.take_part("test", world)
        except KeyboardInterrupt as interrupt:
            return interrupts.status(interrupt)
    return 0
