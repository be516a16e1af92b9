"""An observer sees every event of a training, and can neither change a number nor end it; `fit` returns a history."""

from __future__ import annotations

import csv
import random
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_training import DATA, columns, made, same, state, trainer

from tzk_core import TzkError, fit
from tzk_core.errors import Note
from tzk_core.modes import flushes_denormals, flushing_denormals
from tzk_core.protection import protected
from tzk_core.training.guarded import Guarded, guarded, outcome
from tzk_core.training.observers import End, Logged, Observer, Progress, Start
from tzk_core.training.validation import Validated

METHODS = [name for name in vars(Observer) if name.startswith("on_")]


class Recording(Observer):
    """All events, in order."""

    def __init__(self) -> None:
        self.events: list[tuple[str, Any]] = []

    def of(self, method: str) -> list[Any]:
        return [event for name, event in self.events if name == method]


class Meddling(Observer):
    """Calls `meddle` at every event."""

    def __init__(self, meddle: Callable[[Any], Any]) -> None:
        self.meddle = meddle


for method in METHODS:
    setattr(Recording, method, lambda self, event, method=method: self.events.append((method, event)))
    setattr(Meddling, method, lambda self, event: self.meddle(event))

SETTINGS: dict[str, Any] = {"steps": 12, "log_every": 4, "batch_size": 16, "validate_every": 6}


def fitted(*observers: Observer | str, **more: Any) -> tuple[dict[str, torch.Tensor], Any]:
    model = made()
    history = fit(model, DATA, columns(), validation=DATA[:20], observers=observers, **{**SETTINGS, **more})
    return state(model), history


def test_every_event_comes_in_its_order() -> None:
    seen = Recording()
    _, history = fitted(seen)
    order = [(name, getattr(event, "step", None)) for name, event in seen.events if name != "on_step"]
    assert order == [
        ("on_start", 0),
        ("on_log", 4),
        ("on_validation", 6),
        ("on_log", 6),
        ("on_log", 8),
        ("on_validation", 12),
        ("on_log", 12),
        ("on_end", 12),
    ]
    assert [progress.step for progress in seen.of("on_step")] == list(range(1, 13))
    (start,), (end,) = seen.of("on_start"), seen.of("on_end")
    assert (start.steps, start.folder, start.settings["batch_size"]) == (12, None, 16)
    assert (end.best_step, dict(end.results)) == (history.best_step, {})
    assert [event.criterion for event in seen.of("on_validation")] == [
        event.criterion for event in history.trainer.watch.history
    ]


def test_the_rows_are_those_of_the_file_and_come_before_the_checkpoint(tmp_path: Path) -> None:
    seen = Recording()
    trainer().run(tmp_path, observers=[seen])
    with (tmp_path / "metrics.csv").open(newline="") as file:
        written = [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)]
    for row, logged in zip(written, seen.of("on_log"), strict=True):
        assert row == {key: float(f"{value:.6g}") for key, value in logged.values.items() if key in logged.columns}
    order = [(name, event.step) for name, event in seen.events if name in ("on_log", "on_checkpoint")]
    assert order == [
        *[("on_log", 4), ("on_checkpoint", 5), ("on_log", 8), ("on_checkpoint", 10)],
        *[("on_log", 12), ("on_checkpoint", 12)],
    ]
    assert all(event.folder == tmp_path / "checkpoint" for event in seen.of("on_checkpoint"))


def test_a_resumed_training_starts_from_its_step(tmp_path: Path) -> None:
    trainer(steps=5, decay="none").run(tmp_path)
    again, seen = trainer(decay="none"), Recording()
    again.resume(tmp_path)
    again.run(tmp_path, observers=[seen])
    (start,) = seen.of("on_start")
    assert (start.step, start.steps, start.folder) == (5, 12, tmp_path)


def test_the_core_s_own_observers_are_not_named() -> None:
    with pytest.raises(TzkError, match=r"'early-stopping' is the core's own, .* by patience"):
        fitted("early-stopping")


def change_dictionaries(event: Any) -> None:
    """Every mapping of an event."""
    for value in vars(event).values():
        if hasattr(value, "items"):
            value["objective"] = 1e9


