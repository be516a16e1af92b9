"""The parts of this plugin are held to the laws of their kinds: a transform, a density, a knowledge type."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor
from torch.distributions import LowRankMultivariateNormal, MultivariateNormal
from torch.func import functional_call, vmap
from tzk_plugin_few_shot.factors import FactorGaussian
from tzk_plugin_few_shot.knowledge import FewShotKnowledge
from tzk_plugin_few_shot.whitening import Whitening

from tzk_core import build_knowledge
from tzk_core.distributions.standard import StandardGaussian
from tzk_core.knowledge import Knowledge
from tzk_core.testing import check_knowledge, check_plugin, check_transform

IMAGE = (1, 4, 4)
NAMES = ["few-shot", "exchangeable", "exchangeable-classes", "feature-coupling"]
KNOWLEDGE = {
    "vector": lambda: FewShotKnowledge((3,), hidden=8),
    "images": lambda: FewShotKnowledge(IMAGE, characteristics=3, hidden=8),
    "images, with flow steps": lambda: FewShotKnowledge(IMAGE, hidden=8, steps=2, tile=2),
}
EVERY = pytest.mark.parametrize("name", KNOWLEDGE)
SHAPES = pytest.mark.parametrize("shape", [(3,), (1, 2, 2)], ids=["vector", "images"])


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def moved(module: torch.nn.Module, by: float = 0.1, seed: int = 0) -> torch.nn.Module:
    """In float64, with every parameter moved away from where it starts."""
    module = module.double()
    with torch.no_grad():
        for number, parameter in enumerate(module.parameters()):
            parameter += by * draw(*parameter.shape, seed=100 * seed + number)
    return module


def test_the_plugin_conforms() -> None:
    assert [spec.name for spec in check_plugin("tzk_plugin_few_shot")] == NAMES


def whitening(shape: tuple[int, ...], seed: int = 0) -> Whitening:
    made, dims = Whitening(shape).double(), math.prod(shape)
    made.set(draw(dims, seed=seed), 2 * torch.eye(dims) + 0.1 * draw(dims, dims, seed=seed + 1))
    return made


@SHAPES
def test_whitening_is_a_transform(shape: tuple[int, ...]) -> None:
    check_transform(whitening(shape), draw(3, *shape))
    assert whitening(shape).output_shape == shape


@SHAPES
def test_whitening_is_saved_and_stacked(shape: tuple[int, ...]) -> None:
    several, x = [whitening(shape, seed) for seed in (0, 10)], draw(2, 4, *shape, seed=5)
    fresh = Whitening(shape).double()
    fresh.load_state_dict(several[0].state_dict())
    assert torch.equal(fresh(x[0])[0], several[0](x[0])[0])
    stacked = {key: torch.stack([each.state_dict()[key] for each in several]) for key in fresh.state_dict()}
    together = vmap(lambda state, own: functional_call(fresh, state, (own,)))(stacked, x)
    for number, each in enumerate(several):
        for found, alone in zip(together, each(x[number]), strict=True):
            torch.testing.assert_close(found[number], alone)


@SHAPES
def test_the_density_of_factors_is_torchs(shape: tuple[int, ...]) -> None:
    """p(x given C), and p(x) with C integrated out; one C for each x and several."""
    gaussian, x, C = moved(FactorGaussian(shape, 2), 0.4), draw(4, *shape), draw(4, 5, 2, seed=7)
    assert isinstance(gaussian, FactorGaussian)
    variance = (2 * gaussian.log_scale).exp()
    for sample in range(5):
        mean = gaussian.mean_ + C[:, sample] @ gaussian.loading.T
        expected = MultivariateNormal(mean, torch.diag(variance)).log_prob(x.flatten(1))
        torch.testing.assert_close(gaussian.log_prob(x, C[:, sample]), expected)
        torch.testing.assert_close(gaussian.log_prob(x, C)[:, sample], expected)
    marginal = LowRankMultivariateNormal(gaussian.mean_, gaussian.loading, variance)
    torch.testing.assert_close(gaussian.log_prob_marginal(x), marginal.log_prob(x.flatten(1)))
    with pytest.raises(ValueError, match="expects a context; got none"):
        gaussian.log_prob(x)


@SHAPES
def test_noise_and_density_of_factors_agree(shape: tuple[int, ...]) -> None:
    gaussian, C = moved(FactorGaussian(shape, 2), 0.4), draw(1, 2, seed=7)
    noise = draw(1, *shape, seed=3)
    jacobian = torch.autograd.functional.jacobian(lambda given: gaussian.from_noise(given, C).flatten(), noise)
    jacobian = jacobian.view(noise.numel(), noise.numel())
    expected = StandardGaussian(shape).log_prob(noise) - torch.linalg.slogdet(jacobian).logabsdet
    torch.testing.assert_close(gaussian.log_prob(gaussian.from_noise(noise, C), C), expected)


@SHAPES
def test_every_parameter_of_factors_gets_a_gradient(shape: tuple[int, ...]) -> None:
    gaussian = moved(FactorGaussian(shape, 2))
    gaussian.log_prob(draw(4, *shape), draw(4, 2)).sum().backward()
    for key, parameter in gaussian.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all() and parameter.grad.any(), key


def made(name: str, seed: int = 0) -> FewShotKnowledge:
    kind = KNOWLEDGE[name]()
    kind.initialise(torch.Generator().manual_seed(0))
    moved(kind, seed=seed)
    kind.log_odds.fill_(-1.3)
    kind.characteristics_prior.fit(2 + 3 * draw(50, kind.characteristics).float())
    return kind


@EVERY
def test_it_is_a_knowledge_type(name: str) -> None:
    kind = made(name)
    check_knowledge(kind, draw(3, *kind.latent_shape))


@EVERY
def test_it_starts_knowing_nothing(name: str) -> None:
    """Presence at even odds whatever z, C at p(C) whatever z, z at N(0, 1) whatever C, but for its flow steps."""
    kind = KNOWLEDGE[name]()
    kind.initialise(torch.Generator().manual_seed(0))
    kind = kind.double()
    z, C, far = (
        draw(3, *kind.latent_shape),
        draw(3, kind.characteristics, seed=1),
        draw(3, kind.characteristics, seed=2),
    )
    for each in (*kind.log_prob_presence(), *kind.log_prob_presence_given(z)):
        torch.testing.assert_close(each, torch.full_like(each, -math.log(2)))
    normal = StandardGaussian((kind.characteristics,))
    torch.testing.assert_close(kind.log_prob_characteristics_given(C, z), normal.log_prob(C))
    assert torch.equal(kind.log_prob_latent(z, C), kind.log_prob_latent(z, far))
    torch.testing.assert_close(
        kind.log_prob_latent(z, C), StandardGaussian(kind.latent_shape).log_prob(z), rtol=0, atol=0.3
    )


@EVERY
def test_two_evaluated_stacked_are_each_alone(name: str) -> None:
    kinds = [made(name, seed) for seed in (0, 1)]
    z, C = draw(3, *kinds[0].latent_shape), draw(3, kinds[0].characteristics, seed=1)
    stacked = {key: torch.stack([kind.state_dict()[key] for kind in kinds]) for key in kinds[0].state_dict()}

    class Evaluated(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.kind = copy.deepcopy(kinds[0])

        def forward(self, z: Tensor, C: Tensor) -> tuple[Tensor, ...]:
            kind = self.kind
            log_probs = (kind.log_prob_latent(z, C), kind.log_prob_characteristics_given(C, z))
            return (*log_probs, kind.encode(z, torch.zeros_like(C)), kind.log_prob_present(z))

    module = Evaluated()
    together = vmap(
        lambda state: functional_call(module, {f"kind.{key}": value for key, value in state.items()}, (z, C))
    )(stacked)
    for index, kind in enumerate(kinds):
        module.kind = kind
        for found, alone in zip(together, module(z, C), strict=True):
            torch.testing.assert_close(found[index], alone)


@EVERY
def test_presence_is_bounded_and_starting_values_follow_the_generator(name: str) -> None:
    kind = made(name)
    for each in kind.log_prob_presence_given(1e6 * draw(3, *kind.latent_shape)):
        assert each.abs().max() <= 20.001
    first, again = KNOWLEDGE[name](), KNOWLEDGE[name]()
    first.initialise(torch.Generator().manual_seed(5))
    torch.rand(3)
    again.initialise(torch.Generator().manual_seed(5))
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in first.state_dict().items())


def test_its_exact_encoder_of_C_is_left_as_it_is() -> None:
    kind = build_knowledge("few-shot", (6,), name="k0", hidden=8, layers=2)
    before = {key: value.clone() for key, value in kind.state_dict().items()}
    assert isinstance(kind, Knowledge) and not hasattr(kind, "characteristics_encoder")
    kind.start_characteristics(draw(100, 6).float(), torch.Generator())
    assert all(torch.equal(value, before[key]) for key, value in kind.state_dict().items())
