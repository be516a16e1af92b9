"""The integral over characteristics, against quadrature."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from models import held_out, small
from torch import Tensor
from worlds import grid

from tzk_core.evaluation.scoring import _scored, score
from tzk_core.knowledge.importance import log_prob_present
from tzk_core.model import TzK
from tzk_core.random_streams import stream


@pytest.fixture(scope="module")
def integral() -> tuple[TzK, Tensor, Tensor]:
    """A knowledge type with random regressors, a few z, and log p(z given κ=1) by quadrature over C in R²."""
    model = small(dims=2, spread=0.2)
    knowledge = model.find("k0")
    z = torch.randn(3, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    nodes, weights = grid(-9.0, 9.0, 241)
    C = torch.cartesian_prod(nodes, nodes)
    with torch.no_grad():
        log_p = knowledge.log_prob_latent(z, C.expand(3, -1, -1)) + knowledge.log_prob_characteristics(C)
        return model, z, torch.logsumexp(log_p, 1) + 2 * weights[0].log()


def estimates(knowledge: Any, z: Tensor, *, samples: int, times: int) -> Tensor:
    """`times` independent estimates for each z, (times, batch)."""
    repeated = z.repeat(times, 1)
    with torch.no_grad():
        return log_prob_present(knowledge, repeated, samples, generator=stream(0, "test", samples)).view(times, -1)


def test_the_importance_weighted_bound_is_below_quadrature_and_converges(
    integral: tuple[TzK, Tensor, Tensor],
) -> None:
    model, z, exact = integral
    knowledge = model.find("k0")
    gaps = []
    for samples in (1, 4, 16, 64):
        values = estimates(knowledge, z, samples=samples, times=4096 // samples)
        gap, error = exact - values.mean(0), values.std(0) / math.sqrt(len(values))
        assert (gap > -4 * error).all(), "on average it is a lower bound"
        gaps.append(gap.mean().item())
    assert gaps == sorted(gaps, reverse=True)
    close = estimates(knowledge, z, samples=20000, times=1)[0]
    torch.testing.assert_close(close, exact, rtol=0, atol=0.04)


def test_the_importance_weighted_estimate_is_unbiased(integral: tuple[TzK, Tensor, Tensor]) -> None:
    """Of the density, not of its log: p(z given κ=1) on average, for any number of samples."""
    model, z, exact = integral
    for samples in (1, 2, 8):
        ratio = (estimates(model.find("k0"), z, samples=samples, times=8192 // samples) - exact).exp()
        error = ratio.std(0) / math.sqrt(len(ratio))
        assert ((ratio.mean(0) - 1).abs() < 4.5 * error).all(), samples


def test_a_wrong_encoder_costs_little_since_the_prior_has_its_share(
    integral: tuple[TzK, Tensor, Tensor],
) -> None:
    """However narrow and far off it is; by itself such an encoder would be many nats away."""
    model, z, exact = integral
    knowledge = model.find("k0")
    regressor = knowledge.characteristics_encoder.regressor
    last = regressor[-1]
    before = last.weight.detach().clone(), last.bias.detach().clone()
    with torch.no_grad():
        last.weight.zero_()
        last.bias.copy_(torch.tensor([5.0, -5.0, -4.0, -4.0]))
        values = estimates(knowledge, z, samples=2048, times=10)
        last.weight.copy_(before[0])
        last.bias.copy_(before[1])
    assert ((exact - values.mean(0)).abs() < 0.3).all()


def test_log_prob_of_a_model_is_the_same_bound_with_the_jacobian(
    integral: tuple[TzK, Tensor, Tensor],
) -> None:
    model, z, exact = integral
    with torch.no_grad():
        T = model.decode(z)
        log_prob = model.log_prob(T, "k0", importance_samples=20000)
        logabsdet = model.flow.encode(T)[1]
    torch.testing.assert_close(log_prob, exact + logabsdet, rtol=0, atol=0.04)


def test_scores_encode_every_sample_and_every_chunk_once() -> None:
    model = small(["gaussian", "gaussian"])
    generator = torch.Generator().manual_seed(0)
    T = torch.randn(10, 3, generator=generator, dtype=torch.float64)
    presence = torch.randint(0, 2, (10, 2), generator=generator)
    held = held_out(T, presence, ["k0", "k1"])
    scored = score(model, held, 4, everywhere=["k1"], chunk=3)
    with torch.no_grad():
        torch.testing.assert_close(scored.prior, model.log_prob(T))
    assert torch.equal(scored.rows["k0"], torch.nonzero(presence[:, 0] == 1).squeeze(1))
    assert torch.equal(scored.rows["k1"], torch.arange(10))
    assert torch.equal(scored.log_prob_where_present("k1"), scored.conditional["k1"][presence[:, 1] == 1])
    again = score(model, held, 4, everywhere=["k1"], chunk=3)
    assert all(torch.equal(scored.conditional[name], again.conditional[name]) for name in ("k0", "k1"))


def test_every_chunk_and_every_dequantisation_has_importance_noise_of_its_own() -> None:
    """One observation again and again, dequantised to the same: only the noise can differ."""
    model = small(["gaussian"], spread=0.5)
    T = torch.randn(1, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64).expand(6, 3)
    held = replace(held_out(T, torch.ones(6, 1), ["k0"]), draws=3, redraw=lambda number: T)
    by_draw = [
        _scored(model, held, T, number=draw, importance_samples=4, chunk=2).conditional["k0"] for draw in range(3)
    ]
    assert len(torch.stack(by_draw).unique()) == 18
    together = score(model, held, 4, chunk=2).conditional["k0"]
    torch.testing.assert_close(together.exp(), torch.stack(by_draw).exp().mean(0))
