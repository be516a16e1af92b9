"""TzK answers with the densities that its parts define, samples repeatably, and says what is wrong with its input."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from models import small
from nflows.distributions.base import Distribution
from nflows.transforms import IdentityTransform
from torch import Tensor

from tzk_core.build import build_flow, build_knowledge
from tzk_core.distributions.standard import StandardLogistic
from tzk_core.errors import TzkError
from tzk_core.knowledge import Knowledge
from tzk_core.knowledge.gaussian import GaussianKnowledge
from tzk_core.knowledge.importance import log_prob_present
from tzk_core.model import SharedFlow, TzK, tzk
from tzk_core.random_streams import stream


@pytest.fixture
def model() -> TzK:
    return small(("gaussian", "flow"), spread=0.02)


@pytest.fixture
def T() -> Tensor:
    return torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


def images(steps: int = 1, base: str = "gaussian") -> TzK:
    model = TzK(build_flow((1, 4, 4), steps=steps, tile=2, base=base))
    model.add("a", build_knowledge("flow", model.latent_shape, name="a", steps=1, tile=2))
    return model


def onto_the_unit_cube() -> TzK:
    return TzK(build_flow((2,), layers=[{"type": "inverse-transform", "transform": {"type": "logit"}}]))


# densities


def test_log_prob_is_that_of_the_flow_by_autograds_jacobian(model: TzK, T: Tensor) -> None:
    for row in range(len(T)):
        one = T[row : row + 1]
        jacobian = torch.autograd.functional.jacobian(model.encode, one).view(3, 3)
        normal = -0.5 * (model.encode(one) ** 2 + math.log(2 * math.pi)).sum()
        expected = normal + torch.linalg.slogdet(jacobian).logabsdet
        torch.testing.assert_close(model.log_prob(one)[0], expected)
    assert torch.equal(model.log_prob(T), model.flow.log_prob(T))


def test_with_no_knowledge_it_is_the_plain_flow(T: Tensor) -> None:
    model = small(())
    assert torch.equal(model.log_prob(T), model.flow.log_prob(T)) and model.posterior(T) == {}
    assert model.sample(4).shape == (4, 3)


@pytest.mark.parametrize("name", ["k0", "k1"])
def test_log_prob_given_c_is_that_of_the_knowledge_with_the_jacobian_of_the_flow(
    model: TzK, T: Tensor, name: str
) -> None:
    C = torch.randn(5, 2, dtype=torch.float64)
    z, logabsdet = model.flow.encode(T)
    knowledge = model.find(name)
    expected = knowledge.latent.log_prob(z, knowledge.characteristics_prior.standardise(C)) + logabsdet
    assert torch.equal(model.log_prob(T, name, C), expected)
    torch.testing.assert_close(model.log_prob(T, name, C[0]), model.log_prob(T, name, C[:1].expand(5, 2)))
    torch.testing.assert_close(model.log_prob(T, name, [0.5, 1]), model.log_prob(T, name, torch.tensor([0.5, 1.0])))


def one_dimensional() -> TzK:
    model = TzK(build_flow((1,), layers=[{"type": "affine"}, {"type": "symlog"}, {"type": "affine"}]))
    model.add("k0", build_knowledge("gaussian", (1,), hidden=6, layers=3))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.15 * torch.randn(parameter.shape, generator=generator)
    return model.double()


def grid_in_t(model: TzK, points: int) -> Tensor:
    """Points T in R, (points,), whose z are evenly spaced: T has the exponential tails of SymLog's inverse."""
    z = torch.linspace(-30, 30, points, dtype=torch.float64)
    return model.decode(z[:, None]).detach()[:, 0].sort().values


def test_the_conditional_density_integrates_to_one_over_t() -> None:
    """In one dimension, by quadrature, with the integral over C by importance sampling in it."""
    model = one_dimensional()
    T = grid_in_t(model, 3001)
    density = model.log_prob(T[:, None], "k0", importance_samples=256).detach().exp()
    assert torch.trapezoid(density, T).item() == pytest.approx(1.0, abs=0.02)
    prior = model.log_prob(T[:, None]).detach().exp()
    assert torch.trapezoid(prior, T).item() == pytest.approx(1.0, abs=1e-3)


