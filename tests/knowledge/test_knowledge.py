"""A knowledge type is five distributions over presence, characteristics and the latent, and nothing else."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from tzk_core.build import build_knowledge
from tzk_core.knowledge import Knowledge
from tzk_core.knowledge.flow import FlowKnowledge
from tzk_core.knowledge.gaussian import GaussianKnowledge
from tzk_core.knowledge.low_rank import LowRankKnowledge
from tzk_core.testing import check_knowledge

IMAGE = (1, 4, 4)

# name -> constructor; another line is another knowledge type held to the laws
KNOWLEDGE: dict[str, Callable[[], Knowledge]] = {
    "flow": lambda: FlowKnowledge((3,), hidden=8),
    "flow of images": lambda: FlowKnowledge(IMAGE, characteristics=3, steps=2, tile=2, hidden=8),
    "gaussian": lambda: GaussianKnowledge((3,), hidden=8),
    "gaussian of images": lambda: GaussianKnowledge(IMAGE, characteristics=1, hidden=8),
    "low-rank": lambda: LowRankKnowledge((3,), rank=2),
    "low-rank of images": lambda: LowRankKnowledge(IMAGE, characteristics=3, dims=10, rank=3, hidden=8),
}
EVERY = pytest.mark.parametrize("name", KNOWLEDGE)


def made(name: str, by: float = 0.1) -> tuple[Knowledge, Tensor]:
    """A knowledge type whose parameters were moved, and three latents, in float64."""
    knowledge = KNOWLEDGE[name]()
    generator = torch.Generator().manual_seed(0)
    knowledge.initialise(generator)
    with torch.no_grad():
        for parameter in knowledge.parameters():
            parameter += by * torch.randn(parameter.shape, generator=generator)
        knowledge.log_odds.fill_(-1.3)
        knowledge.characteristics_prior.fit(2 + 3 * torch.randn(50, knowledge.characteristics, generator=generator))
    return knowledge.double(), torch.randn(3, *knowledge.latent_shape, generator=generator, dtype=torch.float64)


@EVERY
def test_it_conforms(name: str) -> None:
    check_knowledge(*made(name))


@EVERY
def test_it_starts_knowing_nothing_of_observed_characteristics(name: str) -> None:
    """Presence at even odds whatever z, C at p(C) whatever z, z close to N(0, 1) whatever C."""
    knowledge = KNOWLEDGE[name]()
    knowledge.initialise(torch.Generator().manual_seed(0))
    values = torch.tensor([[-1.0], [1.0]]).expand(2, knowledge.characteristics)  # of mean 0 and deviation 1
    knowledge.fit_characteristics(values)
    source = torch.Generator().manual_seed(1)
    z, C, far = (
        torch.randn(3, *s, generator=source) for s in (knowledge.latent_shape, *2 * [(knowledge.characteristics,)])
    )
    for value in (*knowledge.log_prob_presence(), *knowledge.log_prob_presence_given(z)):
        torch.testing.assert_close(value, torch.full_like(value, -math.log(2)))

    def normal(x: Tensor) -> Tensor:
        return -0.5 * (x.flatten(1) ** 2 + math.log(2 * math.pi)).sum(1)

    torch.testing.assert_close(knowledge.log_prob_characteristics(C), normal(C))
    torch.testing.assert_close(knowledge.log_prob_characteristics_given(C, z), normal(C))
    assert torch.equal(knowledge.log_prob_latent(z, C), knowledge.log_prob_latent(z, far))
    torch.testing.assert_close(knowledge.log_prob_latent(z, C), normal(z), rtol=0, atol=0.3)
    many = torch.randn(2000, *knowledge.latent_shape, generator=source)
    cost = (normal(many) - knowledge.log_prob_latent(many, C[:1].expand(2000, -1))).mean()
    assert abs(cost) < 0.005 * many[0].numel(), "on average a few thousandths of a nat a dimension, whatever was drawn"


@EVERY
def test_presence_is_bayes_odds(name: str) -> None:
    knowledge, z = made(name)
    assert knowledge.log_prob_presence().present.exp().item() == pytest.approx(1 / (1 + math.exp(1.3)))
    absent, present = knowledge.log_prob_presence_given(1e6 * z)
    assert present.abs().max() <= 20.001 and absent.abs().max() <= 20.001, "log-odds are bounded"


@EVERY
def test_it_is_a_pure_function_that_can_be_evaluated_stacked(name: str) -> None:
    """Two knowledge types of one structure by one vmap give what each gives alone."""
    (one, z), (other, _) = made(name), made(name, by=0.2)
    C = torch.randn(3, one.characteristics, dtype=torch.float64)
    states = [dict(knowledge.state_dict()) for knowledge in (one, other)]
    stacked = {key: torch.stack([state[key] for state in states]) for key in states[0]}

    class Evaluated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.knowledge = copy.deepcopy(one)

        def forward(self, z: Tensor, C: Tensor) -> tuple[Tensor, ...]:
            knowledge, noise = self.knowledge, torch.zeros_like(C)
            return (
                knowledge.log_prob_latent(z, C),
                knowledge.log_prob_characteristics_given(C, z),
                knowledge.log_prob_characteristics(C),
                knowledge.log_prob_presence_given(z).present,
                knowledge.encode(z, noise),
                knowledge.decode(C, z),
            )

    module = Evaluated()
    together = vmap(
        lambda state: functional_call(module, {f"knowledge.{key}": value for key, value in state.items()}, (z, C))
    )(stacked)
    for index, knowledge in enumerate((one, other)):
        module.knowledge = knowledge
        for stacked_value, value in zip(together, module(z, C), strict=True):
            torch.testing.assert_close(stacked_value[index], value)


@EVERY
def test_initialise_depends_on_the_generator_alone(name: str) -> None:
    first, again = KNOWLEDGE[name](), KNOWLEDGE[name]()
    first.initialise(torch.Generator().manual_seed(5))
    torch.rand(3)
    again.initialise(torch.Generator().manual_seed(5))
    for key, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[key]), key


def test_p_of_z_given_c_is_a_density() -> None:
    """By quadrature over z in R, at two C."""
    knowledge = FlowKnowledge((1,), hidden=8, steps=2).double()
    knowledge.initialise(torch.Generator().manual_seed(0))
    with torch.no_grad():
        last = knowledge.latent.base.regressor[-1]
        last.weight.normal_(std=0.3, generator=torch.Generator().manual_seed(1))
    z = torch.linspace(-80, 80, 80001, dtype=torch.float64)
    for C in torch.tensor([[0.5, -1.0], [-2.0, 2.0]], dtype=torch.float64):
        density = knowledge.log_prob_latent(z[:, None], C.expand(len(z), 2)).exp()
        assert torch.trapezoid(density, z).item() == pytest.approx(1.0, abs=1e-4)
        assert density.max() > density[[0, -1]].max()


def test_decoding_samples_p_of_z_given_c() -> None:
    knowledge, _ = made("gaussian", by=0.2)
    C = torch.tensor([[1.0, -0.5]], dtype=torch.float64)
    noise = knowledge.latent.noise((20000,), torch.Generator().manual_seed(0)).double()
    z = knowledge.decode(C.expand(20000, 2), noise)
    mean, log_scale = knowledge.latent.parameters_of(knowledge.characteristics_prior.standardise(C))
    torch.testing.assert_close((z - mean).mean(0) / log_scale[0].exp(), torch.zeros(3).double(), rtol=0, atol=0.03)
    torch.testing.assert_close(z.std(0), log_scale[0].exp(), rtol=0.03, atol=0)


def test_the_papers_sizes() -> None:
    """C in R^2, 4 flow steps, regressors of four layers of 70 units (Section 3)."""
    knowledge = build_knowledge("flow", (1, 32, 32))
    assert knowledge.characteristics == 2 and knowledge.latent_shape == (1, 32, 32)
    steps = [name for name, _ in knowledge.latent.transform.named_parameters() if name.endswith("triangles")]
    assert len(steps) == 4
    assert [p.shape[0] for n, p in knowledge.discriminator.named_parameters() if p.dim() == 2] == [70, 70, 70, 1]


def test_without_an_override_an_older_state_is_taken_as_it_is() -> None:
    state = {"a": torch.zeros(1)}
    assert Knowledge.upgrade(state, 0) == state
