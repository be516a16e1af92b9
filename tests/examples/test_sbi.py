"""The reference posteriors of `examples/sbi` are those of their simulators, and C2ST tells samples apart."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from scripts import printed_by

SCRIPT = Path(__file__).parents[2] / "examples/sbi/posteriors.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    pytest.importorskip("sklearn", reason="C2ST is a classifier of it")
    spec = importlib.util.spec_from_file_location("posteriors", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look for their module
    spec.loader.exec_module(module)
    return module


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
    printed = printed_by(SCRIPT, "--tasks", "two moons", *small)
    by_method = json.loads(out.read_text())["tasks"]["two moons"]
    assert "| two moons | TzK | " in printed and len(by_method["TzK"]["c2st"]) == 2
