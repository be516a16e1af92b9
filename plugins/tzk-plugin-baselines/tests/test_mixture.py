"""The mixture's own laws: its density, its distribution function far out, its inverse and its gradients."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from tzk_plugin_baselines.mixture import Mixture, from_gaussian, log_ndtr, log_quantile, to_gaussian

from tzk_core.distributions.standard import LOG_2PI


def mixture(n: int = 1, dtype: torch.dtype = torch.float64, seed: int = 0) -> Mixture:
    """n mixtures of four components, some narrow and some far."""
    generator = torch.Generator().manual_seed(seed)
    weights, means, scales = (torch.randn(n, 4, generator=generator, dtype=torch.float64) for _ in range(3))
    return Mixture((3 * weights).log_softmax(-1).to(dtype), (3 * means).to(dtype), (scales.exp() + 1e-2).to(dtype))


def expanded(mixture: Mixture, *shape: int) -> Mixture:
    return Mixture(*(parameters.expand(*shape, 4) for parameters in mixture))


def log_density(x: Tensor, mixture: Mixture) -> Tensor:
    components = torch.distributions.Normal(mixture.means, mixture.scales).log_prob(x.unsqueeze(-1))
    return torch.logsumexp(mixture.log_weights + components, -1)


def log_normal(z: Tensor) -> Tensor:
    return -0.5 * (z.square() + LOG_2PI)


def test_the_density_integrates_to_one() -> None:
    x = torch.linspace(-60, 60, 200001, dtype=torch.float64)
    z, log_slope = to_gaussian(x, expanded(mixture(), len(x)))
    assert torch.trapezoid((log_normal(z) + log_slope).exp(), x).item() == pytest.approx(1, abs=1e-6)


def test_z_is_standard_gaussian_by_its_distribution_function() -> None:
    x = torch.linspace(-12, 12, 101, dtype=torch.float64)
    one = mixture()
    expected = (one.log_weights.exp() * torch.distributions.Normal(one.means, one.scales).cdf(x[:, None])).sum(-1)
    z, _ = to_gaussian(x, expanded(one, 101))
    torch.testing.assert_close(torch.special.ndtr(z), expected, rtol=0, atol=1e-12)
    assert (z.diff() > 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_far_out_the_density_is_that_of_the_mixture_and_nothing_is_infinite(dtype: torch.dtype) -> None:
    x = torch.cat([side * torch.logspace(-3, 4, 200, dtype=torch.float64) for side in (-1, 1)])
    many = expanded(mixture(dtype=dtype), len(x))
    exact = log_density(x, Mixture(*(each.double() for each in many)))
    leaves = [each.clone().requires_grad_() for each in (x.to(dtype), *many)]
    z, log_slope = to_gaussian(leaves[0], Mixture(*leaves[1:]))
    found = log_normal(z) + log_slope
    assert z.isfinite().all() and log_slope.isfinite().all()
    torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=1e-4)
    for gradient in torch.autograd.grad(found.sum() + z.sum(), leaves):
        assert gradient.isfinite().all()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-9)])
def test_the_inverse_finds_x(dtype: torch.dtype, tolerance: float) -> None:
    """To the rounding of z over dz/dx, which is small between components that lie far apart."""
    z = torch.linspace(-6, 6, 121, dtype=dtype).expand(20, 121)
    many = Mixture(*(each.unsqueeze(1).expand(20, 121, 4) for each in mixture(20, dtype)))
    x = from_gaussian(z, many)
    assert x.isfinite().all()
    back, log_slope = to_gaussian(x, many)
    reached = (back - z).abs() < tolerance * log_slope.exp().clamp_min(1)
    assert reached.all(), f"{int((~reached).sum())} of {reached.numel()} are off"


def test_gradients_of_both_ways_are_those_of_differences() -> None:
    weights, means, scales = (each.requires_grad_() for each in mixture(6))
    x, z = (torch.randn(6, dtype=torch.float64, generator=torch.Generator().manual_seed(s)) for s in (1, 2))
    for way, values in ((to_gaussian, 3 * x), (from_gaussian, z)):
        assert torch.autograd.gradcheck(
            lambda x, logits, *rest, way=way: way(x, Mixture(logits.log_softmax(-1), *rest)),
            (values.requires_grad_(), weights.detach().requires_grad_(), means, scales),
        )


def test_logarithms_of_the_tail_and_their_inverse() -> None:
    z = torch.linspace(-300, 2, 20001)
    exact = torch.special.log_ndtr(z.double())
    log_p, log_mills = (each.double() for each in log_ndtr(z))
    torch.testing.assert_close(log_p, exact, rtol=3e-6, atol=1e-7)
    torch.testing.assert_close(log_mills, exact - log_normal(z.double()), rtol=0, atol=3e-6)
    log_p = -torch.logspace(math.log10(math.log(2)), 6, 500)
    back = torch.special.log_ndtr(log_quantile(log_p).double())
    torch.testing.assert_close(back, log_p.double(), rtol=1e-6, atol=1e-6)
