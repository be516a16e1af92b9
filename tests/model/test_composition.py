"""Several knowledge types at once are the product that the formula says: against closed forms and quadrature."""

from __future__ import annotations

import math

import pytest
import torch
from known_gaussians import SIDES, A, B, C, Known, latents, model_of, product
from torch import Tensor
from worlds import World, grid

from tzk_core.distributions.base import Reparametrised
from tzk_core.distributions.standard import StandardGaussian, StandardLogistic
from tzk_core.errors import TzkError
from tzk_core.model.composition import Composition
from tzk_core.model.smc import Tempering
from tzk_core.random_streams import stream


def assert_gaussian(z: Tensor, mean: Tensor, covariance: Tensor, *, effective: float) -> None:
    """Mean and covariance within 4.5 standard errors of as many independent samples as are effective."""
    deviation = covariance.diagonal().sqrt()
    assert ((z.mean(0) - mean).abs() < 4.5 * deviation / math.sqrt(effective)).all()
    scale = torch.outer(deviation, deviation)
    error = (covariance.square() + scale.square()).sqrt() / math.sqrt(effective)
    assert ((torch.cov(z.T) - covariance).abs() < 4.5 * error).all()


# "and"


@pytest.mark.parametrize("names", [("a", "b"), ("a", "b", "c")])
def test_gaussian_knowledge_makes_a_gaussian(names: tuple[str, ...]) -> None:
    known = {"a": A, "b": B, "c": C}
    composition = model_of(**known).compose(*names, side="decoder")
    mean, covariance, log_normaliser = product(*(known[name].conditional() for name in names))
    population = composition.populate(settings=Tempering(2048))
    assert_gaussian(latents(composition, population), mean, covariance, effective=population.ess)
    assert abs(population.log_normaliser - log_normaliser) < 4 * population.standard_error < 0.4


def test_one_sample_of_c_is_as_exact_as_many() -> None:
    """The estimate of an integral over C is unbiased, so that its noise takes nothing from the limit."""
    composition = model_of(a=A, b=B).compose("a", "b", side="decoder")
    mean, covariance, log_normaliser = product(A.conditional(), B.conditional())
    population = composition.populate(settings=Tempering(2048), importance_samples=1)
    assert_gaussian(latents(composition, population), mean, covariance, effective=population.ess)
    assert abs(population.log_normaliser - log_normaliser) < 4 * population.standard_error < 0.4


@pytest.mark.parametrize("fixed", [{"a": 0.7}, {"b": -1.2}, {"a": 0.7, "b": -1.2}])
def test_observed_characteristics_are_not_integrated_over(fixed: dict[str, float]) -> None:
    observed = {name: torch.tensor([value]) for name, value in fixed.items()}
    composition = model_of(a=A, b=B).compose("a", "b", characteristics=observed, side="decoder")
    mean, covariance, log_normaliser = product(A.conditional(fixed.get("a")), B.conditional(fixed.get("b")))
    population = composition.populate(settings=Tempering(2048))
    assert_gaussian(latents(composition, population), mean, covariance, effective=population.ess)
    assert abs(population.log_normaliser - log_normaliser) < 4 * population.standard_error < 0.4


def test_scores_are_the_density_of_the_product() -> None:
    composition = (model := model_of(a=A, b=B)).compose("a", "b", side="decoder")
    mean, covariance, log_normaliser = product(A.conditional(), B.conditional())
    z = mean + 0.5 * torch.randn(6, 2, generator=stream(0), dtype=torch.float64)
    T, jacobian = torch.sinh(z), -0.5 * torch.log1p(torch.sinh(z).square()).sum(1)
    expected = torch.distributions.MultivariateNormal(mean, covariance).log_prob(z) + jacobian
    population = composition.populate(settings=Tempering(4096))
    scores = composition.score(T, population, importance_samples=4000)
    assert scores.standard_error == population.standard_error < 0.05
    torch.testing.assert_close(scores.log_prob, expected, rtol=0, atol=4 * scores.standard_error + 0.05)
    exact = expected + log_normaliser - model.log_prob(T)
    torch.testing.assert_close(scores.log_ratio, exact, rtol=0, atol=0.05)


