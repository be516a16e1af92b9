"""The reference posteriors of `examples/sbi` are those of their simulators, and C2ST tells samples apart."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from scripts import module_of, printed_by

SCRIPT = Path(__file__).parents[2] / "examples/sbi/posteriors.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    pytest.importorskip("sklearn", reason="C2ST is a classifier of it")
    return module_of(SCRIPT)


def test_two_moons_posterior_is_that_of_the_simulations_that_come_out_near(script: ModuleType) -> None:
    """By rejection: parameters whose data lie within 0.04 of what was observed."""
    torch.manual_seed(0)
    task = script.TASKS["two moons"]
    observed = torch.tensor([-0.2, 0.1])
    theta = task.prior(1_000_000)
    near = theta[(task.simulate(theta) - observed).norm(dim=1) < 0.04]
    exact = task.reference(observed, 4000)
    assert len(near) > 300
    for of in (lambda t: t.sum(1).abs(), lambda t: t[:, 1] - t[:, 0], lambda t: (t.sum(1) > 0).float()):
        assert float(of(near).mean()) == pytest.approx(float(of(exact).mean()), abs=0.06)
        assert float(of(near).std()) == pytest.approx(float(of(exact).std()), abs=0.04)


def test_the_posterior_of_gaussian_linear_is_the_regression_of_parameters_on_data(script: ModuleType) -> None:
    torch.manual_seed(0)
    task = script.TASKS["gaussian linear"]
    theta = task.prior(20_000)
    x = task.simulate(theta)
    slope = (theta * x).mean() / x.square().mean()
    assert float(slope) == pytest.approx(0.5, abs=0.01)
    samples = task.reference(x[0], 20_000)
    assert torch.allclose(samples.mean(0), x[0] / 2, atol=0.02)
    assert float(samples.var(0).mean()) == pytest.approx(float((theta - slope * x).var()), rel=0.03)


def test_c2st_is_a_half_for_the_same_and_one_for_what_is_elsewhere(script: ModuleType) -> None:
    torch.manual_seed(0)
    a, b = torch.randn(300, 2), torch.randn(300, 2)
    assert script.c2st(a, b, seed=0) == pytest.approx(0.5, abs=0.08) and script.c2st(a + 6, b, seed=0) > 0.98


@pytest.mark.slow
def test_the_command_leaves_results(script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tzk_plugin_baselines")
    out = tmp_path / "results.json"
    small = ["--simulations", "200", "--observations", "2", "--samples", "60", "--steps", "3", "--out", str(out)]
    printed = printed_by(SCRIPT, "--tasks", "two moons", "--methods", "TzK", *small)
    by_seed = json.loads(out.read_text())["tasks"]["two moons"]
    assert "| two moons | TzK | " in printed and [len(of["TzK"]["c2st"]) for of in by_seed] == [2, 2]


@pytest.mark.slow
def test_samples_are_within_the_prior_and_the_better_architecture_is_taken(script: ModuleType) -> None:
    """By the log posterior of the simulations that are for validation."""
    pytest.importorskip("tzk_plugin_baselines")
    torch.manual_seed(0)
    task = script.TASKS["two moons"]
    theta = task.prior(300)
    x = task.simulate(theta)

    def posterior(*architectures: str) -> Any:
        training = script.Training(architectures, 20, 2e-3, bounded=False, activation="tanh")
        return script.tzk_posterior(task, theta, x, training=training, seed=0)

    alone = [float(posterior(name).log_prob(theta[:30], x[:30]).mean()) for name in ("maf", "rq-nsf-coupling")]
    better = posterior("maf", "rq-nsf-coupling")
    assert float(better.log_prob(theta[:30], x[:30]).mean()) == max(alone) != min(alone)
    samples = better.sample(x[0], 200)
    assert samples.shape == (200, 2) and float(samples.abs().max()) < 1