def log_prob_by_quadrature(knowledge: Knowledge, z: Tensor, points: int = 301) -> Tensor:
    """log of the integral of p(z given C) p(C) over C in R^2."""
    unit = torch.linspace(-8, 8, points, dtype=torch.float64)
    grid = (
        torch.cartesian_prod(unit, unit) * knowledge.characteristics_prior.scale + knowledge.characteristics_prior.mean_
    )
    cell = (unit[1] - unit[0]) ** 2 * knowledge.characteristics_prior.scale.prod()
    log_prior = knowledge.log_prob_characteristics(grid)
    values = [
        torch.logsumexp(knowledge.log_prob_latent(row.expand(len(grid), -1), grid) + log_prior, 0) + cell.log()
        for row in z
    ]
    return torch.stack(values)


def wide(encoder: float) -> tuple[Knowledge, Tensor]:
    """A gaussian knowledge type whose p(z given C) depends strongly on C, and an encoder of a given log-scale that is
    never quite right."""
    knowledge = GaussianKnowledge((3,), hidden=8, layers=3)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in knowledge.latent.parameters():
            parameter.copy_(0.4 * torch.randn(parameter.shape, generator=generator))
        for parameter in knowledge.characteristics_encoder.parameters():
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
        knowledge.characteristics_encoder.regressor[-1].bias[2:] = encoder
        knowledge.characteristics_prior.mean_.copy_(torch.tensor([0.5, -1.0]))
        knowledge.characteristics_prior.scale.copy_(torch.tensor([1.5, 0.8]))
    knowledge.double()
    C = knowledge.imagine(torch.randn(4, 2, generator=generator, dtype=torch.float64))
    return knowledge, knowledge.decode(C, torch.randn(4, 3, generator=generator, dtype=torch.float64)).detach()


@torch.no_grad()
@pytest.mark.parametrize("encoder", [0.0, -1.0, -4.0])
def test_the_importance_weighted_bound_tends_to_the_integral_over_c(encoder: float) -> None:
    """Also with an encoder far too narrow (sigma = e^-4), which the share of the prior rescues."""
    knowledge, z = wide(encoder)
    exact = log_prob_by_quadrature(knowledge, z)
    weights_matter = knowledge.log_prob_latent(
        z[:, None].expand(4, 50, 3).reshape(-1, 3), 2 * torch.randn(200, 2).double()
    )
    assert weights_matter.std() > 1, "otherwise anything would pass"
    bound = log_prob_present(knowledge, z, 60000, generator=stream(0, "test"))
    torch.testing.assert_close(bound, exact, rtol=0, atol=0.04)


@torch.no_grad()
def test_the_bound_is_below_the_integral_on_average_and_rises_with_samples() -> None:
    knowledge, z = wide(-1.0)
    exact = log_prob_by_quadrature(knowledge, z).mean()
    means = [
        torch.stack([log_prob_present(knowledge, z, samples, generator=stream(i)).mean() for i in range(400)]).mean()
        for samples in (1, 4, 32)
    ]
    assert means[0] < means[1] < means[2] < exact + 0.02


@torch.no_grad()
def test_the_estimate_is_unbiased_before_the_logarithm() -> None:
    knowledge, z = wide(-1.0)
    for samples in (1, 2, 9):
        estimates = torch.stack(
            [log_prob_present(knowledge, z, samples, generator=stream(i)).exp() for i in range(1000)]
        )
        error = estimates.std(0) / math.sqrt(1000)
        assert ((estimates.mean(0) - log_prob_by_quadrature(knowledge, z).exp()).abs() < 4.5 * error).all()