def test_the_ratio_is_the_sum_of_what_the_model_says_of_each_member() -> None:
    model, T = model_of(a=A, b=B, c=C), torch.randn(6, 2, generator=stream(0), dtype=torch.float64)
    prior = model.log_prob(T)
    expected = sum(model.log_prob(T, name) - prior for name in ("a", "b")) + C.log_prob_absent(torch.asinh(T))
    scores = model.compose("a", "b", without="c", side="decoder").score(T)
    torch.testing.assert_close(scores.log_ratio, expected)
    torch.testing.assert_close(scores.log_prob, prior + expected - scores.log_normaliser)
    by_default = model.compose("a", "b", without="c")
    z = torch.asinh(T)
    leads = model.log_prob(T, "a") - prior
    torch.testing.assert_close(by_default.log_ratio(z), leads + B.log_prob_present(z) + C.log_prob_absent(z))
    assert torch.equal(model.log_prob(T, ["a", "b"], without="c"), by_default.score(T).log_prob)


def test_a_model_composes_what_the_flow_and_the_knowledge_do() -> None:
    model, T = model_of(a=A, b=B, c=C), torch.randn(4, 2, generator=stream(0), dtype=torch.float64)
    observed = {"b": torch.tensor([0.4])}
    composed = model.compose("a", "b", without="c", characteristics=observed, side="decoder")
    by_hand = Composition(
        model.flow, model.knowledge, ["a", "b"], without=["c"], characteristics=observed, side="decoder"
    )
    assert (str(composed), composed.side) == (str(by_hand), by_hand.side)
    assert torch.equal(composed.score(T).log_prob, by_hand.score(T).log_prob)


def test_scores_integrate_to_one() -> None:
    model = model_of(a=Known([0.9], [0.6], [0.3]), b=Known([-0.1], [0.7], [0.3], lean=1.0))
    z, weights = grid(-6, 6, 601)
    jacobian = 0.5 * torch.log1p(torch.sinh(z).square())
    for names, without in ((["a", "b"], []), (["a"], ["b"]), ([], ["b"])):
        for side in SIDES:
            composition = model.compose(*names, without=without, side=side)
            scores = composition.score(torch.sinh(z)[:, None], importance_samples=256)
            total = ((scores.log_prob + jacobian).exp() * weights).sum().log().item()
            assert abs(total) < 4 * scores.standard_error + 0.01


# "not"


@pytest.mark.parametrize("base", [StandardGaussian((2,)), StandardLogistic((2,))])
@pytest.mark.parametrize("names", [[], ["a"], ["a", "c"]])
def test_absence_against_quadrature(base: Reparametrised, names: list[str]) -> None:
    known = {"a": A, "c": C}
    composition = model_of(base, a=A, b=B, c=C).compose(*names, without=["b"], side="decoder")
    nodes, weights = grid(-16, 16, 401)
    z = torch.cartesian_prod(nodes, nodes)
    log_base = base.log_prob(z)
    density = (1 - len(names)) * log_base + B.log_prob_absent(z) + torch.outer(weights, weights).flatten().log()
    for name in names:
        density = density + torch.distributions.MultivariateNormal(*known[name].conditional()).log_prob(z)
    log_normaliser = torch.logsumexp(density, 0).item()
    share = (density - log_normaliser).exp()
    mean = share @ z
    covariance = (z - mean).T @ (share[:, None] * (z - mean))
    population = composition.populate(settings=Tempering(2048))
    assert abs(population.log_normaliser - log_normaliser) < 4 * population.standard_error < 0.4
    actual = latents(composition, population)
    error = covariance.diagonal().sqrt() / math.sqrt(population.ess)
    assert ((actual.mean(0) - mean).abs() < 4.5 * error).all()
    assert ((actual.var(0) / covariance.diagonal() - 1).abs() < 4.5 * math.sqrt(3.2 / population.ess)).all()
    assert (mean - share.new_zeros(2)).norm() > 0.1, "or absence moves nothing"


def test_gaussian_noise_becomes_the_noise_of_a_density() -> None:
    noise = torch.tensor([-30.0, -3.0, 0.0, 1.0, 8.0, 30.0], dtype=torch.float64)
    logistic = StandardLogistic((6,)).from_gaussian(noise)
    expected = torch.special.ndtr(noise[1:4]).logit()
    torch.testing.assert_close(logistic[1:4], expected)
    assert logistic.isfinite().all() and (logistic.diff() > 0).all() and logistic[0] == -logistic[-1]
    assert torch.equal(StandardGaussian((6,)).from_gaussian(noise), noise)


def test_noise_of_its_own_has_to_come_from_gaussian_noise() -> None:
    class Uniform(StandardGaussian):
        def noise(self, size: tuple[int, ...], generator: torch.Generator | None = None) -> Tensor:
            return torch.rand(*size, *self.shape, generator=generator)

    model = model_of(Uniform((2,)), a=A)
    with pytest.raises(TzkError, match="Uniform cannot be composed: it overrides `noise`.*override `from_gaussian`"):
        model.sample(3, without="a")


# encoder and decoder