def change_fields(event: Any) -> None:
    event.step = 0


def seed_everything(_: Any) -> None:
    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)


MEDDLE: dict[str, Callable[[Any], Any]] = {
    "draws": lambda _: (torch.rand(3), np.random.rand(3), random.random()),
    "seeds": seed_everything,
    "the default dtype": lambda _: torch.set_default_dtype(torch.float64),
    "the default device": lambda _: torch.set_default_device("meta"),
    "gradients": lambda _: torch.set_grad_enabled(False),
    "threads": lambda _: torch.set_num_threads(torch.get_num_threads() + 1),
    "determinism": lambda _: torch.use_deterministic_algorithms(True),
    "precision": lambda _: torch.set_float32_matmul_precision("medium"),
    "autocast": lambda _: torch.set_autocast_enabled("cpu", True),
    "denormals": lambda _: torch.set_flush_denormal(not flushes_denormals()),
    "the mappings of an event": change_dictionaries,
    "the fields of an event": change_fields,
    "exceptions": lambda _: 1 / 0,
    "exits": lambda _: exit(3),
}


@pytest.mark.parametrize("meddle", MEDDLE.values(), ids=MEDDLE)
@pytest.mark.filterwarnings("ignore::tzk_core.errors.Note")
def test_an_observer_changes_no_number(meddle: Callable[[Any], Any]) -> None:
    """Weights, log, validations, and the state of the process that numbers depend on."""
    plain, history = fitted()
    random_states = torch.get_rng_state(), np.random.get_state()[1], random.getstate()
    watched, again = fitted(Meddling(meddle))
    assert same(plain, watched)
    for column in set(history.columns) - {"seconds"}:
        np.testing.assert_array_equal(history[column], again[column], column)
    assert history.trainer.watch.history == again.trainer.watch.history
    assert torch.equal(random_states[0], torch.get_rng_state())
    assert (random_states[1] == np.random.get_state()[1]).all() and random_states[2] == random.getstate()
    assert torch.get_default_dtype() == torch.float32 and torch.get_default_device() == torch.device("cpu")


def test_what_an_observer_raises_is_reported_once_with_its_name() -> None:
    seen = Recording()
    with pytest.warns(Note) as caught:
        _, history = fitted(Meddling(MEDDLE["exceptions"]), seen)
    (warning,) = caught
    assert "observer Meddling raised ZeroDivisionError: division by zero in on_start" in str(warning.message)
    assert len(history) == 4 and len(seen.of("on_end")) == 1


