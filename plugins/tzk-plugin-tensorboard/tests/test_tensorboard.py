"""What TensorBoard reads back is what metrics.csv says, of a run, a resumed run and `fit`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("tensorboard", reason="needs tensorboard, which is not installed")

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tzk_plugin_tensorboard.writer import TensorBoard

from tzk_core import TzK, build_flow, fit
from tzk_core.testing import check_observer, check_plugin
from tzk_core.training.observers import Logged, Start

DATA = torch.randn(64, 2, generator=torch.Generator().manual_seed(0))


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """(step, value) by tag, of all event files in a folder."""
    events = EventAccumulator(str(folder))
    events.Reload()
    tags = events.Tags()["scalars"]
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in tags}


def test_it_is_a_plugin_and_an_observer() -> None:
    assert [spec.name for spec in check_plugin("tzk_plugin_tensorboard")] == ["tensorboard"]
    check_observer(TensorBoard)


def test_the_curves_are_the_history(tmp_path: Path) -> None:
    model = TzK(build_flow((2,), layers=[{"type": "affine"}]))
    observer = TensorBoard(folder=str(tmp_path))
    history = fit(model, DATA, validation=DATA, steps=6, log_every=2, validate_every=3, observers=[observer])
    written = scalars(tmp_path)
    logged = {column for column in history.columns if np.isfinite(history[column]).any()}
    assert set(written) == logged - {"step"}
    for column in ("objective", "bits_per_dim/T", "learning_rate"):
        assert [step for step, _ in written[column]] == list(history.step)
        assert [value for _, value in written[column]] == pytest.approx(list(history[column]), rel=1e-6)
    assert [step for step, _ in written["validation/T"]] == [3, 6]


def test_a_resumed_run_goes_on_from_its_step(tmp_path: Path) -> None:
    """A kill may come after step 4 is logged and before its checkpoint: resumed from 3, step 4 is there once."""
    for first, steps, value in ((0, (2, 4), 1.0), (3, (4, 5), 2.0)):
        observer = TensorBoard()
        observer.on_start(Start(first, 5, tmp_path, {"steps": 5}))
        for step in steps:
            observer.on_log(Logged(step, ("step", "objective"), {"step": step, "objective": value}))
        observer.on_failure(KeyboardInterrupt())
    assert scalars(tmp_path / "tensorboard")["objective"] == [(2, 1.0), (4, 2.0), (5, 2.0)]
