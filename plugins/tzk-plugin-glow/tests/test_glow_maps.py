"""Maps of single values: increasing, with the derivative of autograd, an inverse, and densities that integrate to 1."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from tzk_plugin_glow.coupling import MAPS, element_map
from tzk_plugin_glow.elementwise import ElementMap
from tzk_plugin_glow.mixture import Mixture, MixtureMap, logit_cdf, logit_quantile
from tzk_plugin_glow.spline import SplineMap


def sampled(map: ElementMap, count: int, scale: float = 1.0, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Values, (count, 1, 1, 1), and parameters of deviation `scale` for each, in float64."""
    source = torch.Generator().manual_seed(seed)
    values = 2 * torch.randn(count, 1, 1, 1, generator=source, dtype=torch.float64)
    return values, scale * torch.randn(count, map.count, 1, 1, 1, generator=source, dtype=torch.float64)


@pytest.mark.parametrize("name", MAPS)
def test_derivative_is_that_of_autograd(name: str) -> None:
    map = element_map(name, 4)
    values, parameters = sampled(map, 500)
    values.requires_grad_()
    outputs, log_slope = map.forward(values, parameters)
    (slope,) = torch.autograd.grad(outputs.sum(), values)
    torch.testing.assert_close(log_slope, slope.log(), rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_inverts(name: str, dtype: torch.dtype) -> None:
    map = element_map(name, 4)
    values, parameters = (each.to(dtype) for each in sampled(map, 5000))
    outputs, log_slope = map.forward(values, parameters)
    restored, negative = map.inverse(outputs, parameters)
    tolerance = 1e-9 if dtype == torch.float64 else 2e-3
    torch.testing.assert_close(restored, values, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(negative, -log_slope, rtol=100 * tolerance, atol=100 * tolerance)


@pytest.mark.parametrize("name", MAPS)
def test_gradients_of_the_inverse_are_those_of_the_implicit_function(name: str) -> None:
    map = element_map(name, 2)
    values, parameters = sampled(map, 6, scale=0.5)
    outputs = map.forward(values, parameters)[0].detach()
    arguments = outputs.requires_grad_(), parameters.requires_grad_()
    assert torch.autograd.gradcheck(lambda *each: map.inverse(*each)[0], arguments, atol=1e-5)


@pytest.mark.parametrize("name", MAPS)
def test_a_density_pulled_back_integrates_to_one(name: str) -> None:
    map = element_map(name, 4)
    _, parameters = sampled(map, 10, scale=0.5)
    grid = torch.linspace(-60, 60, 30_001, dtype=torch.float64)
    values, log_slope = map.forward(grid.expand(10, 1, 1, -1), parameters.expand(-1, -1, 1, 1, len(grid)))
    logistic = functional.logsigmoid(values) + functional.logsigmoid(-values)
    total = torch.trapezoid((logistic + log_slope).exp(), grid).flatten()
    torch.testing.assert_close(total, torch.ones_like(total), rtol=0, atol=1e-3)


@pytest.mark.parametrize("name", MAPS)
def test_starts_at_the_identity_or_close_to_it(name: str) -> None:
    map = element_map(name, 4)
    values = torch.linspace(-3, 3, 101).view(-1, 1, 1, 1)
    start = map.start().view(1, -1, 1, 1, 1).expand(101, -1, 1, 1, 1)
    outputs, log_slope = map.forward(values, start)
    assert (outputs - values).abs().max() < (0.2 if name == "mixture-of-logistics" else 1e-5)
    assert log_slope.abs().max() < (0.2 if name == "mixture-of-logistics" else 1e-5)


def test_equal_components_are_the_logistic_in_closed_form() -> None:
    x = torch.linspace(-200, 200, 4001, dtype=torch.float64)[None]
    mixture = Mixture(*(torch.full((1, 3, 1), value, dtype=torch.float64) for value in (-math.log(3), 1.5, 0.7)))
    value, log_slope = logit_cdf(x, mixture)
    torch.testing.assert_close(value, (x - 1.5) * math.exp(-0.7), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(log_slope, torch.full_like(x, -0.7), rtol=0, atol=1e-9)


def test_the_mixture_is_that_of_its_definition() -> None:
    map = MixtureMap(3)
    x, parameters = sampled(map, 200)
    logits, means, raw, (scale, shift) = *parameters[:, :-2].chunk(3, 1), parameters[:, -2:].unbind(1)
    F = (logits.softmax(1) * torch.sigmoid((x[:, None] - means) * torch.exp(-6 * torch.tanh(raw / 6)))).sum(1)
    expected = torch.logit(F) * torch.exp(3 * torch.tanh(scale / 3)) + shift
    torch.testing.assert_close(map.forward(x, parameters)[0], expected, rtol=1e-7, atol=1e-7)


def test_the_hardest_mixtures_invert() -> None:
    """Means far apart, log-scales over all of their bound: what Newton's method alone cycles on."""
    source = torch.Generator().manual_seed(1)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=source, dtype=torch.float64)

    weights = functional.log_softmax(10 * normal(20_000, 4), 1)
    mixture = Mixture(weights, 10 * normal(20_000, 4), (3 * normal(20_000, 4)).clamp(-6, 6))
    logits = 5 * normal(20_000)
    x, _ = logit_quantile(logits, mixture)
    again, log_slope = logit_cdf(x, mixture)
    assert ((again - logits).abs() / (1 + logits.abs() + log_slope.exp() * x.abs())).max() < 1e-12


@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize("scale", [0.0, 1.0, 1e4])
def test_extreme_values_and_parameters_stay_finite_in_float32(name: str, scale: float) -> None:
    map = element_map(name, 4)
    values = torch.tensor([0.0, 1.0, -1.0, 1e-30, 1e-7, 20.0, -90.0, 5e3, -1e5, 1e6]).view(-1, 1, 1, 1)
    parameters = sampled(map, len(values), scale)[1].float().requires_grad_()
    for function in (map.forward, map.inverse):
        outputs, log_slope = function(values, parameters)
        assert outputs.isfinite().all() and log_slope.isfinite().all()
        (gradient,) = torch.autograd.grad((outputs / 1e6).sum() + log_slope.sum(), parameters)
        assert gradient.isfinite().all()


def test_what_falls_between_logistics_far_apart_stays_finite() -> None:
    """Nearly all x between them have the same F: the inverse finds one that does, and no more can be asked of it."""
    mixture = [torch.tensor([[a, b]]).requires_grad_() for a, b in ((-0.7, -0.7), (-900.0, 900.0), (-5.0, -5.0))]
    logits = torch.tensor([-1.0, -1e-3, 0.0, 1e-6, 2.0])
    x, log_slope = logit_quantile(logits, Mixture(*(values.expand(5, 2) for values in mixture)))
    assert x.abs().max() < 1000 and log_slope.isfinite().all()
    gradients = torch.autograd.grad(x.sum(), mixture)
    assert all(gradient.isfinite().all() for gradient in gradients)
    torch.testing.assert_close(logit_cdf(x, Mixture(*mixture))[0][[0, 4]], logits[[0, 4]], rtol=1e-3, atol=1e-3)


def test_slopes_of_mixtures_are_bounded() -> None:
    """f / (F (1 - F)) is at most the largest exp(-s_k), so that the slope of the map is at most exp(6 + 3). (There is
    no bound below: between two logistics far apart there is nothing.)"""
    map = MixtureMap(4)
    values, parameters = sampled(map, 10_000, scale=1e3)
    assert map.forward(100 * values, parameters)[1].max() <= 9 + 1e-9


def test_splines_are_the_identity_in_their_tails_and_smooth_at_the_seams() -> None:
    map = SplineMap(8, tail=3.0)
    _, parameters = sampled(map, 1)
    outside = torch.tensor([-1e8, -3.5, -3.0, 3.0, 4.0], dtype=torch.float64).view(1, 1, 1, -1)
    outputs, log_slope = map.forward(outside, parameters.expand(-1, -1, 1, 1, 5))
    assert torch.equal(outputs, outside) and not log_slope.any()
    near = torch.tensor([-3 + 1e-9, 3 - 1e-9], dtype=torch.float64).view(1, 1, 1, -1)
    outputs, log_slope = map.forward(near, parameters.expand(-1, -1, 1, 1, 2))
    torch.testing.assert_close(outputs, near, rtol=0, atol=1e-8)
    assert log_slope.abs().max() < 1e-5


def test_splines_are_those_of_nflows() -> None:
    from nflows.transforms.splines.rational_quadratic import unconstrained_rational_quadratic_spline

    map = SplineMap(6, tail=4.0, minimum=1e-3)
    values, parameters = sampled(map, 300)
    widths, heights, slopes = (each.flatten(1) for each in parameters.split((6, 6, 5), 1))
    # nflows adds no constant before the softplus of its slopes
    slopes = slopes + math.log(math.expm1(1 - 1e-3))
    expected, log_slope = unconstrained_rational_quadratic_spline(
        values.flatten(), widths, heights, slopes, tail_bound=4.0
    )
    ours = map.forward(values, parameters)
    torch.testing.assert_close(ours[0].flatten(), expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(ours[1].flatten(), log_slope, rtol=1e-7, atol=1e-7)
