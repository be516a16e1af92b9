"""The model in stock nflows parts that TzK is timed against is the same model: objective and gradients agree."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import train_step  # noqa: E402


def test_the_stock_model_has_the_objective_and_gradients_of_ours() -> None:
    batches = train_step.Made(64, count=1)
    difference = train_step.compare(train_step.built(batches), batches.batch(0))
    assert max(difference.values()) < 1e-9
