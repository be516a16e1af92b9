"""The densities agree with torch's, integrate to 1, sample what they say, and behave as nflows does."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from nflows.distributions.base import Distribution
from torch import Tensor
from torch import distributions as torch_distributions

from tzk_core.distributions.base import Reparametrised
from tzk_core.distributions.conditional import ConditionalFlow, ConditionalGaussian
from tzk_core.distributions.regressor import Regressor
from tzk_core.distributions.standard import FittedGaussian, StandardGaussian, StandardLogistic
from tzk_core.errors import TzkError
from tzk_core.recipes.paper import flow_steps


def moved(distribution: Reparametrised, by: float = 0.3) -> Reparametrised:
    """In float64, with every parameter moved away from where it starts."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in distribution.parameters():
            parameter += by * torch.randn(parameter.shape, generator=generator)
    return distribution.double()


def fitted() -> FittedGaussian:
    gaussian = FittedGaussian((2,))
    gaussian.fit(torch.randn(50, 2) * torch.tensor([0.1, 30.0]) + torch.tensor([5.0, -100.0]))
    return gaussian


def conditional_flow(shape: tuple[int, ...]) -> ConditionalFlow:
    return ConditionalFlow(flow_steps(shape, 2, 2), ConditionalGaussian(shape, 3, hidden=8), shape)


# name -> constructor and the length of its context (None: it takes none)
DISTRIBUTIONS: dict[str, tuple[Callable[[], Reparametrised], int | None]] = {
    "gaussian": (lambda: StandardGaussian((2,)), None),
    "gaussian of images": (lambda: StandardGaussian((1, 2, 2)), None),
    "logistic": (lambda: StandardLogistic((2,)), None),
    "fitted": (fitted, None),
    "conditional gaussian": (lambda: ConditionalGaussian((2,), 3, hidden=8), 3),
    "conditional gaussian of images": (lambda: ConditionalGaussian((1, 2, 2), 3, hidden=8), 3),
    "conditional flow": (lambda: conditional_flow((2,)), 3),
    "conditional flow of images": (lambda: conditional_flow((1, 4, 4)), 3),
}
EVERY = pytest.mark.parametrize("name", DISTRIBUTIONS)
CONDITIONAL = pytest.mark.parametrize("name", [name for name, (_, c) in DISTRIBUTIONS.items() if c])


def made(name: str, batch: int = 4) -> tuple[Reparametrised, Tensor, Tensor | None]:
    """A distribution, inputs and contexts."""
    torch.manual_seed(0)
    construct, length = DISTRIBUTIONS[name]
    distribution = moved(construct())
    inputs = torch.randn(batch, *distribution.shape, dtype=torch.float64)
    return distribution, inputs, None if length is None else torch.randn(batch, length, dtype=torch.float64)


@EVERY
def test_it_behaves_as_a_distribution_of_nflows(name: str) -> None:
    distribution, inputs, context = made(name)
    assert isinstance(distribution, Distribution)
    assert distribution.log_prob(inputs, context).shape == (4,)
    shape = distribution.shape
    if context is None:
        assert distribution.sample(5).shape == (5, *shape)
        assert distribution.sample(5, batch_size=2).shape == (5, *shape)
    else:
        assert distribution.sample(5, context).shape == (4, 5, *shape)
        with pytest.raises(ValueError, match="context"):
            distribution.log_prob(inputs[:3], context)
        with pytest.raises(ValueError, match="expects a context; got none"):
            distribution.log_prob(inputs)
    samples, log_prob = distribution.sample_and_log_prob(5, context)
    flat = samples.flatten(0, 1) if context is not None else samples
    repeated = None if context is None else context.repeat_interleave(5, 0)
    torch.testing.assert_close(distribution.log_prob(flat, repeated).view(log_prob.shape), log_prob)


@EVERY
def test_samples_do_not_influence_each_other(name: str) -> None:
    distribution, inputs, context = made(name)
    together = distribution.log_prob(inputs, context)
    for row in range(len(inputs)):
        one = slice(row, row + 1)
        alone = distribution.log_prob(inputs[one], None if context is None else context[one])
        torch.testing.assert_close(alone, together[one])


@EVERY
def test_every_parameter_gets_a_gradient(name: str) -> None:
    distribution, inputs, context = made(name)
    distribution.log_prob(inputs.requires_grad_(), context).sum().backward()
    assert inputs.grad is not None and inputs.grad.isfinite().all()
    for key, parameter in distribution.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all() and parameter.grad.any(), key


