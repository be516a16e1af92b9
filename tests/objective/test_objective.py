"""The objective, Eq. 3, against formulas written by hand for random models."""

from __future__ import annotations

import pytest
import torch
from models import NAN, WORDINGS, absent, assert_equal_gradients, batch, gradients, sides, small, steady
from torch import Tensor

from tzk_core.errors import TzkError
from tzk_core.objective import Capacity, Objective, Wording, mental_capacity
from tzk_core.observations import Observations

# With no knowledge


@pytest.mark.parametrize("named", [False, True], ids=["no knowledge in the model", "knowledge in the model only"])
@pytest.mark.parametrize("wording", WORDINGS, ids=str)
def test_without_knowledge_it_is_maximum_likelihood_bit_for_bit(wording: Wording, named: bool) -> None:
    model = small(["flow"] if named else []).float()
    T = torch.randn(7, 3)
    likelihood = model.flow.log_prob(T)
    expected = gradients(likelihood.mean(), model)
    capacity = mental_capacity(model, Observations.only(T), steady(), objective=Objective(wording=wording))
    assert torch.equal(capacity.value, likelihood.mean())
    assert torch.equal(capacity.log_capacity, likelihood)
    assert torch.equal(capacity.log_prob_T, likelihood)
    assert capacity.prior_weight == 1
    assert not capacity.inconsistency and not capacity.conditional
    for name, gradient in gradients(capacity.value, model).items():
        assert torch.equal(gradient, expected[name]), name


# Equation 3 by hand


MIXED = [[1, 0, 1], [0, 0, 0], [1, 1, 1], [0, 1, 0], [1, 0, 0]]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("wording", WORDINGS, ids=str)
def test_equation_3_with_everything_observed(wording: Wording, seed: int) -> None:
    model = small(["gaussian", "flow", "gaussian"], seed=seed)
    seen = batch(MIXED, seed=seed, observed=["k0", "k1", "k2"])
    z, logabsdet = model.flow.encode(seen.T)
    log_prob_z = model.flow.base.log_prob(z)
    encoder = decoder = log_prob_z + logabsdet
    for column, (name, knowledge) in enumerate(model.named_knowledge()):
        C, present = seen.characteristics[name], seen.presence[:, column] == 1
        enc, dec = sides(knowledge, z, C, log_ratio=knowledge.log_prob_latent(z, C) - log_prob_z, log_q=0.0)
        not_enc, not_dec = absent(knowledge, z)
        encoder, decoder = (
            encoder + torch.where(present, enc, not_enc),
            decoder + torch.where(present, dec, not_dec),
        )
    capacity = mental_capacity(model, seen, steady(), objective=Objective(wording=wording))
    torch.testing.assert_close(capacity.log_capacity, 0.5 * (encoder + decoder))
    torch.testing.assert_close(capacity.value, (0.5 * (encoder + decoder)).mean())


@pytest.mark.parametrize("fill_in", ["bound", "literal"])
def test_equation_3_with_missing_characteristics(fill_in: str) -> None:
    """Some rows of C observed, others not: log q leaves both sides where C was filled in, and only there."""
    model, seen = small(), batch([[1], [1], [0], [1]], observed=["k0"])
    seen.characteristics["k0"][1:] = NAN
    knowledge = model.find("k0")
    z, logabsdet = model.flow.encode(seen.T)
    log_prob_z = model.flow.base.log_prob(z)
    sampled = knowledge.encode(z, torch.full((4, 2), 0.5))
    C = torch.cat([seen.characteristics["k0"][:1], sampled[1:]])
    log_q = knowledge.log_prob_characteristics_given(C, z) if fill_in == "bound" else torch.zeros(4)
    log_q = torch.cat([torch.zeros(1), log_q[1:]])
    enc, dec = sides(knowledge, z, C, log_ratio=knowledge.log_prob_latent(z, C) - log_prob_z, log_q=log_q)
    added = torch.where(seen.presence[:, 0] == 1, 0.5 * (enc + dec), knowledge.log_prob_presence_given(z).absent)
    capacity = mental_capacity(model, seen, steady(), objective=Objective(wording=Wording(fill_in)))
    torch.testing.assert_close(capacity.log_capacity, log_prob_z + logabsdet + added)
    torch.testing.assert_close(capacity.inconsistency["k0"], (dec - enc)[[0, 1, 3]].abs().mean())
    ratio = knowledge.log_prob_latent(z, C) - log_prob_z
    torch.testing.assert_close(capacity.conditional["k0"], ratio[[0, 1, 3]].mean())


