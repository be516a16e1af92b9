"""Variants are compared on validation samples alone, with the steps that their own speed allows."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import equal_time

from tzk_core.runs.data import RunData

CONFIG = """
name = "small"
flow.layers = [{ type = "affine" }]
datasets = [{ name = "rings", train = 40, validation = 20, test = 20 }]
training = { steps = 5, batch_size = 8 }
"""


def test_a_variant_is_scored_on_validation_and_never_on_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    original = RunData.split
    monkeypatch.setattr(RunData, "split", lambda self, name: read.append(name) or original(self, name))
    path = tmp_path / "small.toml"
    path.write_text(CONFIG)
    found = equal_time.compared(path, "two training.batch_size=4", seconds=0.01, samples=16)
    assert found["name"] == "two" and found["variant"] == "two training.batch_size=4"
    assert found["steps"] >= 1 and found["bits_per_pixel"] > 0 and found["standard_error"] > 0
    assert "validation" in read and "test" not in read