@CONDITIONAL
def test_several_contexts_for_each_input_equal_one_by_one(name: str) -> None:
    distribution, inputs, _ = made(name)
    contexts = torch.randn(4, 5, 3, dtype=torch.float64)
    several = distribution.log_prob(inputs, contexts)
    assert several.shape == (4, 5)
    for sample in range(5):
        torch.testing.assert_close(several[:, sample], distribution.log_prob(inputs, contexts[:, sample]))


@pytest.mark.parametrize("shape", [(2,), (1, 2, 2)])
def test_several_inputs_for_each_context_equal_one_by_one(shape: tuple[int, ...]) -> None:
    """The encoder of characteristics is asked for several C of one z."""
    distribution = moved(ConditionalGaussian(shape, 3, hidden=8))
    inputs = torch.randn(4, 5, *shape, dtype=torch.float64)
    context = torch.randn(4, 3, dtype=torch.float64)
    several, noise = distribution.log_prob(inputs, context), distribution.from_noise(inputs, context)
    assert several.shape == (4, 5) and noise.shape == inputs.shape
    for sample in range(5):
        torch.testing.assert_close(several[:, sample], distribution.log_prob(inputs[:, sample], context))
        torch.testing.assert_close(noise[:, sample], distribution.from_noise(inputs[:, sample], context))


@EVERY
def test_the_density_of_what_noise_stands_for_is_that_of_the_noise_over_the_jacobian(name: str) -> None:
    distribution, _, context = made(name, batch=1)
    noise = distribution.noise((1,), torch.Generator().manual_seed(3)).double()
    jacobian = torch.autograd.functional.jacobian(
        lambda noise: distribution.from_noise(noise, context).flatten(), noise
    ).view(noise.numel(), noise.numel())
    of_noise = StandardLogistic if name == "logistic" else StandardGaussian
    expected = of_noise(distribution.shape).log_prob(noise) - torch.linalg.slogdet(jacobian).logabsdet
    sample = distribution.from_noise(noise, context)
    torch.testing.assert_close(distribution.log_prob(sample, context), expected)


def test_standard_gaussian_is_torchs() -> None:
    x = 3 * torch.randn(4, 2, 3, dtype=torch.float64)
    torch.testing.assert_close(
        StandardGaussian((2, 3)).log_prob(x), torch_distributions.Normal(0, 1).log_prob(x).sum((1, 2))
    )


def test_standard_logistic_is_the_transformed_uniform_of_torch() -> None:
    x = torch.tensor([[-700.0], [-3.0], [0.0], [2.5], [700.0]], dtype=torch.float64)
    logistic = torch_distributions.TransformedDistribution(
        torch_distributions.Uniform(torch.zeros(1).double(), torch.ones(1).double()),
        [torch_distributions.SigmoidTransform().inv],
    )
    ours = StandardLogistic((1,)).log_prob(x)
    torch.testing.assert_close(ours[1:4], logistic.log_prob(x)[1:4, 0])
    torch.testing.assert_close(ours[[0, 4]], torch.tensor([-700.0, -700.0], dtype=torch.float64))


def test_the_noise_of_the_logistic_is_logistic() -> None:
    noise = StandardLogistic((3,)).noise((20000,), torch.Generator().manual_seed(0))
    assert noise.dtype == torch.float32 and noise.isfinite().all()
    uniform, _ = torch.sigmoid(noise.double()).flatten().sort()
    expected = (torch.arange(60000) + 0.5) / 60000
    assert (uniform - expected).abs().max() < 1.63 / math.sqrt(60000)  # Kolmogorov & Smirnov, 1 %


def test_conditional_gaussian_is_torchs_with_the_regressed_moments() -> None:
    distribution, inputs, context = made("conditional gaussian of images")
    assert isinstance(distribution, ConditionalGaussian)
    mean, log_scale = distribution.parameters_of(context)
    expected = torch_distributions.Normal(mean, log_scale.exp()).log_prob(inputs.flatten(1)).sum(1)
    torch.testing.assert_close(distribution.log_prob(inputs, context), expected)
    torch.testing.assert_close(distribution.mean(context), mean.view(4, 1, 2, 2))