@torch.no_grad()
def test_a_perfect_encoder_makes_the_bound_nearly_exact_at_once() -> None:
    """Where p(z given C) does not depend on C, the encoder is the prior and every weight is 1."""
    knowledge = GaussianKnowledge((3,)).double()
    knowledge.initialise(stream(0))
    knowledge.fit_characteristics(
        torch.tensor([[-1.0], [1.0]], dtype=torch.float64).expand(2, 2)
    )  # mean 0, deviation 1
    z = torch.randn(4, 3, dtype=torch.float64)
    C = torch.zeros(4, 2, dtype=torch.float64)
    torch.testing.assert_close(log_prob_present(knowledge, z, 1, generator=stream(0)), knowledge.log_prob_latent(z, C))
    torch.testing.assert_close(log_prob_present(knowledge, z, 8, generator=stream(1)), knowledge.log_prob_latent(z, C))


def test_the_bound_of_a_model_depends_on_its_seed_alone(model: TzK, T: Tensor) -> None:
    first = model.log_prob(T, "k0")
    torch.rand(3)
    assert torch.equal(model.log_prob(T, "k0"), first) and not torch.equal(model.log_prob(T, "k0", seed=1), first)


def test_gradients_reach_the_model_through_every_density(model: TzK, T: Tensor) -> None:
    (model.log_prob(T).sum() + model.log_prob(T, "k0").sum() + model.log_prob(T, "k1").sum()).backward()
    left = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    assert all("discriminator" in name for name in left)


def test_decode_undoes_encode(model: TzK, T: Tensor) -> None:
    torch.testing.assert_close(model.decode(model.encode(T)), T)


def test_posterior_is_the_discriminator_and_the_encoder(model: TzK, T: Tensor) -> None:
    z, answers = model.encode(T), model.posterior(T)
    assert list(answers) == ["k0", "k1"]
    for name, posterior in answers.items():
        knowledge = model.find(name)
        torch.testing.assert_close(posterior.presence, knowledge.log_prob_presence_given(z).present.exp())
        C = knowledge.encode(z, torch.randn(5, 2, dtype=torch.float64))
        expected = torch.distributions.Normal(posterior.mean, posterior.deviation).log_prob(C).sum(1)
        torch.testing.assert_close(knowledge.log_prob_characteristics_given(C, z), expected)


# sampling


@pytest.mark.parametrize("condition", [{}, {"knowledge": "k0"}, {"knowledge": "k1", "characteristics": [0.5, 1.0]}])
def test_a_seed_decides_the_samples(model: TzK, condition: dict[str, Any]) -> None:
    first = model.sample(6, seed=1, **condition)
    assert first.shape == (6, 3) and first.isfinite().all() and first.dtype == torch.float64
    torch.rand(5)
    assert torch.equal(model.sample(6, seed=1, **condition), first)
    assert not torch.equal(model.sample(6, seed=2, **condition), first)
    free = model.sample(6, **condition)
    assert not torch.equal(model.sample(6, **condition), free)
    torch.manual_seed(0)
    one = model.sample(6, **condition)
    torch.manual_seed(0)
    assert torch.equal(model.sample(6, **condition), one)


def test_temperature_scales_the_noise_of_z(model: TzK) -> None:
    z = [model.encode(model.sample(5, seed=0, temperature=t)) for t in (0.0, 0.5, 1.0)]
    torch.testing.assert_close(z[0], torch.zeros_like(z[0]), rtol=0, atol=1e-9)
    torch.testing.assert_close(z[1], 0.5 * z[2])
    still = model.sample(5, "k0", [0.5, 1.0], temperature=0.0)
    mean, _ = model.find("k0").latent.parameters_of(torch.tensor([0.5, 1.0], dtype=torch.float64))
    torch.testing.assert_close(model.encode(still), mean.expand(5, 3))


