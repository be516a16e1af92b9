"""An experiment with nothing to learn, for tests of what commands say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tzk_core.config import load_config
from tzk_core.training.observers import Progress
from tzk_core.world import ALONE, World

CONFIG = """
name = "small"

[[flow.layers]]
type = "affine"

[[datasets]]
name = "moons"
type = "two-moons"

[[knowledge]]
name = "moons"
type = "gaussian"
present = { dataset = "moons" }

[training]
steps = 4
"""


class FakeExperiment:
    """What the commands need of an experiment, with nothing to learn."""

    interrupt_at: int | None = None
    calls: list[tuple[str, Any]] = []
    compiled: dict[str, Any] | None = None
    step = last_step = 4

    def __init__(self, config: Any, *, world: Any = None) -> None:
        self.config = config

    @classmethod
    def opened(cls, folder: Path) -> FakeExperiment:
        experiment = cls(load_config(folder / "config.toml"))
        experiment.load(folder)
        return experiment

    def describe(self) -> dict[str, Any]:
        return {
            "device": "cpu",
            "parameters": {"flow": 1234, "moons": 56},
            "observations": {"shape": [2], "levels": None},
            "data": {"moons": {"train": 1000, "test": 200}},
            "steps": self.config.training.steps,
            "kept": {},
            "validation": {"moons": 100},
            "batch_size": self.config.training.batch_size,
            "compile": False,
            "notes": ["something is evaluated in part only"],
        }

    def train(
        self, folder: Path, *, resume: bool, progress: Callable[[Any], None], observers: Any = (), world: World
    ) -> None:
        assert world == ALONE
        self.calls.append(("train", resume))
        (folder / "checkpoint").mkdir(exist_ok=True)
        for step in range(1, self.config.training.steps + 1):
            if step == self.interrupt_at and not resume:
                raise KeyboardInterrupt
            reached = Progress(step, 4, 2.0, 2.0, {"moons": 1.5})
            for observer in observers:
                observer.on_step(reached)
            progress(reached)

    def load(self, folder: Path) -> None:
        self.calls.append(("load", folder))

    def evaluate(self, split: str = "test", limit: int | None = None, *, world: World = ALONE) -> dict[str, Any]:
        assert world == ALONE
        row = {"name": "prior", "kind": "prior", "dataset": "moons", "split": split, "count": limit or 200}
        return {"format": 1, "rows": [{**row, "bits_per_image": 2.5, "bits_per_dim": 1.25}], "knowledge": []}