def test_what_a_conditional_gaussian_emits_is_bounded() -> None:
    distribution = moved(ConditionalGaussian((2,), 3, mean_bound=4.0, log_scale_bound=2.0), by=5.0)
    mean, log_scale = distribution.parameters_of(1e6 * torch.randn(9, 3, dtype=torch.float64))
    assert mean.abs().max() <= 4.0 and log_scale.abs().max() <= 2.0


@pytest.mark.parametrize("name", ["gaussian", "logistic", "fitted", "conditional gaussian", "conditional flow"])
def test_it_integrates_to_one(name: str) -> None:
    distribution, _, context = made(name, batch=1)
    samples = distribution.sample(1000, context).view(-1, 2)
    centre = samples.median(0).values
    width = 3 * (samples - centre).abs().max(0).values
    unit = torch.linspace(-1, 1, 1001, dtype=torch.float64)
    grid = torch.cartesian_prod(unit, unit) * width + centre
    rows = None if context is None else context.expand(len(grid), -1)
    density = distribution.log_prob(grid, rows).exp().view(1001, 1001)
    volume = torch.trapezoid(torch.trapezoid(density, unit * width[1]), unit * width[0])
    assert volume.item() == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("name", ["gaussian", "fitted", "conditional gaussian"])
def test_samples_have_the_moments(name: str) -> None:
    distribution, _, context = made(name, batch=2)
    samples = distribution.sample(20000, context)
    if context is None:
        samples = samples[None]
    means, scales = torch.zeros(1, 2), torch.ones(1, 2)
    if isinstance(distribution, FittedGaussian):
        means, scales = distribution.mean_[None], distribution.scale[None]
    if isinstance(distribution, ConditionalGaussian):
        means, log_scales = distribution.parameters_of(context)
        scales = log_scales.exp()
    standard = (samples - means[:, None]) / scales[:, None]
    torch.testing.assert_close(standard.mean(1), torch.zeros_like(means), rtol=0, atol=0.03, check_dtype=False)
    torch.testing.assert_close(standard.std(1), torch.ones_like(means), rtol=0, atol=0.03, check_dtype=False)


def test_fitting_takes_moments_of_observed_rows() -> None:
    gaussian = FittedGaussian((2,))
    values = torch.tensor([[1.0, 5.0], [3.0, 5.0], [math.nan, 1e9]])
    gaussian.fit(values)
    assert torch.equal(gaussian.mean_, torch.tensor([2.0, 5.0]))
    torch.testing.assert_close(gaussian.scale, torch.tensor([1.0, 1e-3]))  # a constant keeps a density
    again = FittedGaussian((2,))
    again.fit(values[2:])
    assert torch.equal(again.mean_, torch.zeros(2)) and torch.equal(again.scale, torch.ones(2))
    again.load_state_dict(gaussian.state_dict())
    assert torch.equal(again.mean_, gaussian.mean_)


def test_everything_conditional_starts_neutral() -> None:
    distribution = ConditionalGaussian((3,), 2)
    distribution.regressor.initialise(torch.Generator().manual_seed(0))
    x, context = torch.randn(4, 3), torch.randn(4, 2)
    torch.testing.assert_close(distribution.log_prob(x, context), StandardGaussian((3,)).log_prob(x))


@pytest.mark.parametrize("sizes", [{"hidden": 0}, {"layers": 0}, {"hidden": -1}])
def test_a_network_of_nothing_is_refused(sizes: dict[str, int]) -> None:
    with pytest.raises(TzkError, match="got hidden = "):
        Regressor(2, 10, **sizes)


def test_the_regressor_is_the_papers() -> None:
    """Four linear layers of 70 units with PReLU (Section 3)."""
    regressor = Regressor(2, 10)
    assert [tuple(p.shape) for p in regressor.parameters() if p.dim() == 2] == [
        (70, 2),
        (70, 70),
        (70, 70),
        (10, 70),
    ]
    assert sum(isinstance(part, torch.nn.PReLU) for part in regressor) == 3


def test_samples_follow_the_type_of_the_distribution_whatever_its_first_buffer_is() -> None:
    class Flagged(StandardGaussian):
        def __init__(self) -> None:
            super().__init__((2,))
            self.register_buffer("flag", torch.tensor(True))
            self.register_buffer("centre", torch.zeros(2))

    assert Flagged().double().sample(3).dtype == torch.float64
