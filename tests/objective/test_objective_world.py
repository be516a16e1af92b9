"""The objective by numerical integration in a world of known densities: Eq. 4, consistency, filling in."""

from __future__ import annotations

import math

import pytest
import torch
from models import NAN, gradients, steady
from torch import Tensor
from worlds import World, gaussian, grid, hermite

from tzk_core.knowledge import Knowledge
from tzk_core.model import TzK
from tzk_core.objective import Capacity, Objective, Wording, mental_capacity
from tzk_core.observations import Observations

# A world whose densities are known


def wrong_latent(knowledge: Knowledge) -> None:
    knowledge.latent.regressor.bias[0] += 0.3


def wrong_encoder(knowledge: Knowledge) -> None:
    knowledge.characteristics_encoder.regressor.weight[0] *= 0.5


def wrong_discriminator(knowledge: Knowledge) -> None:
    knowledge.discriminator.bias += 0.4


def wrong_share(knowledge: Knowledge) -> None:
    knowledge.log_odds += 0.3


PERTURBED = [wrong_latent, wrong_encoder, wrong_discriminator, wrong_share]
Z, Z_STEP = grid(-10.0, 10.0, 161)
CS, C_STEP = grid(-8.0, 9.0, 161)


@pytest.fixture(scope="module")
def world() -> World:
    return World()


def joint(world: World, model: TzK, wording: Wording | None = None) -> tuple[Capacity, Tensor, Tensor]:
    """The objective where κ = 0, for every z of the grid, and where κ = 1, for every z and C of it; how much
    each of these rows weighs in ∫ dT dC; and log p(T, K) of the world, by its formulas."""
    z1, C = (axis.flatten() for axis in torch.meshgrid(Z, CS, indexing="ij"))
    z = torch.cat([Z, z1])
    T, stretch = torch.sinh(z), torch.cosh(z)
    weights = stretch * torch.cat([Z_STEP, (Z_STEP[:, None] * C_STEP).flatten()])
    without = math.log1p(-world.share) + gaussian(Z, world.absent, 1.0)
    present = math.log(world.share) + world.log_prob_C(C) + world.log_prob_z_given(z1, C)
    log_p = torch.cat([without, present]) - stretch.log()
    kappa = torch.cat([torch.zeros_like(Z), torch.ones_like(z1)])
    observed = torch.cat([torch.full_like(Z, NAN), C])
    seen = Observations(T[:, None], kappa[:, None], ("it",), {"it": observed[:, None]})
    with torch.set_grad_enabled(wording is not None):
        return (
            mental_capacity(model, seen, steady(c=1), objective=Objective(wording=wording or Wording())),
            weights,
            log_p,
        )


def test_the_two_sides_of_equation_4_agree(world: World) -> None:
    capacity, weights, log_p = joint(world, world.model())
    left = (weights * log_p.exp() * capacity.log_capacity).sum()

    log_z = world.log_prob_z(Z)
    p_z, log_presence = log_z.exp() * Z_STEP, [world.log_prob_absent_given(Z), world.log_prob_present_given(Z)]
    entropy_T = -(p_z * (log_z - torch.cosh(Z).log())).sum()
    joint_zC = math.log(world.share) + world.log_prob_C(CS) + world.log_prob_z_given(Z[:, None], CS)
    information = (log_presence[0].exp() * p_z * (gaussian(Z, world.absent, 1.0) - log_z)).sum()
    ratio = world.log_prob_z_given(Z[:, None], CS) - log_z[:, None]
    information += (joint_zC.exp() * Z_STEP[:, None] * C_STEP * ratio).sum()

    def entropy_of_gaussian(deviation: float) -> float:
        return 0.5 * math.log(2 * math.pi * math.e * deviation**2)

    share = world.share
    entropy_K = -share * math.log(share) - (1 - share) * math.log1p(-share) + share * entropy_of_gaussian(world.spread)
    entropy_K_given_T = sum(-(p_z * value.exp() * value).sum() for value in log_presence)
    entropy_K_given_T += share * entropy_of_gaussian(world.spread * world.residue)
    right = -entropy_T + 0.5 * (information - entropy_K - entropy_K_given_T)
    torch.testing.assert_close(left, right, rtol=0, atol=1e-8)


def test_the_true_joint_is_consistent(world: World) -> None:
    capacity, weights, log_p = joint(world, world.model())
    torch.testing.assert_close(capacity.log_capacity, log_p, rtol=1e-9, atol=1e-8)
    assert capacity.inconsistency["it"] < 1e-8
    assert (weights * capacity.log_capacity.exp()).sum().item() == pytest.approx(1.0, abs=1e-8)


@pytest.mark.parametrize("perturb", PERTURBED)
def test_a_perturbed_joint_is_inconsistent(world: World, perturb: object) -> None:
    capacity, _, _ = joint(world, world.model(perturb))
    assert capacity.inconsistency["it"] > 1e-2


