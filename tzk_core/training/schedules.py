"""Schedules: the share of its learning rate that each step of a training takes."""

from __future__ import annotations

import math
from collections.abc import Callable

from tzk_core.plugins import Schedule, registry
from tzk_core.plugins.calling import call_part
from tzk_core.training.settings import Settings

Shares = Callable[[int], float]
"""The number of a step, from 0, to the share of the learning rate that it takes, at least 0.

It MUST be a pure function of the number, so that a run can be resumed at any step.
"""


def cosine(steps: int) -> Shares:
    """From 1 to 0 along half a cosine.

    Args:
        steps: the length of the training.
    """
    return lambda step: 0.5 * (1 + math.cos(math.pi * step / steps))


def constant(steps: int) -> Shares:
    """1 at every step."""
    return lambda step: 1.0


def shares_of(settings: Settings) -> Shares:
    """The schedule of these settings, after its linear warm-up.

    Raises:
        TzkError: if no plugin offers it, or it does not take its arguments.
    """
    choice, warmup = settings.schedule, settings.warmup
    shares: Shares = call_part(registry().find(Schedule, choice.type), choice.arguments, settings.steps)
    return lambda step: min(1.0, (step + 1) / (warmup + 1)) * shares(step)
