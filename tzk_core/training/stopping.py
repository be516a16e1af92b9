"""Early stopping: a training ends after so many validations without a better model."""

from __future__ import annotations

from tzk_core.training.observers import Observer, Progress, Start
from tzk_core.training.validation import Validated


class EarlyStopping(Observer):
    """Notes when `training.patience` validations in a row brought nothing better.

    With a patience of 0 it never does. It keeps nothing of its own: the best step is that of `Progress`, which a
    resumed training has from its checkpoint. It ends a training by being asked. `Trainer` asks the one that it has
    built itself and no other observer.

    Attributes:
        over: whether the training is to end after this step.
    """

    over = False
    _patience = 0  # in steps
    _validated: int | None = None

    def on_start(self, start: Start) -> None:
        self._patience = start.settings["patience"] * start.settings["validate_every"]
        self._validated, self.over = None, False

    def on_validation(self, validated: Validated) -> None:
        self._validated = validated.step

    def on_step(self, progress: Progress) -> None:
        if progress.step == self._validated and self._patience > 0 and progress.best is not None:
            self.over = progress.step - progress.best >= self._patience
