"""Several knowledge types at once are the product that the formula says: against closed forms and quadrature."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

import pytest
import torch
from models import small
from nflows.transforms import CompositeTransform
from torch import Tensor, nn
from worlds import UNBOUNDED, Arcsinh, World, grid, linear

from tzk_core.distributions.base import Reparametrised
from tzk_core.distributions.conditional import ConditionalGaussian
from tzk_core.distributions.standard import StandardGaussian, StandardLogistic
from tzk_core.errors import TzkError
from tzk_core.knowledge import Knowledge
from tzk_core.model import SharedFlow, TzK
from tzk_core.model.composition import Composition, Side
from tzk_core.model.smc import Population, Tempering
from tzk_core.random_streams import stream


@dataclass
class Known:
    """z given C, κ=1 ~ N(mean + slope C, diag deviation²) with C in R, so that z given κ=1 is Gaussian; κ given z is
    logistic. The encoder of C knows nothing: integrals over C rest on its prior."""

    mean: Sequence[float]
    deviation: Sequence[float]
    slope: Sequence[float]
    lean: float = 0.0
    odds: float = -1.0
    implies: tuple[str, ...] = field(default=())

    def knowledge(self) -> Knowledge:
        dims = len(self.mean)
        latent = ConditionalGaussian((dims,), 1, mean_bound=UNBOUNDED, log_scale_bound=UNBOUNDED)
        knowledge = Knowledge((dims,), latent, 1, hidden=4, layers=2, logit_bound=UNBOUNDED).double()
        knowledge.latent.regressor = linear(
            [*self.slope, *[0.0] * dims], [*self.mean, *(math.log(value) for value in self.deviation)]
        )
        knowledge.discriminator = nn.Linear(dims, 1).double()
        with torch.no_grad():
            knowledge.discriminator.weight.fill_(self.lean)
            knowledge.discriminator.bias.fill_(self.odds)
        knowledge.log_odds.fill_(self.odds)
        knowledge.describe_as(implies=self.implies)
        return knowledge

    def conditional(self, C: float | None = None) -> tuple[Tensor, Tensor]:
        """Mean and covariance of z given κ=1, and C where one is given."""
        mean, slope = (torch.tensor(value, dtype=torch.float64) for value in (self.mean, self.slope))
        diagonal = torch.diag(torch.tensor(self.deviation, dtype=torch.float64).square())
        return (mean, diagonal + slope[:, None] * slope) if C is None else (mean + slope * C, diagonal)

    def log_prob_present(self, z: Tensor) -> Tensor:
        """log p(κ=1 given z)/p(κ=1), by hand."""
        return -torch.log1p(torch.exp(-self.lean * z.sum(-1) - self.odds)) + math.log1p(math.exp(-self.odds))

    def log_prob_absent(self, z: Tensor) -> Tensor:
        """log p(κ=0 given z)/p(κ=0), by hand."""
        return -torch.log1p(torch.exp(self.lean * z.sum(-1) + self.odds)) + math.log1p(math.exp(self.odds))


SIDES: tuple[Side, ...] = get_args(Side)

A = Known([0.8, -0.3], [0.6, 0.7], [0.4, -0.3], odds=-2.0)
B = Known([-0.2, 0.9], [0.8, 0.5], [0.2, 0.5], lean=1.5)
C = Known([0.5, 0.5], [0.7, 0.9], [-0.3, 0.1], lean=-1.0, odds=0.5)


def model_of(base: Reparametrised | None = None, **known: Known) -> TzK:
    dims = len(next(iter(known.values())).mean)
    flow = SharedFlow((dims,), CompositeTransform([Arcsinh()]), base or StandardGaussian((dims,)))
    return TzK(flow, {name: value.knowledge() for name, value in known.items()}).double()


def product(*factors: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, float]:
    """Mean, covariance and log-normaliser of p(z) Π p(z given K)/p(z), by completing the square; p(z) is N(0, I)."""
    dims = len(factors[0][0])
    precision = (1 - len(factors)) * torch.eye(dims, dtype=torch.float64)
    pull, constant = torch.zeros(dims, dtype=torch.float64), 0.0
    for mean, covariance in factors:
        inverse = torch.linalg.inv(covariance)
        precision, pull = precision + inverse, pull + inverse @ mean
        constant += 0.5 * (torch.logdet(inverse) - mean @ inverse @ mean).item()
    covariance = torch.linalg.inv(precision)
    log_normaliser = constant + 0.5 * (pull @ covariance @ pull + torch.logdet(covariance)).item()
    return covariance @ pull, covariance, log_normaliser


def latents(composition: Composition, population: Population) -> Tensor:
    """z of all particles, by way of T."""
    return composition.flow.encode(composition.sample(len(population.noise), population))[0]


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
def test_characteristics_that_are_given_are_not_integrated_over(fixed: dict[str, float]) -> None:
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


# which members count


def nested() -> TzK:
    model = model_of(whole=B, part=A, other=C)
    model.find("part").describe_as(implies=["whole"])
    return model


def test_what_is_implied_is_counted_once() -> None:
    model = nested()
    T = torch.randn(4, 2, generator=stream(0), dtype=torch.float64)
    for extra in (["whole"], ["whole", "part", "whole"]):
        several = ["part", "other", *extra]
        assert torch.equal(model.sample(5, several, seed=3), model.sample(5, ["part", "other"], seed=3))
        assert torch.equal(model.log_prob(T, several), model.log_prob(T, ["part", "other"]))
    assert torch.equal(model.sample(5, ["part", "whole"], seed=3), model.sample(5, "part", seed=3))
    assert torch.equal(model.log_prob(T, ["whole", "part"]), model.log_prob(T, "part"))


def test_not_the_whole_says_not_the_part() -> None:
    model = nested()
    both = model.compose("other", without=["part", "whole"])
    assert both.absent == ("whole",) and str(both) == "other and not whole"
    both = Composition(model.flow, model.knowledge, "whole", without="part")
    assert (both.present, both.absent) == (("whole",), ("part",))


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"knowledge": ["a", "b"], "without": ["b"]}, "'b' is asked for and excluded at once"),
        ({"knowledge": "part", "without": "whole"}, "'part' implies 'whole', so that nothing is 'part' without"),
        ({"knowledge": ["a", "digit_3"]}, "no knowledge type 'digit_3'; did you mean 'digit-3'"),
        ({"knowledge": ["a", "b"], "without": ["digit3"]}, "no knowledge type 'digit3'; did you mean 'digit-3'"),
        ({"without": "digit3"}, "did you mean 'digit-3'"),
        ({"knowledge": ["a", "b"], "characteristics": torch.zeros(1)}, r"its name, as in characteristics=\{'a': ...}"),
        ({"knowledge": ["a", "b"], "characteristics": {"a": torch.zeros(3)}}, r"'a' are expected as \(1, 1\); got"),
        ({"knowledge": ["a", "b"], "characteristics": {"a": torch.tensor([math.nan])}}, "'a' hold nan or infinity"),
        ({"knowledge": ["a", "b"], "characteristics": {"c": torch.zeros(1)}}, "no knowledge type 'c'"),
        ({"knowledge": ["a"], "characteristics": {"b": torch.zeros(1)}}, "'b', which is not among the knowledge"),
        ({"knowledge": ["a"], "without": "b", "characteristics": {"b": torch.zeros(1)}}, "'b', which is not among"),
        ({"knowledge": ["part", "whole"], "characteristics": {"whole": torch.zeros(1)}}, "'whole', which others imply"),
        ({"without": "a", "characteristics": {"a": torch.zeros(1)}}, "say which, knowledge=..."),
    ],
)
def test_what_makes_no_sense_is_said_before_anything_is_computed(
    asked: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_of(a=A, b=B, part=A, whole=B)
    model.find("part").describe_as(implies=["whole"])
    model.add("digit-3", C.knowledge())
    monkeypatch.setattr(model.flow, "encode", lambda T: pytest.fail("computed"))
    monkeypatch.setattr(Composition, "populate", lambda *arguments, **more: pytest.fail("computed"))
    for ask in (lambda: model.sample(3, **asked), lambda: model.log_prob(torch.zeros(2, 2).double(), **asked)):
        with pytest.raises(TzkError, match=words):
            ask()


def test_other_bad_input() -> None:
    model = model_of(a=A, b=B)
    composition = model.compose("a", "b", temperature=0.5)
    with pytest.raises(TzkError, match="scores are those of temperature 1; this composition is of 0.5"):
        composition.score(torch.zeros(2, 2).double())
    with pytest.raises(TzkError, match="'decoder' or the 'encoder'; got 'both'"):
        model.compose("a", "b", side="both")  # type: ignore[arg-type]
    with pytest.raises(TzkError, match="T holds nan or infinity, first in row 1"):
        model.log_prob(torch.tensor([[0.0, 0.0], [math.inf, 0.0]]).double(), ["a", "b"])


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


# randomness


def test_a_seed_and_the_names_decide_the_samples() -> None:
    model = model_of(a=A, b=B, c=C)
    first = model.sample(6, ["a", "b"], seed=1, without=["c"])
    assert first.shape == (6, 2) and first.isfinite().all() and first.dtype == torch.float64
    torch.rand(5)
    assert torch.equal(model.sample(6, ("b", "a"), seed=1, without="c"), first)
    assert not torch.equal(model.sample(6, ["a", "b"], seed=2, without=["c"]), first)
    free = model.sample(6, ["a", "b"], without=["c"])
    assert not torch.equal(model.sample(6, ["a", "b"], without=["c"]), free)
    assert len(first.unique(dim=0)) == 6, "particles are taken once where there are enough"


def test_as_many_samples_as_are_asked_for() -> None:
    model = model_of(a=A, b=B)
    assert model.sample(1500, ["a", "b"], seed=0).shape == (1500, 2)
    population = model.compose("a", "b").populate(settings=Tempering(128))
    assert model.compose("a", "b").sample(300, population).shape == (300, 2)


def test_one_name_is_what_it_was() -> None:
    model = small(("gaussian", "flow"), spread=0.02)
    T, C = torch.randn(5, 3, dtype=torch.float64), torch.tensor([0.5, 1.0], dtype=torch.float64)
    for name in ("k0", "k1"):
        source = stream(7, "sample", name)
        knowledge = model.find(name)
        samples = knowledge.imagine(knowledge.characteristics_prior.noise((4,), source).double())
        z = knowledge.decode(samples, knowledge.latent.noise((4,), source).double())
        assert torch.equal(model.sample(4, [name], seed=7), model.flow.transform.inverse(z)[0])
        assert torch.equal(model.sample(4, name, seed=7), model.sample(4, [name, name], seed=7))
        assert torch.equal(model.log_prob(T, [name]), model.log_prob(T, name))
        assert torch.equal(model.log_prob(T, [name], {name: C}), model.log_prob(T, name, C))
        assert torch.equal(model.sample(4, (name,), {name: C}, seed=0), model.sample(4, name, C, seed=0))
    assert torch.equal(model.sample(4, [], seed=0), model.sample(4, seed=0))
    assert torch.equal(model.log_prob(T, []), model.log_prob(T))


def test_temperature_scales_the_noise_of_the_member_that_leads() -> None:
    """At temperature 0 of a leader whose mean moves with C in one direction, all latents lie on that line."""
    model = model_of(a=A, b=B)
    z = model.encode(model.sample(50, ["a", "b"], temperature=0.0, seed=0))
    mean, slope = (torch.tensor(value, dtype=torch.float64) for value in (A.mean, A.slope))
    along = (z - mean) @ slope / slope.square().sum()
    torch.testing.assert_close(z, mean + along[:, None] * slope)
    assert along.std() > 0.2


def test_gradients_reach_the_parameters_through_scores() -> None:
    model = small(("gaussian", "gaussian", "gaussian"), spread=0.1)

    def left(side: Side) -> set[str]:
        """Parameters without a gradient, and not those of k2, which is absent."""
        model.zero_grad()
        model.compose("k0", "k1", without="k2", side=side).score(torch.randn(3, 3).double()).log_prob.sum().backward()
        lacking = {name for name, parameter in model.named_parameters() if parameter.grad is None}
        assert not any(name.startswith("flow.") or "k2.discriminator" in name for name in lacking)
        return {name.removeprefix("knowledge.") for name in lacking if "k2" not in name}

    assert left("decoder") and all("discriminator" in name for name in left("decoder"))
    lead, other = model.compose("k0", "k1").present
    of_the_encoder = left("encoder")
    assert not any(f"{other}.discriminator" in name for name in of_the_encoder)
    assert not any(f"{lead}.latent" in name for name in of_the_encoder)
    assert any(f"{lead}.discriminator" in name for name in of_the_encoder)


# the posterior


def test_the_posterior_encodes_once() -> None:
    model = small(("gaussian", "flow", "gaussian"))
    calls: list[int] = []
    model.flow.transform.register_forward_hook(lambda *arguments: calls.append(1))
    answers = model.posterior(torch.randn(4, 3).double())
    assert len(calls) == 1 and list(answers) == ["k0", "k1", "k2"]
    assert all(answer.presence.shape == (4,) and answer.mean.shape == (4, 2) for answer in answers.values())


@pytest.mark.parametrize(
    ("T", "words"),
    [
        (torch.zeros(0, 3).double(), "T is an empty batch"),
        (torch.tensor([[0.0, 0, 0], [0, math.nan, 0]]).double(), "T holds nan or infinity, first in row 1"),
        (torch.full((1, 3), math.inf).double(), "T holds nan or infinity, first in row 0"),
    ],
)
def test_the_posterior_of_what_cannot_be_encoded(T: Tensor, words: str) -> None:
    with pytest.raises(TzkError, match=words):
        small().posterior(T)
