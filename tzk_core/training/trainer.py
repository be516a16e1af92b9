"""The training loop: steps to the end, validation, checkpoints and a log on the way."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tzk_core.errors import TzkError
from tzk_core.model import TzK
from tzk_core.storage.atomic import is_there
from tzk_core.storage.checkpoint import load_checkpoint, load_trainer, save_checkpoint
from tzk_core.storage.places import BEST, LAST
from tzk_core.storage.shared_flow import check_same_flow
from tzk_core.training.metrics import keep_until
from tzk_core.training.optimizers import check_same, described, restore, trained_tensors
from tzk_core.training.settings import Settings
from tzk_core.training.soundness import Diverged, LastSound, all_finite, tensors_in
from tzk_core.training.state import BestState, State, checked_state, fitting
from tzk_core.training.steps import Batches, Steps
from tzk_core.training.validation import Best, Validated, Validation, Watch


@dataclass(frozen=True)
class Progress:
    """What is known after a step, averaged since the last line of the log: the bits are of log p(T), by data set; the
    nats, by knowledge, are the mean of log p(z given C) - log p(z) of the samples in which it is present. `compiled`:
    the seconds of this step, if it was compiled in it. `validation`: bits per dim of log p(T) by data set, as last
    found; `best`: the step of the best model by validation."""

    step: int
    steps: int
    seconds: float
    seconds_left: float
    bits_per_dim: dict[str, float]
    nats: dict[str, float] = field(default_factory=dict)
    compiled: float | None = None
    validation: dict[str, float] = field(default_factory=dict)
    best: int | None = None


class Trainer(Steps):
    """Trains a model in place, to the end and with what is due on the way: validation, checkpoints and a log.

    `validation`: what the model is evaluated on now and then; `watch` has what came of it. All else is as in `Steps`.
    """

    def __init__(
        self,
        model: TzK,
        batches: Batches,
        settings: Settings,
        *,
        seed: int = 0,
        levels: int | None = 256,
        trained: Sequence[str] | None = None,
        validation: Validation | None = None,
    ) -> None:
        super().__init__(model, batches, settings, seed=seed, levels=levels, trained=trained)
        self.watch = Watch(validation, settings.validate_every, settings.patience)
        self.seconds = 0.0
        self._sound = LastSound()

    def run(
        self,
        folder: Path | None = None,
        progress: Callable[[Progress], None] | None = None,
        *,
        checkpoints: bool = True,
    ) -> None:
        """Trains to the end, to the cap in minutes or out of patience, from wherever it is.

        With `folder`, writes metrics.csv, first taking out rows of steps that are still to come, as a kill may leave
        them, and, unless told not to, checkpoints there: the last one, at the end too, and the best by validation. On
        KeyboardInterrupt the last one is written before the exception goes on. Raises `Diverged` where anything stops
        being finite; the trainer, and the last checkpoint, then have the last state that is fit to go on from.
        """
        if folder:
            keep_until(Path(folder) / "metrics.csv", self.step)
        saved_to = Path(folder) if folder and checkpoints else None
        if self._finite:
            self._sound.offer(None, self._whole_state)
        try:
            self._train(Path(folder) if folder else None, saved_to, progress)
            if saved_to:
                self.save(saved_to)
        except Diverged as error:
            self._go_back(error, saved_to)
            raise
        except KeyboardInterrupt:
            if saved_to and (self._finite or self._restore_sound()):
                self.save(saved_to)
            raise
        finally:
            self.close()

    def _train(self, folder: Path | None, saved_to: Path | None, progress: Callable[[Progress], None] | None) -> None:
        """The steps of `run`, each with what is due after it."""
        settings, clock = self.settings, _Clock(self.step, self.seconds)
        while self.step < settings.steps:
            compiled = self._timed_step()
            self._sound.confirm()
            self.seconds = clock.seconds
            capped = settings.minutes is not None and self.seconds > 60 * settings.minutes
            validated = self.watch.due(self.step, end=capped or self.step == settings.steps)
            if validated:
                self._validate(saved_to)
            reached = self._reached(clock.left(self), compiled)
            if validated or self.step % settings.log_every == 0 or self.step == settings.steps:
                self._close_window(folder, validated=validated)
            if self.step % settings.checkpoint_every == 0 and saved_to:
                self.save(saved_to)
            if progress:  # last, so that an interrupt from here finds the step logged
                progress(reached)
            if capped or validated and self.watch.over(self.step):
                break

    def _reached(self, left: float, compiled: float | None) -> Progress:
        last, best = self.watch.last, self.watch.best
        return Progress(
            self.step,
            self.settings.steps,
            self.seconds,
            left,
            self.metrics.means("bits_per_dim"),
            self.metrics.means("conditional"),
            compiled,
            dict(last.prior) if last else {},
            best.step if best else None,
        )

    def _validate(self, saved_to: Path | None) -> None:
        """Evaluates the model on validation data and keeps it if it is the best. Raises `Diverged`."""
        assert self.watch.validation is not None
        found = self.watch.validation.measure(
            self.model,
            self.step,
            self.settings.wording,
            negatives=self.settings.negatives,
            stacks=self.parameter_tables,
        )
        self.parameter_tables.forget()
        if self.watch.take(found, self.model, self.multipliers.values) and saved_to:
            about = {"step": self.step, "multipliers": dict(self.multipliers.values), "validated": vars(found)}
            save_checkpoint(self.model, saved_to / BEST, about)
        if self.watch.exploded():
            raise Diverged(self.step, f"-log M on validation data is {found.criterion} bits per dim")

    def _close_window(self, folder: Path | None, *, validated: bool) -> None:
        """Logs the averages since the last time, and keeps the state if it is fit to go on from. Raises `Diverged`."""
        if not self._finite:
            raise Diverged(self.step, "parameters or moments of the optimiser are not finite")
        objective = self.metrics.mean("objective")
        if folder:
            self._log(folder / "metrics.csv")
        self.metrics.clear()
        watch = self.watch
        if not watch.on or watch.last is not None and watch.best is None:
            self._sound.offer(objective, self._whole_state)
        elif validated and watch.last is not None:
            self._sound.offer(-watch.last.criterion, self._whole_state)

    @property
    def _finite(self) -> bool:
        """Whether a step from here could be finite: what is trained is, and what the optimiser knows of it."""
        held = (trained_tensors(self.optimizer), self.parameter_tables.tensors, tensors_in(self.optimizer.state_dict()))
        return all(map(all_finite, held))

    def _whole_state(self) -> dict[str, Any]:
        return {"model": self.model.state_dict(), **self._state()}

    def _restore_sound(self) -> bool:
        """Goes back to the last state that is fit to go on from; whether there is one."""
        state = self._sound.state
        if state is None:
            return False
        self.model.load_state_dict(state["model"])
        self._load_state(state)
        return True

    def _go_back(self, error: Diverged, saved_to: Path | None) -> None:
        """Goes back, writes the last checkpoint, and notes both in the error."""
        if self._restore_sound():
            error.back = self.step
            if saved_to:
                self.save(saved_to)
                error.saved = True
        if self.watch.best is not None:
            error.best = self.watch.best.step

    def save(self, folder: Path) -> None:
        """Writes folder/checkpoint with everything that is needed to go on. Raises `Diverged` rather than write what
        is not finite."""
        if not self._finite:
            raise Diverged(self.step, "parameters or moments of the optimiser are not finite")
        save_checkpoint(self.model, Path(folder) / LAST, self._state())

    def resume(self, folder: Path) -> None:
        """Takes weights, optimiser, multipliers and step from folder/checkpoint, and the best model from folder/best.

        Learning rates, clip, minutes and patience are those of the settings of now, as are the steps, and with them
        the decay; all other settings have to be the same.
        """
        last = Path(folder) / LAST
        state = checked_state(State, load_trainer(last), last)
        self.watch.best = self._stored_best(Path(folder) / BEST)  # before the last, as loading may fill this flow
        self._load_weights(last)
        with fitting(last):
            self._load_state(state)

    def take_best(self) -> int:
        """Puts the model, and the multipliers, to the best by validation, if there is one; the step that it is of."""
        best = self.watch.best
        if best is None:
            return self.step
        self.model.load_state_dict(best.weights)
        self.multipliers.values = dict(best.multipliers)
        return best.step

    def _stored_best(self, folder: Path) -> Best | None:
        if not is_there(folder):
            return None
        state = checked_state(BestState, load_trainer(folder), folder)
        self._load_weights(folder)
        weights = {key: value.detach().clone() for key, value in self.model.state_dict().items()}
        with fitting(folder):
            return Best(Validated(**state["validated"]), weights, state["multipliers"])

    def _load_weights(self, folder: Path) -> None:
        saved = load_checkpoint(folder, flow=self.model.flow)
        check_same_flow(saved.flow, self.model.flow, folder)
        for opaque in saved.opaque.values():
            raise TzkError(f"{folder} cannot be resumed: {opaque.reason}")
        self.model.load_state_dict(saved.state_dict())

    def _state(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "seconds": self.seconds,
            "optimizer": self.optimizer.state_dict(),
            "optimizer_part": described(self.settings),
            "banks": self.parameter_tables.state_dict(),
            "multipliers": dict(self.multipliers.values),
            "validations": self.watch.state_dict(),
            **self.metrics.state_dict(),
        }

    def _load_state(self, state: Mapping[str, Any]) -> None:
        check_same(state.get("optimizer_part"), state["optimizer"], self.settings)
        self.parameter_tables.load_state_dict(state.get("banks", []))
        restore(self.optimizer, state["optimizer"])
        self.multipliers.values = dict(state["multipliers"])
        self.step, self.seconds = state["step"], state["seconds"]
        self.watch.load_state_dict(state.get("validations", []))
        self.metrics.load_state_dict(state)

    def _log(self, path: Path) -> None:
        """Appends the averages since the last line; columns are of all knowledge types, whatever this line has."""
        sources = self.batches.sources(self.step)
        columns = ["step", "seconds", "learning_rate", "objective", "prior_weight"]
        columns += [f"bits_per_dim/{name}" for name in sources]
        by_knowledge = ("bits_per_dim_given", "conditional", "inconsistency", "multiplier")
        columns += [f"{what}/{name}" for what in by_knowledge for name in self.trained]
        columns += [f"term/{term.name}" for term in self.terms]
        row: dict[str, float | int] = {f"multiplier/{name}": each for name, each in self.multipliers.values.items()}
        rate = self.settings.learning_rate * self.rate_share(self.step - 1)
        row |= {"step": self.step, "seconds": round(self.seconds, 2), "learning_rate": rate}
        self.metrics.write(path, [*columns, *self.watch.columns()], row | self.watch.row(self.step))


class _Clock:
    """The time that a training takes, over all its pieces, and what is left of it."""

    def __init__(self, step: int, seconds: float) -> None:
        self._first, self._begun, self._before = step, time.monotonic(), seconds

    @property
    def seconds(self) -> float:
        return self._before + time.monotonic() - self._begun

    def left(self, steps: Steps) -> float:
        """Seconds to the end, at the pace of the steps in which nothing was compiled."""
        settings, plain = steps.settings, max(1, steps.step - self._first - steps.compile_steps)
        left = (time.monotonic() - self._begun - steps.compile_seconds) / plain * (settings.steps - steps.step)
        return left if settings.minutes is None else min(left, max(0.0, 60 * settings.minutes - self.seconds))
