"""What tests of commands share."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import pytest
from additions import added, folder, run
from fake_experiment import CONFIG, FakeExperiment

__all__ = ["added", "folder", "run"]


@pytest.fixture
def experiment(monkeypatch: pytest.MonkeyPatch) -> type[FakeExperiment]:
    """Commands get a fake experiment, and draw nothing."""
    from tzk_core.report import pictures

    module = types.ModuleType("tzk_core.runs.experiment")
    module.Experiment = FakeExperiment  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tzk_core.runs.experiment", module)
    opened = types.ModuleType("tzk_core.runs.opened")
    opened.open_run = FakeExperiment.opened  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tzk_core.runs.opened", opened)
    monkeypatch.setattr(pictures, "draw", lambda experiment, folder, results: (folder / "samples").mkdir())
    monkeypatch.setattr(FakeExperiment, "calls", [])
    monkeypatch.setattr(FakeExperiment, "interrupt_at", None)
    return FakeExperiment


__all__ = ["added", "folder", "run"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder with small.toml in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.toml").write_text(CONFIG)
    return tmp_path
