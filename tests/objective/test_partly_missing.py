"""With single values of T missing, training reaches the truth of a world that is known."""

from __future__ import annotations

import math

import pytest
import torch
from linear_gaussian import LinearGaussian, log_normal, shortfall
from models import NAN
from torch import Tensor

from tzk_core import fit
from tzk_core.build import build_flow
from tzk_core.model import TzK
from tzk_core.objective import mental_capacity
from tzk_core.objective.filling import Filling, hot_deck
from tzk_core.observations import Observations
from tzk_core.random_streams import stream


def holed(T: Tensor, share: float, seed: int = 0) -> Tensor:
    """T with this share of its values missing at random, none of its rows wholly."""
    gaps = torch.rand(T.shape, generator=torch.Generator().manual_seed(seed)) < share
    gaps[gaps.all(1), 0] = False
    return T.masked_fill(gaps, NAN)


@torch.no_grad()
def test_what_is_filled_in_is_of_the_conditional_given_T_and_knowledge() -> None:
    """Moments of T₁, T₂ given T₀ and κ=1, by the conditional of the world's Gaussian; κ=0 has others."""
    world = LinearGaussian()
    T = world.sample(600, 0)[0]
    filling = Filling(world.model(), T, stream(0, "test"), samples=40)
    seen = torch.full((1000, 3), NAN, dtype=torch.float64)
    seen[:, 0] = 0.4
    for sign, kappa in ((1, 1.0), (-1, 0.0)):
        observations = Observations(seen, torch.full((1000, 1), kappa), ("it",))
        found = filling.complete(observations, stream(1, "test"))
        assert (found.T[:, 0] == 0.4).all() and found.log_q is not None
        mean, covariance = world.mean(sign), world.covariance
        slope = covariance[1:, 0] / covariance[0, 0]
        expected = mean[1:] + slope * (0.4 - mean[0])
        rest = covariance[1:, 1:] - torch.outer(slope, covariance[0, 1:])
        deviation = rest.diagonal().sqrt()
        assert ((found.T[:, 1:].mean(0) - expected) / deviation).abs().max() < 0.15
        assert (found.T[:, 1:].T.cov() - rest).abs().max() < 0.2 * rest.diagonal().max()


@torch.no_grad()
def test_log_M_less_log_q_is_the_logarithm_of_what_was_seen() -> None:
    """Without knowledge: log p(T) - log q is log p(T_seen), a marginal of two Gaussians."""
    world = LinearGaussian()
    T = holed(world.sample(200, 1)[0], 0.4)
    model = TzK(world.model().flow)
    filling = Filling(model, T, stream(0, "test"), samples=100)
    whole = filling.complete(Observations.only(T), stream(1, "test"))
    capacity = mental_capacity(model, whole, lambda name, count: torch.empty(count, 0))
    expected = []
    for row in T:
        seen = ~row.isnan()
        both = [log_normal(row[seen], world.mean(sign)[seen], world.covariance[seen][:, seen]) for sign in (1, -1)]
        expected.append(torch.logaddexp(both[0] + math.log(world.share), both[1] + math.log1p(-world.share)))
    error = capacity.log_capacity - torch.stack(expected)
    assert error.abs().mean() < 0.12 and error.mean().abs() < 0.04
    torch.testing.assert_close(capacity.log_prob_T, capacity.log_capacity)
    complete = ~T.isnan().any(1)
    assert error[complete].abs().max() < 1e-9


@pytest.mark.slow
def test_training_with_a_third_of_all_values_missing_reaches_the_truth() -> None:
    world = LinearGaussian()
    T, kappa, C = world.sample(4000, 1)
    model = world.untrained()
    settings = {"steps": 400, "batch_size": 256, "learning_rate": 0.1, "beta2": 0.99}
    fit(model, holed(T, 1 / 3), {"it": kappa}, characteristics={"it": C}, **settings)
    gaps = shortfall(world, model)
    # twice what the complete samples reach, as where whole T are missing (test_linear_gaussian)
    within = {"T": 0.04, "T given κ=1": 0.04, "T given C": 0.08, "κ given T": 0.02, "C given T": 0.08}
    missed = {name: nats for name, nats in gaps.items() if not nats < within[name]}
    assert not missed, f"nats behind the truth: {missed}"


def test_a_short_training_starts_validates_and_repeats() -> None:
    world = LinearGaussian()
    T = holed(world.sample(300, 2)[0], 0.3)

    def trained() -> dict[str, Tensor]:
        model = TzK(build_flow((3,), steps=1, domain="real")).double()
        history = fit(model, T, steps=6, batch_size=64, validation=T[:50], validate_every=3)
        assert all(math.isfinite(validated.criterion) for validated in history.trainer.watch.history)
        return model.state_dict()

    one, other = trained(), trained()
    assert all(torch.equal(value, other[name]) and value.isfinite().all() for name, value in one.items())


def test_a_hot_deck_has_values_of_its_columns_in_the_gaps() -> None:
    T = torch.tensor([[1.0, NAN], [2.0, 5.0], [NAN, 6.0], [NAN, NAN]])
    whole = hot_deck(T, torch.Generator().manual_seed(0))
    assert whole.shape == (3, 2), "a row of which nothing was seen says nothing"
    assert torch.equal(whole.where(~T[:3].isnan(), NAN).nan_to_num(0), T[:3].nan_to_num(0))
    assert whole[0, 1] in (5.0, 6.0) and whole[2, 0] in (1.0, 2.0)