def test_an_exception_without_a_text_is_reported_by_its_type() -> None:
    class Silent(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    def meddle(_: Any) -> None:
        raise Silent

    with pytest.warns(Note, match="raised Silent in on_start"):
        fitted(Meddling(meddle))


def test_ctrl_c_in_an_observer_is_the_users() -> None:
    def interrupt(event: Any) -> None:
        if isinstance(event, Progress) and event.step == 3:
            raise KeyboardInterrupt

    model, seen = made(), Recording()
    with pytest.raises(KeyboardInterrupt):
        fit(model, DATA, columns(), observers=[seen, Meddling(interrupt)], **SETTINGS)
    assert isinstance(seen.of("on_failure")[0], KeyboardInterrupt) and not seen.of("on_end")
    assert not any(module.training for module in model.modules()) and model.log_prob(DATA).isfinite().all()


def test_a_failure_is_told_to_those_that_were_started() -> None:
    started, late = Recording(), Recording()
    observers = [Guarded(started, "first"), Guarded(late, "second")]
    observers[0].on_start(Start(0, 1, None, {}))
    with pytest.raises(ValueError, match="no"), outcome(observers):
        raise ValueError("no")
    assert isinstance(started.of("on_failure")[0], ValueError) and not late.events


@pytest.mark.parametrize(
    ("observers", "words"),
    [
        ("tensorboard", r"expected as a list; got 'tensorboard': write observers=\[...\]"),
        ([print], "expected as a tzk_core.training.observers.Observer, or by its name; got <built-in function print>"),
        (["tensorbord"], "no observer is called 'tensorbord'"),
        ([Recording], "expected as a tzk_core.training.observers.Observer"),
    ],
)
def test_what_is_no_observer_is_refused(observers: Any, words: str) -> None:
    with pytest.raises(TzkError, match=words):
        guarded(observers)


def test_a_block_that_fails_is_protected_as_well() -> None:
    before = torch.get_rng_state()
    with pytest.raises(ValueError, match="no"), protected():
        torch.rand(1)
        torch.set_default_dtype(torch.float64)
        raise ValueError("no")
    assert torch.equal(before, torch.get_rng_state()) and torch.get_default_dtype() == torch.float32


def test_a_training_leaves_denormal_numbers_as_they_are() -> None:
    tiny = torch.full((4,), 1e-40)
    assert not flushes_denormals() and (tiny * 1.5 != 0).all()
    inside: list[bool] = []
    fit(made(), DATA, steps=2, progress=lambda _: inside.append(bool((tiny * 1.5 == 0).all())))
    assert inside == [True, True]
    assert not flushes_denormals() and (tiny * 1.5 != 0).all()
    with flushing_denormals(), flushing_denormals():
        pass
    assert not flushes_denormals()


# the history


def test_the_history_has_the_log_as_arrays() -> None:
    weights, history = fitted()
    assert history.step.tolist() == [4, 6, 8, 12] and history.step.dtype == np.int64
    assert history.bits_per_dim.shape == (4,) and np.isfinite(history.bits_per_dim).all()
    np.testing.assert_array_equal(np.isfinite(history.validation), [False, True, False, True])
    assert history["conditional/left"].shape == history["objective"].shape == (4,)
    validations = {each.step: each.criterion for each in history.trainer.watch.history}
    assert history.best_step == min(validations, key=validations.__getitem__)
    with pytest.raises(LookupError, match="logged no 'objectiv'; did you mean 'objective'"):
        history["objectiv"]
    assert f"12 steps, best at step {history.best_step}" in repr(history)


def test_an_average_is_that_of_the_steps_since_the_row_before() -> None:
    """By a history with a row for every step."""
    _, every = fitted(log_every=1, validate_every=0)
    _, rows = fitted(log_every=4, validate_every=0)
    expected = every["objective"].reshape(3, 4).mean(1)
    np.testing.assert_allclose(rows["objective"], expected, rtol=1e-12)
    assert rows.best_step == 12


def test_an_exception_in_the_callback_leaves_a_usable_model_and_returns_what_there_is() -> None:
    def stop(progress: Progress) -> None:
        if progress.step == 7:
            raise ValueError("enough")

    seen, model, shorter = Recording(), made(), made()
    with pytest.warns(RuntimeWarning, match="progress raised ValueError: enough after step 7"):
        history = fit(model, DATA, columns(), progress=stop, observers=[seen], **SETTINGS)
    assert isinstance(history.error, ValueError) and history.step.tolist() == [4] and history.trainer.step == 7
    assert "ended by ValueError" in repr(history) and len(seen.of("on_end")) == 1
    fit(shorter, DATA, columns(), decay="none", warmup=0, **{**SETTINGS, "steps": 7})
    assert not any(module.training for module in model.modules())
    assert model.log_prob(DATA).isfinite().all() and model.sample(3, "left").isfinite().all()


def test_progress_prints_lines_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    fit(made(), DATA, steps=3, progress=True)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("step 1 of 3, ") and lines[-1].startswith("step 3 of 3, ")
    assert "steps/s" in lines[-1] and "bits/dim T " in lines[-1]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(made(), DATA, steps=3, progress=False)
    assert capsys.readouterr().err == ""


def test_events_are_read_only() -> None:
    """Neither by item nor by attribute."""
    seen = Recording()
    fitted(seen)
    logged: Logged = seen.of("on_log")[0]
    validated: Validated = seen.of("on_validation")[0]
    end: End = seen.of("on_end")[0]
    for mapping in (logged.values, validated.prior, validated.capacity, end.results, seen.of("on_step")[0].nats):
        with pytest.raises(TypeError):
            mapping["step"] = 0  # type: ignore[index]
    with pytest.raises(AttributeError):
        logged.step = 0  # type: ignore[misc]
