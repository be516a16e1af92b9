"""Eq. 5: consistency, multipliers and the weight of the prior, against formulas written by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
import torch
from models import NAN, absent, assert_equal_gradients, batch, gradients, sides, small, steady
from torch import Tensor

from tzk_core.build import build_flow, build_knowledge
from tzk_core.errors import TzkError
from tzk_core.model import TzK
from tzk_core.objective import Multipliers, Objective, Wording, mental_capacity
from tzk_core.observations import Observations


def test_equation_5_subtracts_each_inconsistency_with_its_multiplier() -> None:
    model, seen = small(["gaussian", "gaussian"]), batch([[1, 1], [0, 1], [1, 0]], observed=["k0", "k1"])
    free = mental_capacity(model, seen, steady())
    bound = mental_capacity(model, seen, steady(), multipliers={"k0": 0.2, "k1": 0.4})
    # g is a mean over the samples in which the knowledge is present, two of three in both columns
    penalty = (0.2 * free.inconsistency["k0"] + 0.4 * free.inconsistency["k1"]) * 2 / 3
    torch.testing.assert_close(bound.value, free.value - penalty)
    torch.testing.assert_close(bound.inconsistency, free.inconsistency)
    torch.testing.assert_close(bound.log_capacity, free.log_capacity)


def test_emphasis_adds_what_the_discriminators_say_of_every_presence_that_was_observed() -> None:
    model, seen = small(["gaussian", "flow"]), batch([[1, 1], [0, NAN], [NAN, 0]])
    z, _ = model.flow.encode(seen.T)
    labels = z.new_zeros(len(z))
    for column, (_, knowledge) in enumerate(model.named_knowledge()):
        log_absent, log_present = knowledge.log_prob_presence_given(z)
        presence = seen.presence[:, column]
        labels = labels + (presence == 1) * log_present + (presence == 0) * log_absent
    plain, more = (
        mental_capacity(model, seen, steady(), objective=Objective(emphasis=factor)) for factor in (0.0, 3.0)
    )
    torch.testing.assert_close(more.value, plain.value + 3 * labels.mean())
    torch.testing.assert_close(more.log_capacity, plain.log_capacity)
    assert_equal_gradients(more.value, plain.value + 3 * labels.mean(), model)


@pytest.mark.parametrize("observed", [(), ("k0",)], ids=["C filled in", "C observed"])
def test_at_one_half_the_objective_is_the_worse_of_encoder_and_decoder(observed: Sequence[str]) -> None:
    model, seen = small(), batch([[1]] * 6, observed=observed)
    knowledge = model.find("k0")
    z, logabsdet = model.flow.encode(seen.T)
    log_prob_z = model.flow.base.log_prob(z)
    C = seen.characteristics["k0"] if observed else knowledge.encode(z, torch.full((6, 2), 0.5))
    log_q = 0.0 if observed else knowledge.log_prob_characteristics_given(C, z)
    enc, dec = sides(knowledge, z, C, log_ratio=knowledge.log_prob_latent(z, C) - log_prob_z, log_q=log_q)
    capacity = mental_capacity(model, seen, steady(), multipliers={"k0": 0.5})
    torch.testing.assert_close(capacity.value, (log_prob_z + logabsdet + torch.minimum(enc, dec)).mean())


def weighted(model: TzK, seen: Observations, multipliers: Mapping[str, float], *, prior: str) -> tuple[Tensor, Tensor]:
    """The objective with constant weights in the place of its absolute values and of its division by p(T):
    w log p(T) + Σ_i (½ + λ_i s_i) a_i + (½ - λ_i s_i) b_i, b_i = log p(κ) + log p(C) + log p(T given C),
    w = 1 - Σ_i (½ - λ_i s_i) for the paper's wording, w = 1 for "full". Also the mean of w."""
    z, logabsdet = model.flow.encode(seen.T)
    log_prob_z = model.flow.base.log_prob(z)
    weight, rest = torch.ones_like(log_prob_z), torch.zeros_like(log_prob_z)
    for column, (name, knowledge) in enumerate(model.named_knowledge()):
        present = seen.presence[:, column] == 1
        filled_in = name not in seen.characteristics
        C = knowledge.encode(z, torch.full((len(z), 2), 0.5)) if filled_in else seen.characteristics[name]
        log_q = knowledge.log_prob_characteristics_given(C, z) if filled_in else 0.0
        enc, dec = sides(knowledge, z, C, log_ratio=knowledge.log_prob_latent(z, C) - log_prob_z, log_q=log_q)
        _, with_jacobian = sides(knowledge, z, C, log_ratio=knowledge.log_prob_latent(z, C) + logabsdet, log_q=log_q)
        tilt = multipliers.get(name, 0.0) * (dec - enc).sign().detach()
        rest = rest + torch.where(
            present, (0.5 + tilt) * enc + (0.5 - tilt) * with_jacobian, 0.5 * sum(absent(knowledge, z, prior))
        )
        weight = weight - torch.where(present, 0.5 - tilt, 0.0)
    weight = weight if prior == "paper" else torch.ones_like(weight)
    return (weight * (log_prob_z + logabsdet) + rest).mean(), weight.mean()


