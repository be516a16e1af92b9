"""Every fault of a knowledge type that the kit refuses, beside right ones; another line is another fault."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tzk_core.distributions.base import Reparametrised
from tzk_core.distributions.conditional import required
from tzk_core.distributions.regressor import Regressor
from tzk_core.errors import TzkError
from tzk_core.knowledge import Knowledge
from tzk_core.knowledge.base import Presence
from tzk_core.knowledge.gaussian import GaussianKnowledge
from tzk_core.testing import NotConforming, check_knowledge

SHAPE = (3,)


class Small(GaussianKnowledge):
    """A right one; each fault is a subclass."""

    def __init__(self) -> None:
        super().__init__(SHAPE, hidden=8, layers=2)
        self.initialise(torch.Generator().manual_seed(0))


class OneDiscriminator(Small):
    def log_prob_presence_given(self, z: Tensor) -> Presence:
        return super().log_prob_presence_given(z[:1].expand_as(z))


class OtherInTraining(Small):
    def log_prob_latent(self, z: Tensor, C: Tensor) -> Tensor:
        return super().log_prob_latent(z, C) + (0.1 if self.training else 0.0)


class Counter(Small):
    calls = 0

    def decode(self, C: Tensor, noise: Tensor) -> Tensor:
        self.calls += 1
        return super().decode(C, noise)


class OwnGenerator(Small):
    def encode(self, z: Tensor, noise: Tensor) -> Tensor:
        source = torch.Generator()
        source.seed()
        return super().encode(z, noise + torch.randn(noise.shape, generator=source))


class BranchOnValues(Small):
    def log_prob_latent(self, z: Tensor, C: Tensor) -> Tensor:
        value = super().log_prob_latent(z, C)
        return value if self.log_odds.sum() < 5 else value + 1


class BranchOnBatch(Small):
    def log_prob_presence_given(self, z: Tensor) -> Presence:
        return super().log_prob_presence_given(z if z.abs().max() < 10 else 0.5 * z)


class SingleBroken(Small):
    def log_prob_characteristics_given(self, C: Tensor, z: Tensor) -> Tensor:
        value = super().log_prob_characteristics_given(C, z)
        return value if z.dtype == torch.float64 else value + 0.1


class LargeNan(Small):
    def features(self, z: Tensor) -> Tensor:
        features = super().features(z)
        return features + 0 * (5 * features.square().sum(1, keepdim=True)).exp()


class PlainTensor(Small):
    def __init__(self) -> None:
        super().__init__()
        self.centre = torch.randn(SHAPE)

    def log_prob_latent(self, z: Tensor, C: Tensor) -> Tensor:
        return super().log_prob_latent(z - self.centre, C)

    def decode(self, C: Tensor, noise: Tensor) -> Tensor:
        return super().decode(C, noise) + self.centre


class StartLost(Small):
    centre = 0.0

    def start(self, z: Tensor, reference: Tensor, groups: Tensor | None = None) -> None:
        self.centre = float(z.mean())

    def log_prob_latent(self, z: Tensor, C: Tensor) -> Tensor:
        return super().log_prob_latent(z - self.centre, C)

    def decode(self, C: Tensor, noise: Tensor) -> Tensor:
        return super().decode(C, noise) + self.centre


class IgnoresGenerator(Small):
    def initialise(self, generator: torch.Generator) -> None:
        super().initialise(torch.Generator().manual_seed(0))


class GlobalStart(Small):
    def initialise(self, generator: torch.Generator) -> None:
        super().initialise(generator)
        with torch.no_grad():
            self.discriminator[-1].bias.copy_(torch.randn(1))


class Unequal(Small):
    """Its samples are wider than its density says, but at the neutral start."""

    def __init__(self) -> None:
        super().__init__()
        self.stretch = nn.Parameter(torch.zeros(()))

    def decode(self, C: Tensor, noise: Tensor) -> Tensor:
        return super().decode(C, noise * self.stretch.exp())


class Mixture(Reparametrised):
    """Two Gaussians at ±centre(C), from noise of its own: uniform where it chooses."""

    excess = 0.0
    wider = 1.0

    def __init__(self) -> None:
        super().__init__(SHAPE)
        self.centre = Regressor(2, 3, hidden=8, layers=2)
        self.offset = nn.Parameter(torch.tensor([0.8, -0.5, 0.3]))

    def noise(self, size: tuple[int, ...], generator: torch.Generator | None = None) -> Tensor:
        noise = super().noise(size, generator)
        side = torch.where(torch.rand(*size, generator=generator) < 0.5, -8.0, 8.0)
        return torch.cat([noise[..., :1] + side.unsqueeze(-1), noise[..., 1:]], -1)

    def from_noise(self, noise: Tensor, context: Tensor | None = None) -> Tensor:
        side = noise[..., :1].sign()
        standard = torch.cat([noise[..., :1] - 8 * side, noise[..., 1:]], -1)
        return side * (self.centre(required(context)) + self.offset) + self.wider * standard

    def _log_prob(self, inputs: Tensor, context: Tensor | None) -> Tensor:
        centre = self.centre(required(context)) + self.offset
        inputs = inputs.unsqueeze(1) if centre.dim() > inputs.dim() else inputs
        squares = torch.stack([(inputs - side * centre).square().sum(-1) for side in (-1, 1)])
        return (-0.5 * squares).logsumexp(0) - math.log(2) - 1.5 * math.log(2 * math.pi) + self.excess


class Unnormalised(Mixture):
    excess = 0.1


class WiderSampler(Mixture):
    wider = 1.2


class Logistic(Reparametrised):
    """A logistic density with noise of its own, one-to-one."""

    factor = 1.0

    def __init__(self) -> None:
        super().__init__(SHAPE)
        self.centre = Regressor(2, 3, hidden=8, layers=2)

    def noise(self, size: tuple[int, ...], generator: torch.Generator | None = None) -> Tensor:
        return torch.logit(torch.rand(*size, *self.shape, generator=generator, dtype=torch.float64), eps=1e-12).float()

    def from_gaussian(self, noise: Tensor) -> Tensor:
        return self.factor * (torch.special.log_ndtr(noise) - torch.special.log_ndtr(-noise))

    def from_noise(self, noise: Tensor, context: Tensor | None = None) -> Tensor:
        return noise + self.centre(required(context))

    def _log_prob(self, inputs: Tensor, context: Tensor | None) -> Tensor:
        centre = self.centre(required(context))
        standard = (inputs.unsqueeze(1) if centre.dim() > inputs.dim() else inputs) - centre
        softplus = nn.functional.softplus
        return -(softplus(standard) + softplus(-standard)).sum(-1)


class OtherGaussianNoise(Logistic):
    factor = 1.3


class Angle(Small):
    """C in (-π, π), a Gaussian that wraps: its prior and its encoder are replaced."""

    def _log_prob(self, C: Tensor, mean: Tensor, deviation: float) -> Tensor:
        turns = 2 * math.pi * torch.arange(-4, 5, dtype=C.dtype)
        standard = (C.unsqueeze(-1) + turns - mean.unsqueeze(-1)) / deviation
        each = -0.5 * standard.square() - math.log(deviation * math.sqrt(2 * math.pi))
        return each.logsumexp(-1).sum(-1)

    def _mean(self, z: Tensor, like: Tensor) -> Tensor:
        mean, _ = self.characteristics_encoder.parameters_of(self.features(z))
        mean = mean + 0 * _.sum()
        return mean.unsqueeze(1) if like.dim() > mean.dim() else mean

    def log_prob_characteristics(self, C: Tensor) -> Tensor:
        return self._log_prob(C, torch.zeros_like(C), 2.0)

    def log_prob_characteristics_given(self, C: Tensor, z: Tensor) -> Tensor:
        return self._log_prob(C, self._mean(z, C), 1.0)

    def imagine(self, noise: Tensor) -> Tensor:
        return wrapped(2 * noise)

    def encode(self, z: Tensor, noise: Tensor) -> Tensor:
        return wrapped(self._mean(z, noise) + noise)


class NarrowAngle(Angle):
    def encode(self, z: Tensor, noise: Tensor) -> Tensor:
        return wrapped(self._mean(z, noise) + 0.7 * noise)


def wrapped(angle: Tensor) -> Tensor:
    return torch.remainder(angle + math.pi, 2 * math.pi) - math.pi


def of(latent: type[Reparametrised]) -> Knowledge:
    made = Knowledge(SHAPE, latent(), hidden=8, layers=2)
    made.initialise(torch.Generator().manual_seed(0))
    return made


WRONG: dict[Any, str] = {
    OneDiscriminator: r"log p\(κ given z\), κ=0 of sample 1 by itself is off .* compute each sample by itself",
    OtherInTraining: r"log p\(z given C\) in training mode is off .* let nothing depend on `training`",
    Counter: "should change no state; it changes calls",
    OwnGenerator: "encode for the same noise again is off .* use the noise that is passed",
    BranchOnValues: r"torch.func.vmap should be able to map .* Replace branches on values",
    BranchOnBatch: r"beside large z is off .* branches on its values",
    SingleBroken: r"log p\(C given z\) in float32 is off .* float32 should agree with float64",
    LargeNan: "of z up to .* should be finite.* bound what may overflow",
    PlainTensor: "centre is a plain attribute, which saving and loading lose: register it as a buffer",
    StartLost: "after starting, saving and loading is off .* register it as a buffer",
    IgnoresGenerator: "generators of two seeds leave the same values: pass `generator=generator`",
    GlobalStart: "it uses the global random numbers of torch: pass `generator=generator`",
    Unequal: r"p\(z given C\) and decode: the log-density of a sample is off",
    Unnormalised: "is not that of log_prob, by its integral.* Normalise it",
    WiderSampler: r"p\(z given C\) and decode: the density of \d+ draws is not that of log_prob",
    OtherGaussianNoise: "`noise` and `from_gaussian` of Gaussian noise should have one distribution",
}


def made(kind: Any) -> Knowledge:
    return kind() if issubclass(kind, Knowledge) else of(kind)


def latents() -> Tensor:
    return torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.__name__)
def test_a_wrong_knowledge_type_is_refused(wrong: Any) -> None:
    with pytest.raises(NotConforming, match=WRONG[wrong]):
        check_knowledge(made(wrong), latents())


@pytest.mark.parametrize("right", [Small, Mixture, Logistic], ids=lambda right: right.__name__)
def test_a_right_knowledge_type_passes(right: Any) -> None:
    check_knowledge(made(right), latents())


def test_a_C_that_wraps_is_compared_over_draws() -> None:
    both = ["p(C given z)", "p(C)"]
    check_knowledge(Angle(), latents(), many_to_one=both)
    with pytest.raises(NotConforming, match=r"p\(C given z\) and encode: the density of \d+ draws"):
        check_knowledge(NarrowAngle(), latents(), many_to_one=both)


def test_a_class_that_cannot_be_stacked_passes_if_that_is_meant() -> None:
    check_knowledge(BranchOnValues(), latents(), stackable=False)


def test_other_names_of_densities_are_refused() -> None:
    with pytest.raises(TzkError, match=r"many_to_one has names of .*; got 'p\(z\)'"):
        check_knowledge(Small(), latents(), many_to_one=["p(z)"])
