"""Missing T in the linear-Gaussian world: log M - log q is log p(K) - ½ KL in closed form, and teaches the truth."""

from __future__ import annotations

import math

import pytest
import torch
from linear_gaussian import CHARACTERISTICS, DIMS, LinearGaussian, shortfall
from models import NAN, gradients, steady
from torch import Tensor
from worlds import hermite

from tzk_core.model import TzK
from tzk_core.objective import Capacity, mental_capacity
from tzk_core.observations import Observations
from tzk_core.random_streams import stream
from tzk_core.transforms.bounds import soft_bound_inverse


@pytest.fixture(scope="module")
def world() -> LinearGaussian:
    return LinearGaussian()


def cubature(dims: int) -> Tensor:
    """±√dims along each axis, (2 dims, dims): the mean of a cubic over these is its mean under N(0, I)."""
    axes = math.sqrt(dims) * torch.eye(dims, dtype=torch.float64)
    return torch.cat([axes, -axes])


def dream(model: TzK, kappa: float, nodes: Tensor, *, C: Tensor | None = None) -> Capacity:
    """The objective with every T missing, drawn by `nodes`, (n, c + 3), or (n, 3) where C, (c,), is observed."""
    seen = Observations(
        torch.full((len(nodes), DIMS), NAN, dtype=torch.float64),
        torch.full((len(nodes), 1), kappa),
        ("it",),
        {} if C is None else {"it": C.expand(len(nodes), -1)},
    )
    z = nodes[:, -DIMS:]
    own = nodes[:, :CHARACTERISTICS]
    return mental_capacity(model, seen, steady(), latent_noise=lambda name, count: (own if name else own[:, :0], z))


EXACT = cubature(CHARACTERISTICS + DIMS)

# The value


def test_at_the_truth_every_draw_adds_what_is_observed_of_K(world: LinearGaussian) -> None:
    """Encoder and decoder agree, so that nothing is left of log M - log q but log p(κ=1), or log p(κ=1) + log p(C)."""
    model, share = world.model(), math.log(world.share)
    C = torch.tensor([1.5, -0.7], dtype=torch.float64)
    with torch.no_grad():
        imagined, observed = dream(model, 1.0, EXACT), dream(model, 1.0, cubature(DIMS), C=C)
        information_of_C, unknown = dream(model, NAN, cubature(DIMS), C=C), dream(model, NAN, EXACT)
    torch.testing.assert_close(imagined.log_capacity, torch.full((10,), share, dtype=torch.float64))
    expected = (share + world.log_prob_characteristics(C)).expand(6)
    torch.testing.assert_close(observed.log_capacity, expected)
    torch.testing.assert_close(information_of_C.log_capacity, expected)
    torch.testing.assert_close(unknown.log_capacity, torch.zeros(10, dtype=torch.float64), rtol=0, atol=1e-9)


def test_absent_knowledge_is_dreamed_from_the_prior(world: LinearGaussian) -> None:
    """E log p(κ=0 given z) over p(z), by quadrature along the one direction that κ depends on."""
    length = world.half.norm()
    nodes, weights = hermite(201)
    odds = math.log(world.share / (1 - world.share))
    expected = 0.0
    for sign, share in ((1, world.share), (-1, 1 - world.share)):
        logits = 2 * length * (nodes + sign * length) + odds
        expected += share * (weights * torch.nn.functional.logsigmoid(-logits)).sum().item()
    noise = torch.randn(40000, 5, generator=stream(0, "absent"), dtype=torch.float64)
    with torch.no_grad():
        actual = dream(world.model(), 0.0, noise).log_capacity
    assert abs(actual.mean().item() - expected) < 4 * actual.std().item() / 200


SHIFT = torch.tensor([0.3, -0.2, 0.5], dtype=torch.float64)
STRETCH = torch.tensor([1.3, 0.7, 1.1], dtype=torch.float64)
BEND = torch.tensor([[0.2, -0.1, 0.3], [0.0, 0.4, -0.2]], dtype=torch.float64)


def shifted(world: LinearGaussian, model: TzK) -> float:
    model.find("it").latent.regressor[0].bias[:DIMS] += SHIFT
    return 0.5 * (SHIFT / world.deviations).square().sum().item()


def stretched(world: LinearGaussian, model: TzK) -> float:
    latent = model.find("it").latent
    log_scale = (world.deviations * STRETCH).log()
    latent.regressor[0].bias[DIMS:] = soft_bound_inverse(log_scale, latent.log_scale_bound)
    return (0.5 * STRETCH.square() - 0.5 - STRETCH.log()).sum().item()


