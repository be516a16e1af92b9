"""Checks of an `Observer`: it goes through the events of new, resumed and failing trainings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import chdir
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Any

from tzk_core.errors import nearest
from tzk_core.plugins.isolation import worded
from tzk_core.testing.expectations import NotConforming, expect
from tzk_core.training.observers import Checkpoint, End, Logged, Observer, Progress, Start
from tzk_core.training.settings import Settings
from tzk_core.training.validation import Validated

METHODS = tuple(name for name in vars(Observer) if name.startswith("on_"))


def check_observer(make: Callable[[], Observer]) -> None:
    """Check that an observer goes through three trainings.

    They are one in a run folder, a resumed one, and a failing one of `fit`.

    In a run a raised exception would be reported and the training go on; here it fails the check. The records are
    read-only, as in a run.

    Args:
        make: builds a new observer; called once a training.

    Raises:
        NotConforming: with what was expected and what it got.
    """
    observer = make()
    name = type(observer).__name__
    expect(isinstance(observer, Observer), f"{name} should be a subclass of tzk_core.training.observers.Observer")
    methods = [method for method in dir(observer) if method.startswith("on_")]
    for method in methods:
        known = f"{nearest(method, METHODS)}; methods: {', '.join(METHODS)}"
        expect(method in METHODS, f"{name}.{method} is called at no event{known}")
    own = [method for method in METHODS if getattr(type(observer), method) is not getattr(Observer, method)]
    expect(bool(own), f"{name} watches nothing: override one of {', '.join(METHODS)}")
    with TemporaryDirectory() as folder:
        run = Path(folder)
        _train(observer, folder=run, first=0)
        _train(make(), folder=run, first=4)
    with TemporaryDirectory() as folder, chdir(folder):  # without a run folder it may write into the current one
        observer = make()
        _call(observer, "on_start", Start(0, 4, None, _settings(4)))
        _call(observer, "on_failure", RuntimeError("a failure of the check"))


def _train(observer: Observer, *, folder: Path, first: int) -> None:
    """Two logged steps with a validation, a checkpoint and results in a folder."""
    settings = _settings(first + 2)
    _call(observer, "on_start", Start(first, first + 2, folder, settings))
    for step in (first + 1, first + 2):
        bits = MappingProxyType({"moons": 2.0 / step})
        columns = ("step", "seconds", "objective", "bits_per_dim/moons", "validation/moons")
        _call(observer, "on_validation", Validated(step, bits, bits, 2.0 / step))
        values = MappingProxyType({"step": step, "seconds": 0.1, "objective": -1.0, "bits_per_dim/moons": 2.0 / step})
        _call(observer, "on_log", Logged(step, columns, values))
        _call(observer, "on_step", Progress(step, first + 2, 0.1, 0.0, bits))
    (folder / "checkpoint").mkdir(exist_ok=True)
    _call(observer, "on_checkpoint", Checkpoint(first + 2, folder / "checkpoint", best=False))
    row = {"name": "prior", "kind": "prior", "dataset": "moons", "split": "test", "count": 10, "bits_per_dim": 1.5}
    results = MappingProxyType({"format": 1, "rows": [row], "knowledge": []})
    _call(observer, "on_end", End(first + 2, first + 2, folder, results))


def _settings(steps: int) -> Mapping[str, Any]:
    return MappingProxyType(Settings(steps=steps).model_dump())


def _call(observer: Observer, method: str, event: object) -> None:
    try:
        getattr(observer, method)(event)
    except Exception as error:
        raise NotConforming(
            f"{type(observer).__name__}.{method} should raise nothing; it raised {worded(error)}"
        ) from error