def test_samples_have_the_density_that_log_prob_says() -> None:
    """In one dimension: the distribution function of log_prob, by quadrature, makes samples uniform."""
    model = one_dimensional()
    grid = grid_in_t(model, 20001)
    for observed in ({}, {"knowledge": "k0", "characteristics": torch.tensor([1.0, -1.0])}):
        density = model.log_prob(grid[:, None], **observed).detach().exp()
        distribution = torch.cumulative_trapezoid(density, grid)
        samples = model.sample(4000, seed=0, **observed)[:, 0]
        uniform, _ = distribution[torch.searchsorted(grid, samples).clamp(1, 20000) - 1].sort()
        expected = (torch.arange(4000) + 0.5) / 4000
        assert (uniform - expected).abs().max() < 1.63 / math.sqrt(4000) + 0.01


def test_adding_knowledge_moves_nothing_of_the_others() -> None:
    def weights(model: TzK, name: str) -> list[Tensor]:
        return list(model.find(name).state_dict().values())

    alone, together = TzK(build_flow((4,), steps=1)), TzK(build_flow((4,), steps=1))
    for name in ("b", "a", "c"):
        together.add(name, build_knowledge("gaussian", (4,), name=name))
    alone.add("a", build_knowledge("gaussian", (4,), name="a"))
    assert all(torch.equal(x, y) for x, y in zip(weights(alone, "a"), weights(together, "a"), strict=True))
    T = torch.rand(3, 4)
    for model in (alone, together):
        model.flow.initialise(T)
    assert torch.equal(alone.log_prob(T), together.log_prob(T))
    assert torch.equal(alone.log_prob(T, "a"), together.log_prob(T, "a"))
    assert torch.equal(alone.sample(3, seed=0), together.sample(3, seed=0))
    assert torch.equal(alone.sample(3, "a", seed=0), together.sample(3, "a", seed=0))


def test_streams_are_independent_and_repeatable() -> None:
    draws = {
        names: torch.randn(2000, generator=stream(*names))
        for names in ((0,), (1,), (0, "a"), (0, "b"), (0, "a", 1), (0, "a", 2))
    }
    assert torch.equal(draws[0, "a"], torch.randn(2000, generator=stream(0, "a")))
    correlation = torch.corrcoef(torch.stack(list(draws.values()))).fill_diagonal_(0)
    assert correlation.abs().max() < 0.1


# as a distribution of nflows


def test_a_conditional_behaves_as_a_distribution_of_nflows(model: TzK, T: Tensor) -> None:
    conditional = model.conditional("k0")
    assert isinstance(conditional, Distribution)
    assert torch.equal(conditional.log_prob(T), model.log_prob(T, "k0"))
    C = torch.randn(5, 2, dtype=torch.float64)
    assert torch.equal(conditional.log_prob(T, C), model.log_prob(T, "k0", C))
    assert conditional.sample(4).shape == (4, 3)
    assert conditional.sample(4, context=C).shape == (5, 4, 3)
    with pytest.raises(ValueError, match="context"):
        conditional.log_prob(T, C[:2])


def test_samples_of_a_conditional_belong_to_their_context(model: TzK) -> None:
    knowledge = model.find("k0")
    with torch.no_grad():
        knowledge.latent.regressor[-1].bias[3:] = -30.0  # next to no noise
        knowledge.latent.regressor[-1].weight[3:] = 0.0
    C = torch.tensor([[2.0, 0.0], [-2.0, 1.0]], dtype=torch.float64)
    samples = model.conditional("k0").sample(3, C)
    mean, _ = knowledge.latent.parameters_of(C)
    for row in range(2):
        expected = mean[row].expand(3, 3)
        torch.testing.assert_close(model.encode(samples[row]), expected, rtol=0, atol=0.05)


@pytest.mark.parametrize("base", ["gaussian", "logistic"])
def test_the_shared_flow_samples_in_its_own_type(base: str) -> None:
    flow = build_flow((4,), steps=1, base=base).double()
    assert flow.sample(3).shape == (3, 4) and flow.sample(3).dtype == torch.float64