def bent(world: LinearGaussian, model: TzK) -> float:
    """The encoder's mean is off by BEND (z - half), and z given κ=1 has covariance I."""
    regressor = model.find("it").characteristics_encoder.regressor[0]
    regressor.weight[:CHARACTERISTICS] += BEND
    regressor.bias[:CHARACTERISTICS] -= BEND @ world.half
    return 0.5 * BEND.square().sum().item() / (1 - world.gain**2)


@pytest.mark.parametrize("perturb", [shifted, stretched, bent])
def test_what_is_wrong_costs_half_a_divergence(world: LinearGaussian, perturb: object) -> None:
    """-½ KL(p(C) p(T given C), p(T, C given κ=1) of the encoder), both Gaussian, to rounding."""
    model = world.model()
    with torch.no_grad():
        divergence = perturb(world, model)
        value = dream(model, 1.0, EXACT).value.item()
    assert divergence > 0.1
    assert value == pytest.approx(math.log(world.share) - 0.5 * divergence, abs=1e-9)


# The gradient


def test_the_truth_is_stationary_and_half_a_divergence_pulls_towards_it(world: LinearGaussian) -> None:
    """In the mean over what is drawn, where gradients are cubic in the noise at most: of the conditional prior and the
    encoder. f_T and the discriminator get none from any single draw."""
    model = world.model()
    for name, gradient in gradients(dream(model, 1.0, EXACT).value, model).items():
        assert gradient.abs().max() < 1e-9, name

    with torch.no_grad():
        shifted(world, model)
    wrong = gradients(dream(model, 1.0, EXACT).value, model)
    pull = wrong["knowledge.it.latent.regressor.0.bias"][:DIMS]
    torch.testing.assert_close(pull, -0.5 * SHIFT / world.deviations.square())
    assert wrong["knowledge.it.characteristics_encoder.regressor.0.bias"].abs().max() > 1e-3
    for one in dream(model, 1.0, EXACT).log_capacity:
        for name, gradient in gradients(one, model).items():
            if "discriminator" in name or name.startswith("flow."):
                assert (gradient == 0).all(), name


def test_a_discriminator_that_is_not_frozen_would_leave_the_truth(world: LinearGaussian) -> None:
    """½ E log p(κ=1 given z) over present knowledge alone gains by calling everything present."""
    model = world.model()
    knowledge = model.find("it")
    with torch.no_grad():
        C = knowledge.imagine(EXACT[:, :CHARACTERISTICS])
        z = knowledge.decode(C, EXACT[:, CHARACTERISTICS:])
    value = 0.5 * knowledge.log_prob_presence_given(z).present.mean()
    assert gradients(value, knowledge.discriminator)["0.bias"].item() > 0.05


# Training


@pytest.mark.parametrize("observed", [False, True], ids=["C missing too", "C observed"])
def test_dreams_alone_teach_knowledge_the_truth_of_a_fixed_discriminator(world: LinearGaussian, observed: bool) -> None:
    """With f_T and the discriminator of the truth and all T missing, log p(K) is the most that the objective can be;
    an encoder and a conditional prior that know nothing reach it, and p(T given κ=1) is then the world's."""
    model = world.model()
    knowledge = model.find("it")
    with torch.no_grad():
        for parameter in (*knowledge.latent.parameters(), *knowledge.characteristics_encoder.parameters()):
            parameter.zero_()
    optimizer = torch.optim.Adam([p for p in knowledge.parameters() if p.requires_grad], 0.05, betas=(0.9, 0.99))
    generator = stream(0, "dreams")

    def above(count: int) -> Tensor:
        """What log M - log q is above log p(K)."""
        noise = torch.randn(count, CHARACTERISTICS + DIMS, generator=generator, dtype=torch.float64)
        if not observed:
            return dream(model, 1.0, noise).log_capacity - math.log(world.share)
        C = knowledge.imagine(torch.randn(count, CHARACTERISTICS, generator=generator, dtype=torch.float64))
        log_K = math.log(world.share) + world.log_prob_characteristics(C)
        return dream(model, 1.0, noise, C=C).log_capacity - log_K

    with torch.no_grad():
        start = above(2000)
    # z ~ N(0, I) instead of N(half, I), and C independent of it on both sides
    away = -0.25 * world.half.square().sum()
    assert abs(start.mean() - away) < 4 * start.std() / math.sqrt(2000) < -0.5 * away
    steps = 200
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 0.05 * (1 - step / steps)
        values = above(128)
        with torch.no_grad():
            assert values.mean() < 6 * values.std() / math.sqrt(128)
        optimizer.zero_grad()
        (-values.mean()).backward()
        optimizer.step()
    with torch.no_grad():
        assert above(2000).mean() > -0.01
    assert shortfall(world, model)["T given κ=1"] < 0.02
