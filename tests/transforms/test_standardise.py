"""Standardisation counts in the density, is set once from data, and says what it cannot take."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from tzk_core.domain import interval, intervals
from tzk_core.errors import TzkError
from tzk_core.testing import check_transform
from tzk_core.transforms.standardise import Standardise

DOMAINS = ["real", "(0, inf)", "(-inf, 2.5)", "(-1, 3)"]


def inside(domains: list[str], count: int) -> Tensor:
    """Values inside each domain, (count, len(domains)), at scales from 1e-4 to 1e5."""
    u = torch.randn(count, len(domains), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    columns = {
        "real": lambda u: 1e5 * u + 3e5,
        "(0, inf)": lambda u: 1e-4 * u.exp(),
        "(-inf, 2.5)": lambda u: 2.5 - u.exp(),
        "(-1, 3)": lambda u: -1 + 4 * torch.sigmoid(u),
    }
    return torch.stack([columns[name](u[:, i]) for i, name in enumerate(domains)], 1)


@pytest.mark.parametrize("domain", [*DOMAINS, DOMAINS])
def test_the_log_determinant_is_that_of_autograd(domain: str | list[str]) -> None:
    domains = domain if isinstance(domain, list) else [domain] * 3
    x = inside(domains, 50)
    layer = Standardise((len(domains),), domain).double()
    layer.initialise(x)
    y, logabsdet = layer(x)
    jacobian = torch.func.vmap(torch.func.jacrev(lambda row: layer(row[None])[0][0]))(x)
    torch.testing.assert_close(logabsdet, torch.linalg.slogdet(jacobian).logabsdet, rtol=0, atol=1e-10)
    back, inverse = layer.inverse(y)
    torch.testing.assert_close(back, x, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(inverse, -logabsdet, rtol=0, atol=1e-9)


def test_it_leaves_with_mean_0_and_deviation_1() -> None:
    x = inside(DOMAINS, 500)
    layer = Standardise((4,), DOMAINS).double()
    layer.initialise(x)
    y = layer(x)[0]
    torch.testing.assert_close(y.mean(0), torch.zeros(4, dtype=torch.float64), rtol=0, atol=1e-6)
    torch.testing.assert_close(y.std(0, unbiased=False), torch.ones(4, dtype=torch.float64), rtol=0, atol=1e-6)
    layer.initialise(2 * x)
    assert torch.equal(layer(x)[0], y), "a layer starts once"


def test_a_lognormal_column_has_its_density_in_the_unit_of_the_data() -> None:
    """With a standard Gaussian after it, it is the log-normal density with the moments of the data's logarithm."""
    x = torch.distributions.LogNormal(2.0, 0.5).sample((4000, 1)).double()
    layer = Standardise((1,), "(0, inf)").double()
    layer.initialise(x)
    y, logabsdet = layer(x)
    log_prob = -0.5 * (y[:, 0] ** 2 + math.log(2 * math.pi)) + logabsdet
    u = x.log()
    expected = torch.distributions.LogNormal(u.mean(), u.std(unbiased=False)).log_prob(x[:, 0])
    torch.testing.assert_close(log_prob, expected, rtol=0, atol=1e-6)


def test_a_constant_dimension_keeps_its_scale() -> None:
    layer = Standardise((2,))
    layer.initialise(torch.tensor([[3.0, float(i)] for i in range(5)]))
    y, logabsdet = layer(torch.tensor([[4.0, 2.0]]))
    torch.testing.assert_close(y, torch.tensor([[1.0, 0.0]]))
    torch.testing.assert_close(logabsdet, torch.tensor([-0.5 * math.log(2)]))


@pytest.mark.parametrize("domain", DOMAINS)
def test_samples_stay_in_the_domain_and_their_gradients_finite(domain: str) -> None:
    layer = Standardise((1,), domain)
    z = torch.linspace(-12, 12, 101)[:, None].requires_grad_()
    x, logabsdet = layer.inverse(z)
    (gradient,) = torch.autograd.grad(x.sum() + logabsdet.sum(), z)
    low, high = interval(domain)
    assert gradient.isfinite().all()
    assert (x >= low).all() and (x <= high).all()


def test_the_layer_keeps_the_contract() -> None:
    check_transform(Standardise((4,), DOMAINS), inside(DOMAINS, 16).float(), large=1)  # domains are bounded


def test_what_it_cannot_take_is_refused() -> None:
    with pytest.raises(TzkError, match=r"dimension 1 has the value -2, which is outside its domain, \(0, inf\)"):
        Standardise((2,), ["real", "(0, inf)"]).initialise(torch.tensor([[1.0, -2.0], [0.0, 1.0]]))
    for text in ("(1, 0)", "[0, 1]", "(0; 1)", "positive", "(0, nan)"):
        with pytest.raises(TzkError, match=r"a domain is expected as .*got"):
            interval(text)
    with pytest.raises(TzkError, match="expected 3; got 2"):
        intervals(["real", "real"], 3)
