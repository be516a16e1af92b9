"""log p of a T of which a part is missing is the closed form's, and integrates what quadrature does."""

from __future__ import annotations

import math

import pytest
import torch
from linear_gaussian import LinearGaussian, log_normal
from torch import Tensor

from tzk_core.build import build_flow
from tzk_core.errors import TzkError
from tzk_core.model import TzK
from tzk_core.model.marginal import Proposal
from tzk_core.observations import partly_missing
from tzk_core.random_streams import stream
from tzk_core.recipes.entrance import entrance_of
from tzk_core.transforms.standardise import Standardise

NAN = math.nan


def truth(world: LinearGaussian, T: Tensor) -> tuple[Tensor, Tensor]:
    """log p(T_seen) and log p(T_seen given κ=1), (batch,): marginals of Gaussians drop rows and columns."""
    prior, present = [], []
    for row in T:
        seen = ~row.isnan()
        covariance = world.covariance[seen][:, seen]
        one, other = (log_normal(row[seen], world.mean(sign)[seen], covariance) for sign in (1, -1))
        present.append(one)
        prior.append(torch.logaddexp(one + math.log(world.share), other + math.log1p(-world.share)))
    return torch.stack(prior), torch.stack(present)


def holed(T: Tensor) -> Tensor:
    """Every pattern of missing values in turn, but for that of all."""
    patterns = torch.tensor([[(n >> i) & 1 for i in range(T.shape[1])] for n in range(2 ** T.shape[1] - 1)]).bool()
    return T.masked_fill(patterns[torch.arange(len(T)) % len(patterns)], NAN)


@torch.no_grad()
def test_it_is_the_closed_form_of_the_linear_gaussian_world() -> None:
    """For p(T) and p(T given κ=1), whichever part is missing; complete rows are exact."""
    world = LinearGaussian()
    model, T = world.model(), holed(world.sample(70, 3)[0])
    for name, expected in zip((None, "it"), truth(world, T), strict=True):
        found = model.marginal(T, name, importance_samples=400)
        missing = partly_missing(T)
        assert torch.equal(found.log_prob, model.log_prob(T, name, importance_samples=400))
        error = (found.log_prob - expected).abs()
        # of k effective samples the logarithm of the estimate is off by about 1/√k
        assert (error[missing] < 4 / found.effective_samples[missing].sqrt() + 0.02).all()
        assert error[missing].mean() < 0.08
        assert (found.effective_samples[missing] > 20).all() and found.effective_samples[~missing].isinf().all()
        assert error[~missing].max() < (1e-9 if name is None else 0.1)


@torch.no_grad()
def test_it_is_a_lower_bound_in_the_mean_that_more_samples_close() -> None:
    world = LinearGaussian()
    model, T = world.model(), world.sample(2000, 4)[0]
    T[:, 1:] = NAN
    found = {}
    for k, rows in ((2, 2000), (60, 300)):
        gap = truth(world, T[:rows])[0] - model.log_prob(T[:rows], importance_samples=k)
        found[k] = gap.mean().item(), gap.std().item() / math.sqrt(rows)
    assert found[2][0] > 3 * found[2][1], found
    assert abs(found[60][0]) < 0.02 + 3 * found[60][1] < found[2][0], found


@torch.no_grad()
def test_with_C_it_is_that_of_the_regression_on_C() -> None:
    world = LinearGaussian()
    T, kappa, C = world.sample(100, 5)
    T, C = T[kappa == 1], C[kappa == 1]
    T[:, 2] = NAN
    mean = (world.mean(1) + (C - world.centre) @ world.slope.T)[:, :2]
    rest = world.covariance - world.slope @ world.spread.square().diag() @ world.slope.T
    expected = torch.stack([log_normal(t, m, rest[:2, :2]) for t, m in zip(T[:, :2], mean, strict=True)])
    found = world.model().log_prob(T, "it", C, importance_samples=1000)
    torch.testing.assert_close(found, expected, rtol=0, atol=0.25)
    assert (found - expected).abs().mean() < 0.05


@torch.no_grad()
@pytest.mark.parametrize("domain", ["real", "(0, inf)", "(0, 1)", "levels"])
def test_in_any_domain_it_is_what_quadrature_integrates(domain: str) -> None:
    model = TzK(build_flow((2,), steps=2, domain=domain)).double()
    u = torch.randn(400, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    u[:, 1] = 0.6 * u[:, 1] + u[:, 0].sin()
    T = {"real": u, "(0, inf)": u.exp()}.get(domain, torch.sigmoid(u))
    model.flow.initialise(T)
    for parameter in model.parameters():
        parameter += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    nodes = torch.linspace(-14, 14, 1501, dtype=torch.float64)
    axis = {"real": nodes, "(0, inf)": nodes.exp()}.get(domain, torch.sigmoid(nodes))
    for first in T[:3, 0]:
        line = torch.stack([first.expand(len(axis)), axis], 1)
        expected = torch.trapezoid(model.log_prob(line).exp(), axis).log()
        found = model.marginal(torch.tensor([[first, NAN]], dtype=torch.float64), importance_samples=2000)
        assert found.log_prob.item() == pytest.approx(expected.item(), abs=0.1)
        assert "2000 samples" in found.estimate


@torch.no_grad()
def test_the_proposal_is_a_density_of_what_is_missing() -> None:
    """By quadrature in the unit of the data, beside an entrance onto the half line."""
    draws = torch.randn(100, 2, generator=torch.Generator().manual_seed(0)).exp().double()
    layer = Standardise((2,), "(0, inf)").double()
    layer.initialise(draws)
    proposal = Proposal(draws, layer)
    seen = torch.tensor([[1.5, NAN]], dtype=torch.float64)
    filled = proposal.fill(seen, 8000, stream(0, "test"))
    assert (filled.T[..., 0] == 1.5).all() and (filled.T[..., 1] > 0).all()
    # E_q[f / q] = ∫ f for f a density: that of a log-normal
    f = torch.distributions.LogNormal(0.0, 0.5).log_prob(filled.T[..., 1])
    assert (f - filled.log_q).exp().mean().item() == pytest.approx(1.0, abs=0.05)


def test_gradients_reach_the_model_through_it() -> None:
    world = LinearGaussian()
    model, T = world.model(), world.sample(50, 6)[0]
    T[:, 0] = NAN
    model.log_prob(T).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.flow.parameters())


def test_a_row_without_any_value_is_refused_and_infinity_too() -> None:
    model = LinearGaussian().model()
    with pytest.raises(TzkError, match="first in row 1, and nothing else"):
        model.log_prob(torch.tensor([[1.0, NAN, 2.0], [NAN] * 3], dtype=torch.float64))
    with pytest.raises(TzkError, match="nan or infinity, first in row 0"):
        model.log_prob(torch.tensor([[math.inf, NAN, 2.0]], dtype=torch.float64))
    assert entrance_of(model.flow.transform) is None