# What is missing is filled in


@pytest.mark.parametrize("prior", ["full", "paper"])
def test_a_missing_kappa_is_summed_over(prior: str) -> None:
    """log p_enc sums to log p(T), log p_dec to the log of both branches, in value and in gradient."""
    model, seen = small(), batch([[NAN]] * 5)
    knowledge = model.find("k0")
    z, logabsdet = model.flow.encode(seen.T)
    log_prob_z = model.flow.base.log_prob(z)
    log_prob_T = log_prob_z + logabsdet
    C = knowledge.encode(z, torch.full((5, 2), 0.5))
    log_absent = absent(knowledge, z, prior)[1]
    log_q = knowledge.log_prob_characteristics_given(C, z)
    divisor = log_prob_z if prior == "paper" else (log_prob_T.detach() - logabsdet)
    _, dec = sides(knowledge, z, C, log_ratio=knowledge.log_prob_latent(z, C) - divisor, log_q=log_q)
    decoder = torch.log(dec.exp() + log_absent.exp())
    capacity = mental_capacity(
        model, seen, steady(), multipliers={"k0": 0.3}, objective=Objective(wording=Wording(prior=prior))
    )
    torch.testing.assert_close(capacity.log_capacity, log_prob_T + 0.5 * decoder)
    torch.testing.assert_close(capacity.inconsistency["k0"], decoder.abs().mean())
    assert_equal_gradients(capacity.value, (log_prob_T + 0.5 * decoder - 0.3 * decoder.abs()).mean(), model)
    for name, gradient in gradients(capacity.value, model).items():
        assert bool(gradient.abs().sum() > 0) is ("discriminator" not in name), name


def test_a_missing_kappa_in_the_paper_s_wording_is_an_expectation() -> None:
    model, seen = small(), batch([[NAN]] * 5)
    known = {
        kappa: mental_capacity(
            model,
            Observations(seen.T, torch.full((5, 1), float(kappa)), seen.knowledge),
            steady(),
            objective=Objective(wording=Wording("literal")),
        ).log_capacity
        for kappa in (0, 1)
    }
    z, _ = model.flow.encode(seen.T)
    share = [value.exp() for value in model.find("k0").log_prob_presence_given(z)]
    capacity = mental_capacity(model, seen, steady(), objective=Objective(wording=Wording("literal")))
    torch.testing.assert_close(capacity.log_capacity, share[0] * known[0] + share[1] * known[1])


def test_encoder_and_discriminator_train_when_characteristics_are_never_observed() -> None:
    """Otherwise nothing would ever train them in unsupervised C."""
    model, seen = small(["flow"]), batch([[1], [0], [1], [NAN]])
    value = mental_capacity(model, seen, steady(), multipliers={"k0": 0.1}).value
    for name, gradient in gradients(value, model).items():
        assert gradient.abs().sum() > 0, name


# Several knowledge types, in any order


MANY = [
    [1, 0, NAN, 1, 1],
    [0, 0, 1, NAN, 0],
    [1, 1, 0, 0, 1],
    [NAN, NAN, NAN, 1, 0],
    [0, 1, 0, 1, 1],
    [1, 0, 0, 0, 0],
]
KNOWLEDGE_TYPES = ["gaussian", "flow", "gaussian", "flow", "gaussian"]