@pytest.mark.parametrize("perturb", PERTURBED)
def test_mental_capacity_integrates_to_at_most_the_root_of_the_decoder(world: World, perturb: object) -> None:
    """By Cauchy and Schwarz ∫ M <= (∫ p_enc ∫ p_dec)^½. The encoder is normalised; the decoder integrates to
    p(κ=1) + E p(κ=0 given z), which is 1 only where the discriminator is calibrated."""
    model = world.model(perturb)
    capacity, weights, _ = joint(world, model)
    knowledge = model.find("it")
    complement = (world.log_prob_z(Z).exp() * Z_STEP * knowledge.log_prob_presence_given(Z[:, None]).absent.exp()).sum()
    decoder = knowledge.log_prob_presence().present.exp() + complement
    assert (weights * capacity.log_capacity.exp()).sum() < decoder.sqrt() - 1e-4


PARTS = [
    (part, prior)
    for prior in ("full", "paper")
    for part in ("flow", "latent", "discriminator", "characteristics_encoder")
]


@pytest.mark.parametrize(("part", "prior"), PARTS)
def test_the_true_joint_is_a_stationary_point(world: World, part: str, prior: str) -> None:
    """Of the mental capacity expected under it, as the truth is of any likelihood. The Bayes complement makes that
    no matter of course: the decoder is normalised only where the discriminator is calibrated, and were it trained
    on both sides, absence would count twice and presence once."""
    model = world.model()
    capacity, weights, log_p = joint(world, model, Wording(prior=prior))
    expected = (weights * log_p.exp() * capacity.log_capacity).sum()
    module = model.flow if part == "flow" else getattr(model.find("it"), part)
    for name, gradient in gradients(expected, module).items():
        assert gradient.abs().max() < 1e-8, name


def test_inconsistency_is_the_mean_gap_between_encoder_and_decoder(world: World) -> None:
    """A latent that is off by 0.3 in the mean is off by this much in log p_dec, in closed form."""
    model = world.model(wrong_latent)
    z, C = torch.tensor([0.3, -1.2, 2.0]), torch.tensor([0.1, 1.0, -0.5])
    seen = Observations(torch.sinh(z)[:, None].double(), torch.ones(3, 1), ("it",), {"it": C[:, None].double()})
    distance = z - world.present - world.slope * (C - world.centre)
    gap = (distance**2 - (distance - 0.3) ** 2) / (2 * world.residue**2)
    expected = gap.abs().mean().double()
    torch.testing.assert_close(
        mental_capacity(model, seen, steady(c=1)).inconsistency["it"], expected, rtol=1e-5, atol=0
    )


def test_knowledge_gains_at_most_its_rarity(world: World) -> None:
    """Pitfall 7: in a consistent model p(z given κ=1)/p(z) = p(κ=1 given z)/p(κ=1) <= 1/p(κ=1)."""
    model = world.model()
    T = torch.sinh(Z)[:, None]
    seen = Observations(T, torch.ones(len(Z), 1), ("it",))
    with torch.no_grad():
        capacity = mental_capacity(model, seen, steady(c=1))
    gain = capacity.log_capacity - capacity.log_prob_T - model.find("it").log_prob_presence().present
    assert gain.max() < -math.log(world.share)
    assert gain.max() > -math.log(world.share) - 0.01


# What is missing is filled in


def marginal(world: World, model: TzK, z: Tensor) -> Tensor:
    """½ log p_enc(T, κ=1) + ½ log p_dec(T, κ=1), the decoder's C integrated by quadrature."""
    knowledge = model.find("it")
    latent = knowledge.log_prob_latent(z[:, None], CS.expand(len(z), -1)[..., None])
    decoder = knowledge.log_prob_presence().present + torch.logsumexp(latent + world.log_prob_C(CS) + C_STEP.log(), 1)
    log_z = world.log_prob_z(z)
    return log_z - torch.cosh(z).log() + 0.5 * (knowledge.log_prob_presence_given(z[:, None]).present + decoder - log_z)


@pytest.mark.parametrize("noise", [-1.5, 0.0, 2.0])
def test_with_an_exact_encoder_a_filled_in_C_gives_the_marginal_whatever_the_noise(world: World, noise: float) -> None:
    """The encoder of C is exact; the two sides still disagree over κ, so that the marginal is not p(T, κ)."""

    def perturb(knowledge: Knowledge) -> None:
        wrong_discriminator(knowledge)
        wrong_share(knowledge)

    model = world.model(perturb)
    z = torch.linspace(-3, 3, 13, dtype=torch.float64)
    seen = Observations(torch.sinh(z)[:, None], torch.ones(13, 1), ("it",))
    with torch.no_grad():
        capacity = mental_capacity(model, seen, steady(noise, 1))
        torch.testing.assert_close(capacity.log_capacity, marginal(world, model, z), rtol=0, atol=1e-9)


