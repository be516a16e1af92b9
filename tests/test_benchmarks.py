"""What the benchmarks compare is comparable: the stock model is the same model, and adding the same work."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import add_cost  # noqa: E402
import torch  # noqa: E402
import train_step  # noqa: E402


def test_the_stock_model_has_the_objective_and_gradients_of_ours() -> None:
    batches = train_step.Made(64, count=1)
    difference = train_step.compare(train_step.built(batches), batches.batch(0))
    assert max(difference.values()) < 1e-9


def test_adding_the_first_and_the_fourth_takes_the_same_memory_and_the_same_flow() -> None:
    first, fourth = add_cost.trainers([0, 3], batch_size=16, steps=1).values()
    for mine, theirs in zip(first.model.flow.parameters(), fourth.model.flow.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    for trainer in (first, fourth):
        trainer.advance()
    assert add_cost.peak(first.advance) == add_cost.peak(fourth.advance) > 16 * 1024 * 4
    parameters = sum(p.numel() for p in first.model.knowledge.parameters())
    assert add_cost.state(first) == add_cost.state(fourth) >= 2 * 4 * parameters


def test_the_cost_of_adding_is_summed_up_as_ratios_within_a_round() -> None:
    taken = {"1": [(1.0, 2.0), (2.0, 4.0), (1.0, 2.0)], "10": [(1.5, 2.0), (3.0, 4.0), (1.5, 2.0)]}
    found = add_cost.summary(taken)
    assert found["1"]["wall"]["ratio"] == 1 and found["10"]["wall"]["ratio"] == 1.5 and found["10"]["cpu"]["ratio"] == 1
    assert found["10"]["wall"]["ratio_quartiles"] == [1.5, 1.5]