@pytest.mark.parametrize("prior", ["full", "paper"])
@pytest.mark.parametrize("observed", [("k0", "k1"), ("k1",)], ids=["C observed", "C partly filled in"])
@pytest.mark.parametrize("seed", range(2))
def test_weight_of_the_prior_in_the_gradient(seed: int, observed: Sequence[str], prior: str) -> None:
    model = small(["gaussian", "gaussian"], seed=seed)
    seen = batch([[1, 1], [1, 0], [0, 1], [0, 0], [1, 1]], seed=seed, observed=observed)
    multipliers = {"k0": 0.1, "k1": 0.45}
    capacity = mental_capacity(
        model, seen, steady(), multipliers=multipliers, objective=Objective(wording=Wording(prior=prior))
    )
    expected, weight = weighted(model, seen, multipliers, prior=prior)
    assert_equal_gradients(capacity.value, expected, model)
    torch.testing.assert_close(capacity.prior_weight, weight)


def test_both_priors_have_one_value_and_different_gradients() -> None:
    model, seen = small(["gaussian", "flow"]), batch([[1, 1], [1, 0], [NAN, 1]])
    full, paper = (
        mental_capacity(
            model, seen, steady(), multipliers={"k0": 0.2}, objective=Objective(wording=Wording(prior=prior))
        )
        for prior in ("full", "paper")
    )
    torch.testing.assert_close(full.value, paper.value)
    torch.testing.assert_close(full.log_capacity, paper.log_capacity)
    torch.testing.assert_close(full.inconsistency, paper.inconsistency)
    assert full.prior_weight == 1
    flow = model.flow
    assert any(
        not torch.allclose(a, b)
        for a, b in zip(gradients(full.value, flow).values(), gradients(paper.value, flow).values(), strict=True)
    )


@pytest.mark.parametrize("count", [1, 2, 3])
def test_without_multipliers_every_knowledge_present_takes_half_of_the_prior_in_the_paper(count: int) -> None:
    """Pitfall 1: a data set and a digit leave the prior with weight 0, a third pushes it down."""
    model, seen = small(["gaussian"] * count), batch([[1] * count] * 4)
    capacity = mental_capacity(model, seen, steady(), objective=Objective(wording=Wording(prior="paper")))
    assert capacity.prior_weight.item() == pytest.approx(1 - count / 2)


