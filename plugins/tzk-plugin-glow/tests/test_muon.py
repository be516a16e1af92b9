"""Muon: its steps against the singular value decomposition, what it is used for, and that a run with it goes on."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from tzk_plugin_glow.muon import LEAST, Muon, MuonWithAdam, matrices_of, orthogonal

from tzk_core.build import build_flow
from tzk_core.config import config_from
from tzk_core.errors import TzkError
from tzk_core.model import TzK
from tzk_core.observations import Observations
from tzk_core.plugins import Optimizer, registry
from tzk_core.runs.resume import changes
from tzk_core.testing import check_optimizer
from tzk_core.training.optimizers import Trained
from tzk_core.training.settings import Settings
from tzk_core.training.trainer import Trainer


@pytest.fixture(autouse=True)
def _same_numbers_whatever_ran_before() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("shape", [(32, 80), (80, 32), (48, 48)])
def test_steps_are_nearly_orthogonal_and_share_the_singular_vectors(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, dtype=torch.float64)
    found = orthogonal(matrix)
    U, _, Vh = torch.linalg.svd(matrix, full_matrices=False)
    inner = U.T @ found @ Vh.T
    torch.testing.assert_close(inner, torch.diag(inner.diagonal()), rtol=0, atol=1e-10)
    assert inner.diagonal().min() > 0.6 and inner.diagonal().max() < 1.3


@pytest.mark.parametrize("least", [1e-1, 1e-3, 1e-5])
def test_single_precision_is_enough_for_ill_conditioned_matrices(least: float) -> None:
    """Beside the iteration as it is written, on the matrix itself, in double precision."""
    U, V = (torch.linalg.qr(torch.randn(size, 40, dtype=torch.float64))[0] for size in (40, 360))
    matrix = U @ torch.diag(torch.logspace(0, math.log10(least), 40, dtype=torch.float64)) @ V.T
    expected = matrix / matrix.norm()
    for _ in range(5):
        square = expected @ expected.T
        expected = 3.4445 * expected + (-4.7750 * square + 2.0315 * square @ square) @ expected
    torch.testing.assert_close(orthogonal(matrix), expected, rtol=0, atol=1e-9)
    torch.testing.assert_close(orthogonal(matrix.float()).double(), expected, rtol=0, atol=1e-3)


def test_the_scale_of_the_gradient_does_not_matter_and_next_to_nothing_is_no_step() -> None:
    matrix = torch.randn(40, 64)
    torch.testing.assert_close(orthogonal(matrix * 1e-6), orthogonal(matrix * 1e6), rtol=1e-3, atol=1e-4)
    for scale in (0.0, 1e-22, 1e-30, 1e-42):  # the squares of all but the first underflow
        assert orthogonal(matrix * scale).abs().max() < 1e-6


def test_entries_of_a_step_are_a_fifth_of_the_rate() -> None:
    weight = nn.Parameter(torch.zeros(48, 4, 3, 3))
    optimiser = Muon([{"params": [weight], "lr": 0.5}])
    weight.grad = torch.randn_like(weight)
    optimiser.step()
    assert weight.square().mean().sqrt().item() == pytest.approx(0.2 * 0.5, rel=0.2)


def test_takes_the_large_matrices_and_leaves_all_else() -> None:
    module = nn.Sequential(
        nn.Conv2d(4, LEAST, 3), nn.Conv2d(3, LEAST, 3), nn.Linear(LEAST, LEAST - 1), nn.Linear(64, 64), nn.PReLU()
    )
    module[3].weight.requires_grad_(False)
    assert matrices_of(module) == {id(module[0].weight)}


def test_goes_on_from_its_state_as_if_nothing_had_happened() -> None:
    def fresh() -> tuple[nn.Sequential, MuonWithAdam]:
        torch.manual_seed(1)
        module = nn.Sequential(nn.Linear(40, 40), nn.Tanh(), nn.Linear(40, 2))
        groups = [{"params": list(module.parameters()), "rate": 0.01, "lr": 0.01}]
        optimiser = MuonWithAdam(Trained(groups, [module], 0.01, (0.9, 0.99)))
        assert [len(group["params"]) for group in optimiser.param_groups] == [1, 3]
        for group in optimiser.param_groups:
            group["lr"] = group["rate"]
        return module, optimiser

    def advance(module: nn.Module, optimiser: MuonWithAdam, steps: range) -> float:
        for step in steps:
            x = torch.randn(64, 40, generator=torch.Generator().manual_seed(step))
            loss = (module(x) - x[:, :2].sin()).square().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        return loss.item()

    whole, optimiser = fresh()
    start = advance(whole, optimiser, range(1))
    reached = advance(whole, optimiser, range(1, 40))
    assert reached < 0.8 * start and math.isfinite(reached)
    first, earlier = fresh()
    advance(first, earlier, range(20))
    second, later = fresh()
    second.load_state_dict(first.state_dict())
    later.load_state_dict(earlier.state_dict())
    advance(second, later, range(20, 40))
    for one, other in zip(whole.parameters(), second.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_it_conforms_and_is_registered() -> None:
    check_optimizer(MuonWithAdam, learning_rate=3e-3)
    check_optimizer(partial(MuonWithAdam, matrix_learning_rate=1e-2, momentum=0.9), learning_rate=3e-3)
    assert registry().find(Optimizer, "muon").load() is MuonWithAdam


@pytest.mark.parametrize(
    "arguments", [{"matrix_learning_rate": -1.0}, {"matrix_learning_rate": 1e3}, {"momentum": 1.0}]
)
def test_numbers_out_of_bounds_are_refused(arguments: dict[str, float]) -> None:
    with pytest.raises(TzkError, match=f"{next(iter(arguments))} is expected"):
        check_optimizer(partial(MuonWithAdam, **arguments))


def test_a_flow_without_large_matrices_is_refused() -> None:
    module = nn.Linear(LEAST - 1, 64)
    with pytest.raises(TzkError, match="this one has none that is trained and wide enough: write optimizer = 'adam'"):
        MuonWithAdam(Trained([{"params": list(module.parameters()), "rate": 0.1}], [module], 0.1, (0.9, 0.99)))


class Batches:
    """Batches of 32 Gaussian samples."""

    def batch(self, step: int) -> Observations:
        T = torch.randn(32, 2, generator=torch.Generator().manual_seed(step))
        return Observations(T, torch.zeros(32, 0), ())

    def sources(self, step: int) -> dict[str, slice]:
        return {"T": slice(0, 32)}


def trainer(**settings: Any) -> Trainer:
    wide = {"type": "masked-affine-autoregressive-transform", "features": 2, "hidden_features": LEAST}
    model = TzK(build_flow((2,), layers=[{"type": "affine"}, wide]))
    return Trainer(model, Batches(), Settings(steps=6, validate_every=0, **settings), levels=None)


def test_a_training_goes_on_with_the_rates_of_now(tmp_path: Path) -> None:
    def one_of(rate: float, of_matrices: float) -> Trainer:
        muon = {"type": "muon", "matrix_learning_rate": of_matrices}
        return trainer(learning_rate=rate, elementwise_rate=10.0, optimizer=muon)

    whole, half, again, slower = one_of(1e-2, 4e-2), one_of(1e-2, 4e-2), one_of(1e-2, 4e-2), one_of(5e-3, 1e-3)
    assert {group["rate"] for group in whole.optimizer.param_groups} == {1e-2, 4e-2, 1e-1}
    whole.run()
    for _ in range(3):
        half.advance()
    half.save(tmp_path)
    again.resume(tmp_path)
    again.run()
    state = again.model.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in whole.model.state_dict().items())
    slower.resume(tmp_path)
    assert {group["rate"] for group in slower.optimizer.param_groups} == {5e-3, 1e-3, 5e-2}


def test_the_key_that_the_core_had_is_an_argument_now() -> None:
    with pytest.warns(FutureWarning, match="training.matrix_learning_rate is now an argument of training.optimizer"):
        old = Settings(steps=1, optimizer="muon", matrix_learning_rate=0.1)
    assert old == Settings(steps=1, optimizer={"type": "muon", "matrix_learning_rate": 0.1})
    tables: dict[str, Any] = {
        "name": "old",
        "datasets": [{"name": "two-moons"}],
        "flow": {"layers": [{"type": "affine"}]},
    }
    with pytest.warns(FutureWarning):
        config = config_from(
            tables | {"training": {"steps": 1, "optimizer": "muon"}}, overrides=["training.matrix_learning_rate=0.1"]
        )
    assert config.training.optimizer.arguments == {"matrix_learning_rate": 0.1, "momentum": 0.95}
    faster = config_from(config.to_tables(), overrides=["training.optimizer.matrix_learning_rate=0.2"])
    (change,) = changes(config, faster, Path("run"))
    assert (change.old, change.new) == (0.1, 0.2)
    with pytest.raises(TzkError, match="momentum"):
        changes(config, config_from(config.to_tables(), overrides=["training.optimizer.momentum=0.5"]), Path("run"))