def test_a_model_without_parameters_is_a_model_too() -> None:
    model = TzK(build_flow((3,), layers=[{"type": "symlog"}]))
    assert model.sample(4, seed=0).shape == (4, 3)
    model.posterior(torch.randn(2, 3))


def test_the_logistic_base_with_a_logit_is_the_uniform_density() -> None:
    """The logistic distribution function undoes the logit: log p(T) = log(1 - 2 alpha) for each dimension."""
    model = TzK(build_flow((6,), layers=[{"type": "logit", "alpha": 0.05}], base="logistic"))
    assert isinstance(model.flow.base, StandardLogistic)
    log_prob = model.log_prob(torch.rand(4, 6))
    torch.testing.assert_close(log_prob, torch.full((4,), 6 * math.log(0.9)))


# what is refused


def image_batch(**changes: Any) -> Tensor:
    T = torch.rand(3, 1, 4, 4)
    for place, value in changes.get("set", {}).items():
        T[place] = value
    return T


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda m: m.log_prob(torch.rand(3, 4, 4)), r"T is expected as \(batch, 1, 4, 4\); got \(3, 4, 4\)"),
        (lambda m: m.log_prob(torch.rand(1, 4, 4)), r"got \(1, 4, 4\)"),
        (lambda m: m.log_prob(torch.rand(3, 1, 8, 8)), r"got \(3, 1, 8, 8\)"),
        (lambda m: m.log_prob(torch.rand(0, 1, 4, 4)), "T is an empty batch"),
        (
            lambda m: m.log_prob(torch.zeros(3, 1, 4, 4, dtype=torch.uint8)),
            "floating point; got torch.uint8.*equantise",
        ),
        (lambda m: m.log_prob([[0.0]]), r"expected as a torch tensor \(batch, 1, 4, 4\); got list"),
        (
            lambda m: m.log_prob(torch.rand(3, 1, 4, 4).double()),
            r"T is torch.float64 on cpu and the model torch.float32",
        ),
        (lambda m: m.log_prob(image_batch(set={2: math.nan})), "T holds nan or infinity, first in row 2"),
        (lambda m: m.encode(image_batch(set={1: math.inf})), "T holds nan or infinity, first in row 1"),
        (lambda m: m.posterior(torch.rand(3, 16)), "T is expected as"),
        (
            lambda m: m.log_prob(image_batch(set={1: 200.0})),
            r"outside the domain of the flow, first in row 1.*in \[0, 1\]",
        ),
        (lambda m: m.encode(image_batch(set={2: -3.0})), "outside the domain of the flow, first in row 2"),
        (lambda m: onto_the_unit_cube().decode(torch.full((3, 2), 1e20)), "z is outside the domain .*has no finite T"),
        (lambda m: m.decode(torch.rand(3, 16)), r"z is expected as \(batch, 1, 4, 4\)"),
        (lambda m: m.log_prob(image_batch(), "b"), "this model has no knowledge type 'b'"),
        (lambda m: m.log_prob(image_batch(), "digit_7"), "'digit_7'; did you mean 'digit-7'"),
        (lambda m: m.sample(3, "digit7"), "did you mean 'digit-7'"),
        (lambda m: m.conditional("digit-8"), "did you mean 'digit-7'"),
        (lambda m: m.log_prob(image_batch(), "a", torch.rand(3, 3)), r"'a' are expected as \(3, 2\); got \(3, 3\)"),
        (lambda m: m.log_prob(image_batch(), "a", torch.rand(2, 2)), r"expected as \(3, 2\); got \(2, 2\)"),
        (lambda m: m.log_prob(image_batch(), "a", torch.full((3, 2), math.nan)), "'a' hold nan or infinity"),
        (lambda m: m.log_prob(image_batch(), characteristics=torch.rand(3, 2)), "say which, knowledge=..."),
        (lambda m: m.sample(3, characteristics=torch.rand(3, 2)), "say which, knowledge=..."),
        (lambda m: m.log_prob(image_batch(), "a", importance_samples=0), "importance samples is at least 1; got 0"),
        (lambda m: m.sample(0), "number of samples is at least 1; got 0"),
        (lambda m: m.sample(3, temperature=-1.0), "temperature is finite and at least 0; got -1.0"),
        (lambda m: m.sample(3, temperature=math.nan), "temperature is finite and at least 0; got nan"),
        (lambda m: m.sample(3, "a", [1.0, 2.0, 3.0]), r"expected as \(3, 2\); got \(3, 3\)"),
        (lambda m: m.flow.initialise(torch.full((4, 1, 4, 4), 7.0)), "outside the domain of the flow"),
    ],
)
def test_what_makes_no_sense_is_said_before_anything_is_computed(ask: Callable[[TzK], Any], words: str) -> None:
    model = images()
    model.add("digit-7", build_knowledge("gaussian", model.latent_shape))
    before = [value.clone() for value in model.state_dict().values()]
    with pytest.raises(TzkError, match=words):
        ask(model)
    assert all(torch.equal(x, y) for x, y in zip(before, model.state_dict().values(), strict=True))


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "a\\b", "a.b", "a\nb", "a\0b", "keys", "training", "_modules", "find"]
)
def test_names_that_cannot_be_files_or_attributes_are_refused(name: str) -> None:
    model = images()
    with pytest.raises(TzkError, match="name"):
        model.add(name, build_knowledge("gaussian", model.latent_shape))


