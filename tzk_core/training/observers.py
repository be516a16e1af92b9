"""The observers of a training: its events, and the methods that they call."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tzk_core.training.validation import Validated


@dataclass(frozen=True)
class Progress:
    """The state of a training after a step.

    Attributes:
        bits_per_dim: of log p(T), by data set, averaged since the last row of the log.
        nats: by knowledge, the mean of log p(z given C) - log p(z) of the samples in which it is present, averaged
            likewise.
        compiled: seconds of this step, if it was compiled in it.
        validation: bits per dim of log p(T) by data set, at the last validation.
        best: the step of the best model by validation.
        steps_per_second: of the steps in which nothing was compiled; None where there was none yet.
        memory: the most bytes so far, of the device's memory where there is one, else of the process; None if unknown.
    """

    step: int
    steps: int
    seconds: float
    seconds_left: float
    bits_per_dim: Mapping[str, float]
    nats: Mapping[str, float] = field(default_factory=dict)
    compiled: float | None = None
    validation: Mapping[str, float] = field(default_factory=dict)
    best: int | None = None
    steps_per_second: float | None = None
    memory: int | None = None


@dataclass(frozen=True)
class Start:
    """A training begins, or goes on.

    Attributes:
        step: the step that it goes on from; 0 for a new one.
        steps: the last step, unless it ends earlier.
        folder: of the run; None in `fit`.
        settings: of the training, by name, as in `tzk describe training` and `tzk describe objective`.
    """

    step: int
    steps: int
    folder: Path | None
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Logged:
    """A row of the log: averages since the row before.

    Attributes:
        columns: of all rows of this training, in the order of metrics.csv.
        values: of this row, by column; read-only.
    """

    step: int
    columns: tuple[str, ...]
    values: Mapping[str, float | int]


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint was written to `folder`: the last state, or the best by validation."""

    step: int
    folder: Path
    best: bool


@dataclass(frozen=True)
class End:
    """A training is over, and with it the evaluation of a run.

    Attributes:
        step: the last step.
        best_step: the step that the model is of.
        folder: of the run, with its results and pictures; None in `fit`.
        results: the contents of results.json; empty in `fit`, which evaluates nothing.
    """

    step: int
    best_step: int
    folder: Path | None
    results: Mapping[str, Any]


class Observer:
    """Watches a training. Subclasses override the methods that they need.

    An observer of a plugin, or one that `fit` is called with, cannot change a training. Random states and torch's
    settings are put back after every call. What it raises is reported once, and the training goes on.
    """

    def on_start(self, start: Start) -> None:
        """Called before the first step, also of a resumed run."""

    def on_step(self, progress: Progress) -> None:
        """Called after every step; keep it quick."""

    def on_log(self, logged: Logged) -> None:
        """Called after every logged step: every `log_every` steps, after a validation, and at the end."""

    def on_validation(self, validated: Validated) -> None:
        """Called after every validation, before its row of the log."""

    def on_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Called when a checkpoint is complete."""

    def on_end(self, end: End) -> None:
        """Called at the end, with the results."""

    def on_failure(self, error: BaseException) -> None:
        """Called in the place of `on_end` if the run fails or is interrupted (`KeyboardInterrupt`)."""


class EachStep(Observer):
    """Calls a function after every step; what that raises ends the training."""

    def __init__(self, function: Callable[[Progress], None]) -> None:
        self._function = function

    def on_step(self, progress: Progress) -> None:
        self._function(progress)
