"""C that nobody observes: it starts with something to say, and finds what z is like."""

from __future__ import annotations

import math

import pytest
import torch
from models import gradients, small, steady
from torch import Tensor

import tzk_core
from tzk_core.build import build_flow, build_knowledge
from tzk_core.distributions.regressor import Regressor
from tzk_core.knowledge.base import ENCODER_DEVIATION, LEAST_LATENTS, leading_directions
from tzk_core.model import TzK
from tzk_core.objective import Objective, Wording, mental_capacity
from tzk_core.observations import Observations
from tzk_core.training.initialisation import fit_priors, start_characteristics
from tzk_core.training.settings import Settings

TYPES = ["flow", "gaussian", "low-rank"]
DIMS = 6


def stretched(n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """z, (n, DIMS), that varies by 3 along one direction, and by 0.5 along the others; and that direction."""
    generator = torch.Generator().manual_seed(seed)
    direction = torch.nn.functional.normalize(torch.tensor([1.0, -1.0, 2.0, 0.0, 0.5, 1.0], dtype=torch.float64), dim=0)
    z = 0.5 * torch.randn(n, DIMS, generator=generator, dtype=torch.float64)
    along = torch.randn(n, 1, generator=generator, dtype=torch.float64)
    return z + 3 * along * direction, direction


def made(type_: str, **arguments: object) -> TzK:
    """A model whose flow is the identity, with one knowledge type "k0" of one characteristic."""
    model = TzK(build_flow((DIMS,), layers=[{"type": "affine"}]))
    more = {} if type_ == "low-rank" else {"layers": 4}
    model.add("k0", build_knowledge(type_, (DIMS,), name="k0", characteristics=1, hidden=16, **more, **arguments))
    return model.double()


def decoder_pull(model: TzK, batches: int = 40) -> float:
    """The mean gradient at the last layer of p(z given C), over its standard error; the largest of its entries."""
    knowledge = model.find("k0")
    weights = []
    for seed in range(batches):
        z, _ = stretched(64, seed)
        noise = torch.randn(64, 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        seen = Observations(z, torch.ones(64, 1, dtype=torch.float64), ("k0",))
        value = mental_capacity(
            model, seen, lambda name, count, noise=noise: noise, objective=Objective(kl_weight=0.0)
        ).value
        last = {
            key: gradient
            for key, gradient in gradients(value, knowledge).items()
            if "latent" in key and "regressor" in key
        }
        width = max(int(key.split("regressor.")[1].split(".")[0]) for key in last)
        rows = next(gradient for key, gradient in last.items() if key.endswith(f"regressor.{width}.weight"))
        weights.append(rows[:DIMS].flatten())  # of the mean: that of the deviation moves whatever C says
    pulls = torch.stack(weights)
    return (pulls.mean(0).abs() / (pulls.std(0) / math.sqrt(batches)).clamp_min(1e-12)).max().item()


@pytest.mark.parametrize("type_", TYPES)
def test_at_the_start_the_decoder_has_a_gradient_in_expectation(type_: str) -> None:
    model = made(type_)
    assert decoder_pull(model) > 20, "an encoder that says something of z pulls the same way in every batch"
    model.find("k0").fit_characteristics(torch.tensor([[-1.0], [1.0]], dtype=torch.float64))  # starts it neutral
    assert decoder_pull(model) < 6, "beside a neutral encoder C is noise, and no entry has a mean pull"


@pytest.mark.parametrize("type_", TYPES)
def test_an_unobserved_characteristic_finds_the_direction_that_z_lies_along(type_: str) -> None:
    T, direction = stretched(2000)
    model = made(type_).float()
    tzk_core.fit(
        model, T.float(), {"k0": torch.ones(2000)}, steps=250, batch_size=128, learning_rate=1e-2, initialisation=0
    )
    z = model.flow.encode(T.float())[0]
    C, _ = model.find("k0").characteristics_given(z)
    correlation = torch.corrcoef(torch.stack([C[:, 0].double(), T @ direction]))[0, 1].abs().item()
    assert correlation > 0.9


def test_it_starts_from_the_leading_direction_of_the_latents() -> None:
    z, direction = stretched(1000)
    model = made("gaussian")
    start_characteristics(model, z, {"k0": torch.ones(1000)}, observed=(), seed=0)
    mean, deviation = model.find("k0").characteristics_given(z)
    assert mean.std().item() == pytest.approx(1.0, abs=0.15)  # the soft bound takes a little of it
    torch.testing.assert_close(deviation, torch.full_like(deviation, ENCODER_DEVIATION))
    assert torch.corrcoef(torch.stack([mean[:, 0], z @ direction]))[0, 1].abs() > 0.99


def test_an_observed_characteristic_starts_neutral_whatever_z(monkeypatch: pytest.MonkeyPatch) -> None:
    z, _ = stretched(100)
    model = made("gaussian")
    monkeypatch.setattr(model.flow, "encode", None)  # no pass through the flow is needed
    fit_priors(model.find("k0"), torch.tensor(0.5), 3 + 2 * torch.randn(500, 1, dtype=torch.float64))
    start_characteristics(model, z, {"k0": torch.ones(100)}, observed=("k0",), seed=0)
    mean, deviation = model.find("k0").characteristics_given(z)
    assert torch.equal(mean, mean[:1].expand(100, 1)) and torch.equal(deviation, deviation[:1].expand(100, 1))
    assert mean[0].item() == pytest.approx(3, abs=0.3) and deviation[0].item() == pytest.approx(2, abs=0.2)


def test_a_few_latents_say_nothing_of_directions() -> None:
    """The leading direction of a handful is that of an accident, and would not have variance 1 on others."""
    knowledge = made("gaussian").find("k0")
    before = knowledge.characteristics_encoder.state_dict()
    z, _ = stretched(LEAST_LATENTS - 1)
    knowledge.start_characteristics(z, torch.Generator().manual_seed(3))
    few = {key: value.clone() for key, value in knowledge.characteristics_encoder.state_dict().items()}
    knowledge.start_characteristics(None, torch.Generator().manual_seed(3))
    assert before.keys() == few.keys()
    for key, value in knowledge.characteristics_encoder.state_dict().items():
        assert torch.equal(value, few[key])


def test_leading_directions_have_variance_1_and_are_uncorrelated() -> None:
    x = torch.randn(500, 8, dtype=torch.float64) @ torch.randn(8, 8, dtype=torch.float64)
    W = leading_directions(x, 3, 8, generator=torch.Generator().manual_seed(0))
    covariance = torch.cov((x @ W.to(x).T).T)
    torch.testing.assert_close(covariance, torch.eye(3, dtype=x.dtype), atol=5e-3, rtol=0)


def test_directions_beyond_the_rank_of_the_latents_are_random() -> None:
    x = torch.randn(100, 1) * torch.ones(1, 5)
    W = leading_directions(x, 3, 5, generator=torch.Generator().manual_seed(0))
    assert W.shape == (3, 5) and torch.isfinite(W).all() and (W.abs().sum(1) > 0).all()


@pytest.mark.parametrize(("hidden", "layers"), [(16, 4), (16, 1), (7, 3), (3, 2)])
def test_a_regressor_can_start_linear(hidden: int, layers: int) -> None:
    regressor = Regressor(5, 6, hidden=hidden, layers=layers).double()
    regressor.initialise(torch.Generator().manual_seed(0))
    weight = torch.randn(3, 5, dtype=torch.float64)
    regressor.start_linear(weight)
    carried = 3 if layers == 1 else min(3, hidden // 2)  # a pair of hidden units carries one
    x = torch.randn(10, 5, dtype=torch.float64)
    expected = torch.zeros(10, 6, dtype=torch.float64)
    expected[:, :carried] = x @ weight[:carried].T
    torch.testing.assert_close(regressor(x), expected)


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_the_weight_of_the_kl_is_that_of_log_p_less_log_q_of_what_was_filled_in(weight: float) -> None:
    model = small(("gaussian",))
    knowledge = model.find("k0")
    T = torch.randn(4, 3, dtype=torch.float64)
    observed = torch.tensor([[0.3, -1.0], [math.nan, math.nan]], dtype=torch.float64).repeat(2, 1)
    seen = Observations(T, torch.ones(4, 1, dtype=torch.float64), ("k0",), {"k0": observed})
    capacity = mental_capacity(model, seen, steady(), objective=Objective(kl_weight=weight))
    z, logabsdet = model.flow.encode(T)
    filled_in = observed.isnan().any(1)
    C = torch.where(filled_in[:, None], knowledge.encode(z, torch.full((4, 2), 0.5, dtype=torch.float64)), observed)
    log_q = knowledge.log_prob_characteristics_given(C, z)
    log_p = knowledge.log_prob_characteristics(C)
    log_prob_z = model.flow.base.log_prob(z)
    decoder = knowledge.log_prob_presence().present + knowledge.log_prob_latent(z, C) - log_prob_z
    decoder = decoder + torch.where(filled_in, weight * (log_p - log_q), log_p)
    encoder = knowledge.log_prob_presence_given(z).present + torch.where(filled_in, 0.0, log_q)
    torch.testing.assert_close(capacity.log_capacity, log_prob_z + logabsdet + 0.5 * (encoder + decoder))


def test_a_characteristic_that_is_cut_off_is_noise_on_both_sides() -> None:
    """Its log q is log p(C), so that only the encoder's own density of that noise is left of it."""
    model = small(("gaussian",))
    knowledge = model.find("k0")
    T, noise = torch.randn(4, 3, dtype=torch.float64), torch.full((4, 2), 0.5, dtype=torch.float64)
    seen = Observations(T, torch.ones(4, 1, dtype=torch.float64), ("k0",))
    capacity = mental_capacity(model, seen, steady(), objective=Objective(wording=Wording(fill_in="prior")))
    z, logabsdet = model.flow.encode(T)
    C, log_prob_z = knowledge.imagine(noise), model.flow.base.log_prob(z)
    decoder = knowledge.log_prob_presence()[1] + knowledge.log_prob_latent(z, C) - log_prob_z
    encoder = knowledge.log_prob_presence_given(z)[1]
    encoder = encoder + knowledge.log_prob_characteristics_given(C, z) - knowledge.log_prob_characteristics(C)
    torch.testing.assert_close(capacity.log_capacity, log_prob_z + logabsdet + 0.5 * (encoder + decoder))


def test_the_papers_wording_has_no_kl_to_warm_up() -> None:
    model, literal = small(("gaussian",)), Wording(fill_in="literal")
    seen = Observations(torch.randn(4, 3, dtype=torch.float64), torch.ones(4, 1, dtype=torch.float64), ("k0",))
    values = [
        mental_capacity(model, seen, steady(), objective=Objective(wording=literal, kl_weight=w)).value.item()
        for w in (0.0, 1.0)
    ]
    assert values[0] == values[1]


def test_the_kl_is_warmed_up_over_its_share_of_the_steps() -> None:
    settings = Settings(steps=1000, kl_warmup=0.4)
    assert [settings.kl_weight(step) for step in (0, 100, 400, 999)] == [0.0, 0.25, 1.0, 1.0]
    assert Settings(steps=1000, kl_warmup=0.0).kl_weight(0) == 1.0