def test_in_a_consistent_model_encoder_and_decoder_say_the_same() -> None:
    world, lead = World(), Known([0.5], [0.7], [0.3], odds=-5.0)
    model = world.model()
    model.add("lead", lead.knowledge())
    z = torch.randn(6, 1, generator=stream(0), dtype=torch.float64)
    sides = [model.compose("it", "lead", side=side) for side in ("decoder", "encoder")]
    assert sides[0].present == ("lead", "it"), "the rarest leads"
    ratios = [side.log_ratio(z, importance_samples=20000) for side in sides]
    torch.testing.assert_close(*ratios, rtol=0, atol=0.01)
    actual = [side.populate(settings=Tempering(4096)) for side in sides]
    error = math.hypot(*(value.standard_error for value in actual))
    assert abs(actual[0].log_normaliser - actual[1].log_normaliser) < 4 * error < 0.2


def test_fixed_characteristics_on_the_side_of_the_encoder() -> None:
    world, lead = World(), Known([0.5], [0.7], [0.3], odds=-5.0)
    model = world.model()
    model.add("lead", lead.knowledge())
    z = torch.randn(6, 1, generator=stream(0), dtype=torch.float64)
    observed = {"it": torch.tensor([0.9]), "lead": torch.tensor([0.2])}
    ratios = [
        model.compose("it", "lead", characteristics=observed, side=side).log_ratio(z) for side in ("decoder", "encoder")
    ]
    torch.testing.assert_close(*ratios, rtol=0, atol=1e-6)


def test_agreement_is_the_mean_of_the_discriminators() -> None:
    composition = model_of(a=A, b=B, c=C).compose("a", "b", without=["c"])
    population = composition.populate(settings=Tempering(400))
    z = latents(composition, population).sum(1)
    expected = {
        "a": torch.sigmoid(A.lean * z + A.odds).mean(),
        "b": torch.sigmoid(B.lean * z + B.odds).mean(),
        "c": torch.sigmoid(-C.lean * z - C.odds).mean(),
    }
    assert composition.agreement(population) == pytest.approx({name: value.item() for name, value in expected.items()})


# refusal


def test_members_that_exclude_one_another_are_refused() -> None:
    far = {name: Known([side * 30.0], [0.3], [0.0]) for name, side in (("left", -1), ("right", 1))}
    with pytest.raises(TzkError, match=r"left and right: .* particles are effective .* if these exclude one another"):
        model_of(**far).compose("left", "right", side="decoder").sample(4)


def test_too_few_effective_particles_are_refused_with_their_number() -> None:
    composition = model_of(a=A, b=B).compose("a", "b")
    actual = composition.populate(settings=Tempering(64, moves=1, min_ess=0)).ess
    words = rf"a and b: {actual:.3g} of 64 particles are effective .* at least 60 are expected. Take more particles"
    with pytest.raises(TzkError, match=words):
        composition.populate(settings=Tempering(64, moves=1, min_ess=60))


WIDE = {name: Known([0.1, -0.2], [2.0, 1.8], [0.3, 0.2], lean=1.0, odds=odds) for name, odds in (("a", -2), ("b", -1))}
"""Two conditionals so wide that p(z) times their ratios to it has no normaliser."""


def test_bounded_ratios_always_have_a_normaliser() -> None:
    precision = sum(torch.linalg.inv(value.conditional()[1]) for value in WIDE.values()) - torch.eye(
        2, dtype=torch.float64
    )
    assert (torch.linalg.eigvalsh(precision) < 0).any(), "or this tests nothing"
    nodes, weights = grid(-16, 16, 401)
    z = torch.cartesian_prod(nodes, nodes)
    lead = torch.distributions.MultivariateNormal(*WIDE["a"].conditional()).log_prob(z)
    density = lead + WIDE["b"].log_prob_present(z) + torch.outer(weights, weights).flatten().log()
    log_normaliser = torch.logsumexp(density, 0).item()
    composition = model_of(**WIDE).compose("a", "b")
    population = composition.populate(settings=Tempering(2048))
    assert abs(population.log_normaliser - log_normaliser) < 4 * population.standard_error < 0.4
    mean = (density - log_normaliser).exp() @ z
    error = latents(composition, population).std(0) / math.sqrt(population.ess)
    assert ((latents(composition, population).mean(0) - mean).abs() < 4.5 * error).all()


def test_a_product_without_normaliser_is_refused_with_what_has_one() -> None:
    with pytest.raises(TzkError, match='a and b: .* Take side = "encoder", whose ratios are bounded, take more'):
        model_of(**WIDE).compose("a", "b", side="decoder").populate(settings=Tempering(200))
