"""The layer `ffjord`: closed forms of linear equations, autograd's Jacobian, samples by themselves, gradients."""

from __future__ import annotations

import math

import pytest
import torch
from continuous_layers import linear, perturbed
from torch import Tensor
from tzk_plugin_continuous.evaluations import evaluations_of
from tzk_plugin_continuous.ffjord import Ffjord

from tzk_core.errors import TzkError
from tzk_core.testing import check_transform

MATRIX = torch.tensor([[0.5, -1.0, 0.2], [0.8, -0.3, 0.0], [0.1, 0.4, -0.9]], dtype=torch.float64)
OFFSET = torch.tensor([0.3, -0.2, 1.0], dtype=torch.float64)


@pytest.mark.parametrize("trace", ["exact", "hutchinson"])
def test_a_linear_equation_is_solved_by_the_matrix_exponential(trace: str) -> None:
    """dx/dt = A x + b over one unit of time: x(1) = exp(A) x + φ(A) b and log|det| = tr A."""
    layer = linear(MATRIX, OFFSET, evaluation_tolerance=1e-10, evaluation_trace=trace, probes=1)
    inputs = torch.randn(50, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    outputs, logabsdet = layer(inputs)
    augmented = torch.zeros(4, 4, dtype=torch.float64)
    augmented[:3, :3], augmented[:3, 3] = MATRIX, OFFSET
    solution = torch.linalg.matrix_exp(augmented)
    torch.testing.assert_close(outputs, inputs @ solution[:3, :3].T + solution[:3, 3], rtol=0, atol=1e-9)
    if trace == "exact":
        torch.testing.assert_close(logabsdet, torch.full_like(logabsdet, MATRIX.trace().item()), rtol=0, atol=1e-9)
    else:  # vᵀ A v of v = ±1 is the trace with the symmetric part beside the diagonal, of random signs
        assert logabsdet.std() > 0.1
        a, b, c = (MATRIX[i, j] + MATRIX[j, i] for i, j in ((0, 1), (0, 2), (1, 2)))
        signs = torch.tensor([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], dtype=torch.float64)
        possible = MATRIX.trace() + signs @ torch.stack([a, b, c])
        assert ((logabsdet[:, None] - possible).abs().min(1).values < 1e-8).all()


@pytest.mark.parametrize("shape", [(3,), (2, 2, 2)])
def test_log_det_is_that_of_the_jacobian(shape: tuple[int, ...]) -> None:
    layer = perturbed(Ffjord(shape, 5, 2), by=0.2)
    inputs = torch.randn(2, *shape, dtype=torch.float64)
    logabsdet = layer(inputs)[1]
    for row in range(2):
        matrix = torch.autograd.functional.jacobian(lambda x: layer(x[None])[0].flatten(), inputs[row])
        expected = torch.linalg.slogdet(matrix.reshape(inputs[0].numel(), -1)).logabsdet
        torch.testing.assert_close(logabsdet[row], expected, rtol=0, atol=1e-6)


def test_the_layer_conforms() -> None:
    torch.manual_seed(0)
    check_transform(Ffjord((1,), 3, 1, steps=16), torch.randn(2, 1), draws=1)


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments", [{}, {"solver": "dopri5", "tolerance": 1e-8}, {"adjoint": True}], ids=["rk4", "dopri5", "adjoint"]
)
def test_every_way_to_train_conforms(arguments: dict[str, object]) -> None:
    torch.manual_seed(0)
    check_transform(Ffjord((2,), 4, 1, steps=32, **arguments), torch.randn(3, 2), draws=1)  # type: ignore[arg-type]


@pytest.mark.parametrize("trace", ["exact", "hutchinson"])
@pytest.mark.parametrize("direction", ["forward", "inverse"])
def test_what_comes_of_a_sample_depends_on_no_other(trace: str, direction: str) -> None:
    """Beside one that needs many steps, and in any order, to rounding."""
    layer = perturbed(Ffjord((2,), 8, 2, evaluation_trace=trace, steps=2), by=1.0)
    inputs = torch.randn(6, 2, dtype=torch.float64)
    company = torch.cat([100 * inputs[3:], inputs.flip(0)])
    alone, beside = getattr(layer, direction)(inputs), getattr(layer, direction)(company)
    for one, other in zip(alone, beside, strict=True):
        torch.testing.assert_close(other[3:].flip(0), one, rtol=0, atol=1e-12)


def test_samples_take_the_steps_that_they_need_themselves() -> None:
    """An easy sample costs no more beside a hard one: evaluations are the mean of both alone."""
    layer = perturbed(Ffjord((2,), 8, 2, steps=2), by=1.5)
    inputs = torch.randn(10, 2, dtype=torch.float64)
    counts = [_count(layer, inputs[row : row + 1]) for row in range(10)]
    assert len(set(counts)) > 1
    assert _count(layer, inputs) == pytest.approx(sum(counts) / 10)