def narrowed(world: World, model: TzK, *, fill_in: str, scale: float) -> Tensor:
    """E log M over the noise, for a few z, with an encoder whose deviation is multiplied by `scale`."""
    z = torch.linspace(-2, 3, 6, dtype=torch.float64)
    seen = Observations(torch.sinh(z)[:, None], torch.ones(6, 1), ("it",))
    bias = model.find("it").characteristics_encoder.regressor.bias
    with torch.no_grad():
        bias[1] += math.log(scale)
        nodes, weights = hermite(41)
        capacities = [
            mental_capacity(model, seen, steady(float(n), 1), objective=Objective(wording=Wording(fill_in)))
            for n in nodes
        ]
        bias[1] -= math.log(scale)
    return sum(w * capacity.log_capacity for w, capacity in zip(weights, capacities, strict=True))


def test_the_fill_in_rule_is_bounded_where_the_paper_s_wording_is_not(world: World) -> None:
    """Pitfall 2: as the encoder narrows tenfold the literal wording gains ½ log 10, for ever; the rule never
    exceeds the marginal, and loses."""
    model = world.model()
    z = torch.linspace(-2, 3, 6, dtype=torch.float64)
    with torch.no_grad():
        top = marginal(world, model, z)
    scales = [1.0, 1e-1, 1e-2, 1e-3, 1e-4]
    bound, literal = ([narrowed(world, model, fill_in=rule, scale=s) for s in scales] for rule in ("bound", "literal"))
    torch.testing.assert_close(bound[0], top, rtol=0, atol=1e-9)
    for before, after in zip(bound[:-1], bound[1:], strict=True):
        assert (after < before).all()
    for before, after in zip(literal[1:-1], literal[2:], strict=True):
        # up to the last of the curvature of log p(C, z) over the encoder's width, 0.01 of its variance
        torch.testing.assert_close(
            after - before, torch.full((6,), 0.5 * math.log(10), dtype=torch.float64), rtol=0.02, atol=0
        )
    assert (literal[-1] > top + 2).all()


@pytest.mark.parametrize(("part", "prior"), PARTS)
def test_without_labels_nothing_pulls_at_the_truth(world: World, part: str, prior: str) -> None:
    """A missing κ says nothing of how common it is: it may not teach that knowledge is absent."""
    model = world.model()
    seen = Observations(torch.sinh(Z)[:, None], torch.full((len(Z), 1), NAN), ("it",))
    nodes, weights = hermite(25)
    capacities = [
        mental_capacity(model, seen, steady(float(n), 1), objective=Objective(wording=Wording(prior=prior)))
        for n in nodes
    ]
    capacity = sum(weight * one.log_capacity for weight, one in zip(weights, capacities, strict=True))
    expected = (world.log_prob_z(Z).exp() * Z_STEP * capacity).sum()
    module = model.flow if part == "flow" else getattr(model.find("it"), part)
    for name, gradient in gradients(expected, module).items():
        assert gradient.abs().max() < 1e-8, name


def test_the_bound_trains_its_encoder_towards_the_posterior(world: World) -> None:
    """An exact encoder stays as it is; a narrow one is widened; the literal wording narrows it further."""
    z = torch.linspace(-2, 3, 6, dtype=torch.float64)
    seen = Observations(torch.sinh(z)[:, None], torch.ones(6, 1), ("it",))
    nodes, weights = hermite(41)

    def pull(narrow: float, fill_in: str) -> float:
        model = world.model()
        bias = model.find("it").characteristics_encoder.regressor.bias
        with torch.no_grad():
            bias[1] += math.log(narrow)
        values = [
            mental_capacity(model, seen, steady(float(n), 1), objective=Objective(wording=Wording(fill_in))).value
            for n in nodes
        ]
        value = sum(w * v for w, v in zip(weights, values, strict=True))
        return torch.autograd.grad(value, bias)[0][1].item()

    assert pull(1.0, "bound") == pytest.approx(0.0, abs=1e-9)
    assert pull(0.1, "bound") > 0.1
    assert pull(0.1, "literal") < -0.1


def test_in_a_consistent_world_what_is_missing_costs_nothing(world: World) -> None:
    """With κ and C missing the capacity of the true joint is p(T): both sides sum to it."""
    z = torch.linspace(-3, 3, 13, dtype=torch.float64)
    seen = Observations(torch.sinh(z)[:, None], torch.full((13, 1), NAN), ("it",))
    with torch.no_grad():
        capacity = mental_capacity(world.model(), seen, steady(1.3, 1))
    torch.testing.assert_close(capacity.log_capacity, capacity.log_prob_T, rtol=0, atol=1e-9)
    assert capacity.inconsistency["it"] < 1e-9