def test_detaching_the_prior_alone_would_shrink_z() -> None:
    """Pitfall 1: at the flow's optimum, with p(z given C) = p(z), nothing may pull at the scale of f_T.

    With log p(z) merely detached ½ log p(z given C) gains from smaller z and no Jacobian pays: the gradient
    towards the log-scale of z is -½ E |z|² = -½ dims instead of 0.
    """
    model = TzK(build_flow((3,), layers=[{"type": "affine"}])).double()
    model.add("k0", build_knowledge("gaussian", (3,), name="k0").double())
    model.find("k0").fit_characteristics(torch.tensor([[-1.0], [1.0]], dtype=torch.float64).expand(2, 2))
    T = torch.randn(64, 3, dtype=torch.float64)
    model.flow.initialise(T)  # z then has mean 0 and standard deviation 1: the maximum of its likelihood
    scale = model.flow.transform._transforms[0].raw_log_scale
    seen = Observations(T, torch.ones(64, 1), ("k0",), {"k0": torch.randn(64, 2, dtype=torch.float64)})

    def pull(value: Tensor) -> float:
        derivative = torch.autograd.grad(value, scale, retain_graph=True)[0]
        return derivative.sum().item()

    z, logabsdet = model.flow.encode(T)
    log_prob_z = model.flow.base.log_prob(z)
    ratio = model.find("k0").log_prob_latent(z, seen.characteristics["k0"]) - log_prob_z.detach()
    # d raw / d log-scale is 1 up to the soft bound of the affine map
    slope = (torch.autograd.grad(logabsdet.mean(), scale, retain_graph=True)[0].sum() / 3).item()
    assert pull((log_prob_z + logabsdet + 0.5 * ratio).mean()) == pytest.approx(-0.5 * 3 * slope)
    for prior in ("full", "paper"):
        objective = mental_capacity(model, seen, steady(), objective=Objective(wording=Wording(prior=prior))).value
        # the discriminator and the encoder start neutral, so that only the densities of z pull
        assert pull(objective) == pytest.approx(0.0, abs=1e-12)


def test_multipliers_ascend_where_the_tolerance_is_exceeded_and_stay_below_one_half() -> None:
    multipliers = Multipliers({"loose": 0.1, "tight": 0.1, "met": 0.1}, tolerance=10.0, rate=0.01)
    multipliers.ascend({"loose": 15.0, "tight": 5.0, "met": torch.tensor(10.0)})
    assert multipliers.values == pytest.approx({"loose": 0.105, "tight": 0.095, "met": 0.1})
    far = Multipliers({"twice": 0.1, "thrice": 0.1, "far": 0.1, "none": 0.1}, tolerance=10.0, rate=0.01)
    far.ascend({"twice": 20.0, "thrice": 30.0, "far": 1e6, "none": 0.0})
    expected = {"twice": 0.11, "thrice": 0.11, "far": 0.11, "none": 0.09}
    assert far.values == pytest.approx(expected), "a step is at most the rate, however much the excess is"
    for _ in range(100):
        multipliers.ascend({"loose": 1e6, "tight": 0.0, "new": 1e6})
    assert multipliers.values == pytest.approx({"loose": 0.45, "tight": 0.0, "met": 0.1, "new": 0.45})
    before = dict(multipliers.values)
    multipliers.ascend({"loose": 1e6})
    assert multipliers.values == before, "an unmentioned knowledge type keeps its multiplier; the bound holds"


@pytest.mark.parametrize("arguments", [{"maximum": 0.5}, {"maximum": -0.1}, {"tolerance": 0.0}, {"tolerance": -1.0}])
def test_multipliers_that_make_no_sense_are_refused(arguments: dict[str, float]) -> None:
    with pytest.raises(TzkError, match="expected"):
        Multipliers({}, **arguments)


@pytest.mark.parametrize("arguments", [{"fill_in": "bond"}, {"prior": "half"}])
def test_wordings_that_do_not_exist_are_refused(arguments: dict[str, str]) -> None:
    with pytest.raises(TzkError, match="is one of"):
        Wording(**arguments)


def test_absent_knowledge_is_consistent_by_construction() -> None:
    """However wrong a model is: κ = 0 adds log p(κ=0 given z) to both sides, and nothing to g."""
    model = small(["gaussian", "gaussian"])
    seen = batch([[0, 1], [0, 0], [0, 1]])
    capacity = mental_capacity(model, seen, steady(), multipliers={"k0": 0.4})
    assert float(capacity.inconsistency.get("k0", 0.0)) == 0.0
    z, _ = model.flow.encode(seen.T)
    only = Observations(seen.T, seen.presence[:, 1:], ("k1",))
    without = mental_capacity(model, only, steady())
    complement = model.find("k0").log_prob_presence_given(z).absent
    torch.testing.assert_close(capacity.log_capacity, without.log_capacity + complement)
    torch.testing.assert_close(capacity.value, without.value + complement.mean())
    both = batch([[1, 1], [0, 0], [1, 1]])
    some = Observations(both.T[[0, 2]], both.presence[[0, 2]], both.knowledge)
    torch.testing.assert_close(
        mental_capacity(model, both, steady()).inconsistency,
        mental_capacity(model, some, steady()).inconsistency,
    )
