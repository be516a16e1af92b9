"""SymLog: its formula and gradient, its knee, and how far out it stays finite."""

from __future__ import annotations

import math

import pytest
import torch

from tzk_core.errors import TzkError
from tzk_core.transforms.symlog import SymLog


def test_symlog_is_its_formula() -> None:
    x = torch.tensor([[-3.0, -1e-6, 0.0, 1e-6, 0.5, 1e4]], dtype=torch.float64)
    outputs, logabsdet = SymLog((6,))(x)
    expected = [math.copysign(math.log1p(abs(v)), v) for v in x[0].tolist()]
    torch.testing.assert_close(outputs[0], torch.tensor(expected, dtype=torch.float64), rtol=1e-14, atol=0.0)
    assert logabsdet.item() == pytest.approx(-sum(math.log1p(abs(v)) for v in x[0].tolist()))


def test_symlog_has_slope_1_at_zero_and_a_flat_logabsdet() -> None:
    x = torch.zeros(2, 3, requires_grad=True)
    outputs, logabsdet = SymLog((3,))(x)
    assert torch.equal(torch.autograd.grad(outputs.sum(), x, retain_graph=True)[0], torch.ones(2, 3))
    assert torch.equal(torch.autograd.grad(logabsdet.sum(), x)[0], torch.zeros(2, 3))


def test_the_gradient_of_symlog_is_that_of_finite_differences() -> None:
    x = torch.tensor([[-2.0, 0.3], [1.5, -0.1]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(SymLog((2,)), x)
    assert torch.autograd.gradgradcheck(SymLog((2,)), x)


@pytest.mark.parametrize("knee", [0.1, 0.5, 1.0, 5.0])
def test_beyond_its_knee_symlog_is_linear_with_the_slope_that_it_has_there(knee: float) -> None:
    x = torch.linspace(-20, 20, 4001, dtype=torch.float64)
    outputs, logabsdet = SymLog((1,), knee=knee)(x[:, None])
    inside = x.abs() <= knee
    magnitude = torch.where(inside, x.abs().log1p(), math.log1p(knee) + (x.abs() - knee) / (1 + knee))
    torch.testing.assert_close(outputs[:, 0], x.sign() * magnitude)
    torch.testing.assert_close(logabsdet, -torch.log1p(x.abs().clamp_max(knee)))


@pytest.mark.parametrize("knee", [0.5, 1.0])
def test_the_slope_of_symlog_has_no_jump_at_its_knee(knee: float) -> None:
    x = torch.tensor([[knee - 1e-9], [knee + 1e-9], [-knee + 1e-9], [-knee - 1e-9]], dtype=torch.float64)
    x.requires_grad_()
    outputs, _ = SymLog((1,), knee=knee)(x)
    (slope,) = torch.autograd.grad(outputs.sum(), x)
    torch.testing.assert_close(slope, torch.full_like(slope, 1 / (1 + knee)), rtol=1e-8, atol=0.0)


def test_the_gradient_of_symlog_with_a_knee_is_that_of_finite_differences() -> None:
    x = torch.tensor([[0.3, -0.4], [2.0, -7.0], [0.49, -0.51]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(SymLog((2,), knee=0.5), x)


@pytest.mark.parametrize("knee", [0.5, 1.0, 1.5])
def test_with_a_knee_ten_inverses_in_a_row_cannot_blow_up(knee: float) -> None:
    """|dx/dy| is at most 1 + knee, so that a latent of 10 comes back below 10 (1 + knee)¹⁰; without it is the tower."""
    y = torch.tensor([[10.0]], dtype=torch.float64)
    for _ in range(10):
        y, _ = SymLog((1,), knee=knee).inverse(y)
    assert y.item() < 10 * (1 + knee) ** 10


@pytest.mark.parametrize("knee", [-1.0, math.inf, math.nan])
def test_a_knee_is_finite_and_not_negative(knee: float) -> None:
    with pytest.raises(TzkError, match="expects a finite knee above 0, or 0 for none"):
        SymLog((2,), knee=knee)


def test_symlog_keeps_tiny_and_huge_values_in_float32() -> None:
    x = torch.tensor([[1e-30, -1e-20, 1e-7, 1e30]])
    outputs, _ = SymLog((4,))(x)
    torch.testing.assert_close(SymLog((4,)).inverse(outputs)[0], x, rtol=1e-4, atol=0.0)


def test_the_inverse_of_symlog_is_finite_however_far_out() -> None:
    x, logabsdet = SymLog((3,), bound=30.0).inverse(torch.tensor([[1e4, -1e30, 29.0]]))
    assert x.isfinite().all() and logabsdet.isfinite().all()
    assert x[0, 0] == -x[0, 1] > 1e12 and x[0, 2] == pytest.approx(math.exp(29) - 1)
    assert logabsdet.item() == pytest.approx(30 + 30 + 29)
