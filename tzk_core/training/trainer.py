"""The training loop: steps to the end, validation, checkpoints and a log on the way."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tzk_core.errors import TzkError
from tzk_core.modes import flushing_denormals
from tzk_core.storage.atomic import is_there
from tzk_core.storage.checkpoint import load_checkpoint, load_trainer, save_checkpoint
from tzk_core.storage.places import BEST, LAST
from tzk_core.storage.shared_flow import check_same_flow
from tzk_core.training.gathering import present
from tzk_core.training.memory import peak_memory
from tzk_core.training.metrics import STEP
from tzk_core.training.observers import Checkpoint, EachStep, Logged, Observer, Progress, Start
from tzk_core.training.optimizers import check_same, described, restore, trained_tensors
from tzk_core.training.own import EARLY_STOPPING, METRICS_CSV, own_observer
from tzk_core.training.soundness import Diverged, LastSound, all_finite, copied, tensors_in
from tzk_core.training.state import BestState, State, checked_state, fitting
from tzk_core.training.steps import Steps
from tzk_core.training.stopping import EarlyStopping
from tzk_core.training.validation import Best, Validated


class Trainer(Steps):
    """A training in place, to the end, with validation, checkpoints and a log."""

    _observers: tuple[Observer, ...] = ()  # of the `run` that is going on
    _stopping: EarlyStopping
    seconds = 0.0
    _saves = False  # whether the first process writes checkpoints

    @cached_property
    def _sound(self) -> LastSound:
        return LastSound()

    @flushing_denormals()
    def run(
        self,
        folder: Path | None = None,
        progress: Callable[[Progress], None] | None = None,
        *,
        checkpoints: bool = True,
        observers: Sequence[Observer] = (),
    ) -> None:
        """Train to the last step, to the cap in minutes or out of patience.

        It goes on from wherever it is.

        In several processes all go on from the state of the first, which alone has a folder and observers. They are to
        stop together: `progress` raises KeyboardInterrupt in all of them, or in none.

        With `folder`, writes metrics.csv, and, unless told not to, checkpoints there: the last one, at the end too, and
        the best by validation. On KeyboardInterrupt the last one is written before the exception goes on.

        Args:
            progress: called after every step; what it raises ends the training.
            observers: called with the events of the training, though not with its end, after which results come.

        Raises:
            Diverged: where anything stops being finite. The trainer, and the last checkpoint, then have the last state
                that is fit to go on from.
        """
        folder = Path(folder) if folder else None
        log = [own_observer(METRICS_CSV)] if folder else []
        calls = [EachStep(progress)] if progress else []
        self._stopping = own_observer(EARLY_STOPPING)
        # calls last, so that an interrupt from there finds the step logged
        self._observers = (*log, self._stopping, *observers, *calls)
        saved_to = folder if checkpoints else None
        try:
            start = Start(self.step, self.settings.steps, folder, MappingProxyType(self.settings.model_dump()))
            self._tell(lambda observer: observer.on_start(start))
            self._take_state_of_first()
            self._saves = self.world.of_first(saved_to is not None)
            self.divide()
            self.shard()
            if self._finite:
                self._sound.offer(None, self._whole_state)
            self._train_and_save(saved_to)
        finally:
            self._observers = ()

    def _train_and_save(self, saved_to: Path | None) -> None:
        try:
            self._train(saved_to)
            self._save(saved_to)
        except Diverged as error:
            self._go_back(error, saved_to)
            self.unite()
            raise
        except KeyboardInterrupt:
            if self._saves and (self._finite or self._restore_sound()):
                self._save(saved_to)
            self.unite()
            raise
        self.unite()

    def unite(self) -> None:
        """Have everything in all processes."""
        if self.divided:
            super().unite()
            self._sound = LastSound()
            if self._finite:
                self._sound.offer(None, self._whole_state)

    def _take_state_of_first(self) -> None:
        """The state of the first process, in all."""
        if self.world.size == 1:
            return
        first = self.world.first
        state, best = self.world.of_first((copied(self._whole_state()), self.watch.best) if first else (None, None))
        if state is not None and not first:
            divided = self.parameter_tables.divided  # from the start: each process has started its own types
            self.model.load_state_dict(state["model"], strict=not divided)
            self._load_state(state | {"banks": self.parameter_tables.state_dict()} if divided else state)
            self.watch.best = best

    def _train(self, saved_to: Path | None) -> None:
        """The steps of `run`, and whatever is due after one."""
        settings, clock = self.settings, _Clock(self.step, self.seconds)
        while self.step < settings.steps:
            compiled = self._timed_step()
            self._sound.confirm()
            self.seconds = self._agreed(clock.seconds)
            capped = settings.minutes is not None and self.seconds > 60 * settings.minutes
            validated = self.watch.due(self.step, end=capped or self.step == settings.steps)
            if validated:
                self._validate(saved_to)
            reached = self._reached(clock, compiled)
            if validated or self.step % settings.log_every == 0 or self.step == settings.steps:
                self._close_window(validated=validated)
            if self.step % settings.checkpoint_every == 0:
                self._save(saved_to)
            self._tell(lambda observer, reached=reached: observer.on_step(reached))  # type: ignore[misc]
            if capped or self._stopping.over:
                break

    def _agreed(self, seconds: float) -> float:
        """The seconds by which all processes decide whether the time is over."""
        if self.settings.minutes is None or self.world.size == 1:
            return seconds
        return self.world.largest(round(1e6 * seconds)) / 1e6

    def _tell(self, event: Callable[[Observer], None]) -> None:
        for observer in self._observers:
            event(observer)

    def _reached(self, clock: _Clock, compiled: float | None) -> Progress:
        last, best = self.watch.last, self.watch.best
        return Progress(
            step=self.step,
            steps=self.settings.steps,
            seconds=self.seconds,
            seconds_left=clock.left(self),
            bits_per_dim=MappingProxyType(self.metrics.means("bits_per_dim")),
            nats=MappingProxyType(self.metrics.means("conditional")),
            compiled=compiled,
            validation=MappingProxyType(dict(last.prior) if last else {}),
            best=best.step if best else None,
            steps_per_second=clock.steps_per_second(self),
            memory=peak_memory(self._like.device),
        )

    def _validate(self, saved_to: Path | None) -> None:
        """Evaluate the model on validation data, and keep it if it is the best.

        Raises:
            Diverged: if the last validation exploded.
        """
        assert self.watch.validation is not None
        with self._whole_flow(take=True, state=False):
            validated = self.watch.validation.measure(
                self.model,
                self.step,
                self.settings.wording,
                negatives=self.settings.negatives,
                stacks=self.parameter_tables,
                world=self.world,
                owners=self.owners,
            )
            self.parameter_tables.forget()
            with self._whole() if self.watch.better(validated) else nullcontext():
                self._note(validated, saved_to)
        if self.watch.exploded():
            raise Diverged(self.step, f"-log M on validation data is {validated.criterion} bits per dim")

    def _note(self, validated: Validated, saved_to: Path | None) -> None:
        """Tell of a validation, and keep the model if it is the best."""
        best = self.watch.take(validated, self.model, self.multipliers.values)
        shown = validated.read_only()
        self._tell(lambda observer: observer.on_validation(shown))
        if best and saved_to:
            about = {"step": self.step, "multipliers": dict(self.multipliers.values), "validated": vars(validated)}
            save_checkpoint(self.model, saved_to / BEST, about)
            written = Checkpoint(self.step, saved_to / BEST, best=True)
            self._tell(lambda observer: observer.on_checkpoint(written))

    def _close_window(self, *, validated: bool) -> None:
        """Log the averages since the last row, and keep the state if it is sound.

        Raises:
            Diverged: if parameters or moments of the optimiser are not finite.
        """
        if not self._finite:
            raise Diverged(self.step, "parameters or moments of the optimiser are not finite")
        objective = self.metrics.mean("objective")
        logged = self._logged()
        self._tell(lambda observer: observer.on_log(logged))
        self.metrics.clear()
        watch = self.watch
        if not watch.on or watch.last is not None and watch.best is None:
            self._sound.offer(objective, self._whole_state)
        elif validated and watch.last is not None:
            self._sound.offer(-watch.last.criterion, self._whole_state)

    @property
    def _finite(self) -> bool:
        """Whether a step from here could be finite, in all processes.

        What is trained is finite then, and the optimiser's state too.
        """
        return not self.world.largest(int(not self._finite_here)) if self.divided else self._finite_here

    @property
    def _finite_here(self) -> bool:
        optimizer = self.optimizer
        elsewhere = {id(parameter) for parameter in self._owned.absent} if self._owned else set()
        here = [parameter for parameter in trained_tensors(optimizer) if id(parameter) not in elsewhere]
        parts = (here, self.parameter_tables.tensors, tensors_in(optimizer.state_dict()))
        return all(map(all_finite, parts))

    def _whole_state(self) -> dict[str, Any]:
        return {"model": present(self.model.state_dict()), **self._state()}

    def _restore_sound(self) -> bool:
        """Go back to the last state that is fit to go on from.

        Returns:
            Whether there is one.
        """
        state = self._sound.state
        if state is None:
            return False
        self.model.load_state_dict(state["model"], strict=not self.owners)
        self._load_state(state)
        return True

    def _go_back(self, error: Diverged, saved_to: Path | None) -> None:
        """Goes back, writes the last checkpoint, and notes both in the error."""
        if self._restore_sound():
            error.back = self.step
            self._save(saved_to)
            error.saved = saved_to is not None
        if self.watch.best is not None:
            error.best = self.watch.best.step

    def _save(self, saved_to: Path | None) -> None:
        """`save`, of all processes together: the first one writes.

        Raises:
            Diverged: in all of them, rather than write what is not finite.
        """
        if not self._saves:
            return
        if self.divided and not self._finite:
            raise Diverged(self.step, "parameters or moments of the optimiser are not finite")
        with self._whole_flow(take=self.world.first), self._whole():
            if saved_to:
                self.save(saved_to)

    def save(self, folder: Path) -> None:
        """Write folder/checkpoint with everything that is needed to go on.

        Raises:
            Diverged: rather than write what is not finite.
        """
        if not self._finite_here:
            raise Diverged(self.step, "parameters or moments of the optimiser are not finite")
        save_checkpoint(self.model, Path(folder) / LAST, self._state())
        written = Checkpoint(self.step, Path(folder) / LAST, best=False)
        self._tell(lambda observer: observer.on_checkpoint(written))

    def resume(self, folder: Path) -> None:
        """Takes weights, optimiser, multipliers and step from folder/checkpoint, and the best model from folder/best.

        Learning rates, clip, minutes and patience are those of the settings of now, as are the steps, and with them
        the decay; all other settings have to be the same.
        """
        if self.parameter_tables.divided:
            raise TzkError("a training is resumed with a model of all its knowledge types: build it whole")
        last = Path(folder) / LAST
        state = checked_state(State, load_trainer(last), last)
        self.watch.best = self._stored_best(Path(folder) / BEST)  # before the last, as loading may fill this flow
        self._load_weights(last)
        with fitting(last):
            self._load_state(state)

    def take_best(self) -> int:
        """Set the model and the multipliers to the best by validation, if there is one.

        Returns:
            The step that the model is of.
        """
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

    def _logged(self) -> Logged:
        """The averages since the last row.

        The columns are of all knowledge types, whatever this row has.
        """
        columns = [STEP, "seconds", "learning_rate", "objective", "prior_weight"]
        columns += [f"bits_per_dim/{name}" for name in self.batches.sources(self.step)]
        by_knowledge = ("bits_per_dim_given", "conditional", "inconsistency", "multiplier")
        columns += [f"{quantity}/{name}" for quantity in by_knowledge for name in self.trained]
        columns += [f"term/{term.name}" for term in self.terms]
        columns += self.watch.columns()
        values: dict[str, float | int] = dict(self.metrics.means())
        values |= {f"multiplier/{name}": value for name, value in self.multipliers.values.items()}
        rate = self.settings.learning_rate * self.rate_share(self.step - 1)
        values |= {STEP: self.step, "seconds": round(self.seconds, 2), "learning_rate": rate}
        values |= self.watch.row(self.step)
        return Logged(self.step, tuple(columns), MappingProxyType(values))


class _Clock:
    """The time of a training, over all its sessions, and what is left of it."""

    def __init__(self, step: int, seconds: float) -> None:
        self._first, self._begun, self._before = step, time.monotonic(), seconds

    @property
    def seconds(self) -> float:
        return self._before + time.monotonic() - self._begun

    def left(self, steps: Steps) -> float:
        """Seconds to the end, at the pace of the steps in which nothing was compiled."""
        settings, plain = steps.settings, max(1, self._plain(steps))
        left = self._plain_seconds(steps) / plain * (settings.steps - steps.step)
        return left if settings.minutes is None else min(left, max(0.0, 60 * settings.minutes - self.seconds))

    def steps_per_second(self, steps: Steps) -> float | None:
        """The pace of the steps in which nothing was compiled; None before there was one."""
        plain, seconds = self._plain(steps), self._plain_seconds(steps)
        return plain / seconds if plain > 0 and seconds > 0 else None

    def _plain(self, steps: Steps) -> int:
        return steps.step - self._first - steps.compile_steps

    def _plain_seconds(self, steps: Steps) -> float:
        return time.monotonic() - self._begun - steps.compile_seconds