@torch.no_grad()
def _count(layer: Ffjord, inputs: Tensor) -> float:
    layer(inputs)
    return evaluations_of(layer)


def test_a_tighter_tolerance_is_closer_to_the_solution_and_costs_more() -> None:
    torch.manual_seed(0)
    layer = perturbed(Ffjord((2,), 8, 1, steps=2), by=0.3)
    inputs = torch.randn(20, 2, dtype=torch.float64)
    solved = {}
    for tolerance in (1e-3, 1e-5, 1e-9):
        own = Ffjord((2,), 8, 1, steps=2, evaluation_tolerance=tolerance).double().eval()
        own.load_state_dict(layer.state_dict())
        solved[tolerance] = (*own(inputs), evaluations_of(own))
    exact = solved[1e-9]
    for tolerance in (1e-3, 1e-5):
        assert (solved[tolerance][0] - exact[0]).abs().max() < 10 * tolerance
        assert (solved[tolerance][1] - exact[1]).abs().max() < 10 * tolerance
    assert solved[1e-3][2] < solved[1e-5][2] < exact[2]


@pytest.mark.parametrize("solver", ["rk4", "dopri5"])
def test_gradients_of_the_adjoint_are_those_through_the_steps(solver: str) -> None:
    gradients = []
    for adjoint in (False, True):
        torch.manual_seed(0)
        layer = perturbed(Ffjord((2,), 5, 1, solver=solver, steps=20, tolerance=1e-9, adjoint=adjoint)).train()
        inputs = torch.randn(4, 2, dtype=torch.float64, requires_grad=True)
        outputs, logabsdet = layer(inputs)
        (outputs.square().sum() + logabsdet.sin().sum()).backward()
        gradients.append([inputs.grad, *(parameter.grad for parameter in layer.parameters())])
    for through, adjoint_of in zip(*gradients, strict=True):
        torch.testing.assert_close(adjoint_of, through, rtol=1e-5, atol=1e-6)


def test_every_sample_of_an_adaptive_solver_is_within_the_tolerance() -> None:
    """In training, one hard sample among many: the norm is not a mean over the batch, which would drown it."""
    torch.manual_seed(0)
    layer = perturbed(Ffjord((2,), 8, 1, solver="dopri5", tolerance=1e-5))
    inputs = torch.cat([torch.randn(1, 2), torch.zeros(999, 2)]).double()
    exact = perturbed(Ffjord((2,), 8, 1, evaluation_tolerance=1e-8))
    exact.load_state_dict(layer.state_dict())
    expected = exact(inputs[:1])
    outputs, logabsdet = layer.train()(inputs)
    torch.testing.assert_close(outputs[:1], expected[0], rtol=0, atol=1e-4)
    torch.testing.assert_close(logabsdet[:1], expected[1], rtol=0, atol=1e-4)


def test_it_starts_at_the_identity() -> None:
    inputs = torch.randn(5, 3)
    outputs, logabsdet = Ffjord((3,)).eval()(inputs)
    assert torch.equal(outputs, inputs) and not logabsdet.any()


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_value_that_is_no_number_costs_nothing_and_spoils_no_other(bad: float) -> None:
    layer = perturbed(Ffjord((2,), 5, 1))
    inputs = torch.randn(3, 2, dtype=torch.float64)
    spoilt = inputs.clone()
    spoilt[1] = bad
    torch.testing.assert_close(layer(spoilt)[0][::2], layer(inputs)[0][::2], rtol=0, atol=1e-12)
    assert not layer(spoilt)[1][1].isfinite() or not layer(spoilt)[0][1].isfinite().all()


def test_no_samples_are_no_error() -> None:
    outputs, logabsdet = Ffjord((3,)).eval()(torch.zeros(0, 3))
    assert outputs.shape == (0, 3) and logabsdet.shape == (0,)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"solver": "rk5"}, "solver is expected as one of euler.*dopri5.*got 'rk5'"),
        ({"trace": "rough"}, "trace is expected as one of auto, exact, hutchinson; got 'rough'"),
        ({"steps": 0}, "steps from 1 to 512"),
        ({"tolerance": 0.0}, "tolerances above 0"),
        ({"hidden": 0}, "hidden of at least 1; got 0"),
        ({"shape": (2, 2)}, r"vectors, \(d,\), or images"),
    ],
)
def test_what_cannot_be_is_refused(arguments: dict[str, object], words: str) -> None:
    with pytest.raises(TzkError, match=words):
        Ffjord(**{"shape": (2,), **arguments})  # type: ignore[arg-type]