def test_a_name_is_given_once_and_the_latent_has_to_fit() -> None:
    model = images()
    with pytest.raises(TzkError, match="has a knowledge type 'a' already"):
        model.add("a", build_knowledge("gaussian", model.latent_shape))
    with pytest.raises(TzkError, match=r"'b' is for a latent of shape \(16,\); this model's is \(1, 4, 4\)"):
        model.add("b", build_knowledge("gaussian", (16,)))
    assert [name for name, _ in model.named_knowledge()] == ["a"]


@pytest.mark.parametrize("name", ["κ", "digit 7", "two-moons", "x" * 200, "UPPER", "1"])
def test_other_names_are_fine(name: str) -> None:
    model = images()
    model.add(name, build_knowledge("gaussian", model.latent_shape))
    assert model.find(name) is model.knowledge[name]


# where it computes


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The devices whose implementations a model looked for."""
    devices: list[str] = []
    monkeypatch.setattr(tzk, "use_implementations", lambda module, device: devices.append(device))
    return devices


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda m: m.double(), []),
        (lambda m: m.float(), []),
        (lambda m: m.to(torch.float64), []),
        (lambda m: m.to(dtype=torch.float64), []),
        (lambda m: m.to("cpu"), ["cpu"]),
        (lambda m: m.to(torch.device("cpu"), torch.float64), ["cpu"]),
        (lambda m: m.to(device="cpu"), ["cpu"]),
        (lambda m: m.to(torch.zeros(())), ["cpu"]),
        (lambda m: m.to("meta"), ["meta"]),
        (lambda m: m.to("meta", torch.float64).double(), ["meta"]),
    ],
)
def test_implementations_are_looked_for_where_a_device_is_named(
    change: Callable[[TzK], Any], expected: list[str], taken: list[str]
) -> None:
    change(images())
    assert taken == expected


def test_a_move_that_names_no_device_looks_for_implementations_too(taken: list[str]) -> None:
    images()._apply(lambda tensor: tensor.to("meta"))
    assert taken == ["meta"]


def test_like_is_of_the_models_type_and_device(model: TzK) -> None:
    assert (model.like.dtype, model.flow.like.dtype) == (torch.float64, torch.float64)
    assert model.to("meta", torch.float32).like.device.type == "meta"
    empty = SharedFlow((2,), IdentityTransform(), StandardLogistic((2,)))
    assert empty.like.dtype == torch.float32 and empty.like.shape == ()
    knowledge = build_knowledge("gaussian", (2,)).double()
    assert TzK(empty, {"k": knowledge}).like.dtype == torch.float64, "of the knowledge where the flow has no tensor"