def assert_same(one: Capacity, other: Capacity, order: Tensor | None = None) -> None:
    order = torch.arange(len(one.log_prob_T)) if order is None else order
    torch.testing.assert_close(one.value, other.value)
    torch.testing.assert_close(one.log_capacity[order], other.log_capacity)
    torch.testing.assert_close(one.log_prob_T[order], other.log_prob_T)
    torch.testing.assert_close(one.prior_weight, other.prior_weight)
    for mine, its in ((one.inconsistency, other.inconsistency), (one.conditional, other.conditional)):
        assert set(mine) == set(its)
        for name in mine:
            torch.testing.assert_close(mine[name], its[name])


@pytest.mark.parametrize("wording", WORDINGS, ids=str)
def test_neither_the_order_of_samples_nor_that_of_knowledge_matters(wording: Wording) -> None:
    model, seen = small(KNOWLEDGE_TYPES), batch(MANY, observed=["k0", "k1"])
    multipliers = {f"k{i}": 0.1 * i for i in range(5)}
    straight = mental_capacity(model, seen, steady(), multipliers=multipliers, objective=Objective(wording=wording))

    order = torch.tensor([3, 0, 5, 1, 4, 2])
    C = {name: values[order] for name, values in seen.characteristics.items()}
    shuffled = Observations(seen.T[order], seen.presence[order], seen.knowledge, C)
    assert_same(
        straight,
        mental_capacity(model, shuffled, steady(), multipliers=multipliers, objective=Objective(wording=wording)),
        order,
    )

    columns = [4, 1, 0, 3, 2]
    names = tuple(f"k{i}" for i in columns)
    renamed = Observations(seen.T, seen.presence[:, columns], names, seen.characteristics)
    turned = mental_capacity(model, renamed, steady(), multipliers=multipliers, objective=Objective(wording=wording))
    assert_same(straight, turned)
    assert_equal_gradients(turned.value, straight.value, model)


@pytest.mark.parametrize("wording", WORDINGS, ids=str)
def test_knowledge_types_add_up(wording: Wording) -> None:
    """log M - log p(T) of several is the sum of each by itself, whatever is evaluated together."""
    model, seen = small(KNOWLEDGE_TYPES), batch(MANY, observed=["k0", "k1"])

    def noise(name: str, count: int) -> Tensor:
        return torch.randn(count, 2, generator=torch.Generator().manual_seed(int(name[1:])))

    multipliers = {f"k{i}": 0.08 * i for i in range(5)}
    together = mental_capacity(model, seen, noise, multipliers=multipliers, objective=Objective(wording=wording))
    capacities, value = [], together.log_prob_T.mean()
    for column, name in enumerate(seen.knowledge):
        only = Observations(seen.T, seen.presence[:, [column]], (name,), seen.characteristics)
        alone = mental_capacity(model, only, noise, multipliers=multipliers, objective=Objective(wording=wording))
        torch.testing.assert_close(alone.inconsistency[name], together.inconsistency[name])
        torch.testing.assert_close(alone.conditional[name], together.conditional[name])
        capacities.append(alone.log_capacity - alone.log_prob_T)
        value = value + alone.value - alone.log_prob_T.mean()
    torch.testing.assert_close(together.log_capacity, together.log_prob_T + sum(capacities))
    torch.testing.assert_close(together.value, value)
    assert_equal_gradients(together.value, value, model)


def test_knowledge_that_observations_do_not_mention_takes_no_part() -> None:
    model = small(["gaussian", "gaussian"])
    seen = batch([[1], [0], [1]])
    value = mental_capacity(model, seen, steady()).value
    assert all((g == 0).all() for g in gradients(value, model.find("k1")).values())
    with pytest.raises(TzkError, match="k9"):
        mental_capacity(model, Observations(seen.T, seen.presence, ("k9",)), steady())
