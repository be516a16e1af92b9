"""A linear-Gaussian world in three dimensions: every distribution over T, κ and C in closed form, and models of it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal
from worlds import UNBOUNDED, grid

from tzk_core.build import build_flow
from tzk_core.distributions.base import Reparametrised
from tzk_core.distributions.conditional import ConditionalGaussian
from tzk_core.distributions.standard import LOG_2PI
from tzk_core.knowledge import Knowledge
from tzk_core.model import SharedFlow, TzK
from tzk_core.random_streams import stream
from tzk_core.transforms.bounds import soft_bound_inverse

DIMS = 3
CHARACTERISTICS = 2
LAYERS = [{"type": "tiled-convolution"}, {"type": "affine"}]


def vector(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def matrix(*rows: list[float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def log_normal(x: Tensor, mean: Tensor, covariance: Tensor) -> Tensor:
    """log N(x; mean, covariance), in nats; nan where x is."""
    return MultivariateNormal(mean, covariance, validate_args=False).log_prob(x)


class TwoGaussians(Reparametrised):
    """share N(half, I) + (1 - share) N(-half, I), the density of z in a `LinearGaussian`; it has no parameters."""

    def __init__(self, world: LinearGaussian) -> None:
        super().__init__((DIMS,))
        self.world = world

    def _log_prob(self, inputs: Tensor, context: Tensor | None) -> Tensor:
        half, share = self.world.half.to(inputs), self.world.share
        both = [(inputs - half).square().sum(1), (inputs + half).square().sum(1)]
        log_p = torch.logaddexp(-0.5 * both[0] + math.log(share), -0.5 * both[1] + math.log1p(-share))
        return log_p - 0.5 * DIMS * LOG_2PI

    def from_noise(self, noise: Tensor, context: Tensor | None = None) -> Tensor:
        """The quantile of the first number says which of the two, and what is left of it is its noise again."""
        share, quantile = self.world.share, torch.special.ndtr(noise[:, :1])
        present = quantile < share
        left = torch.where(present, quantile / share, (quantile - share) / (1 - share))
        own = torch.cat([torch.special.ndtri(left), noise[:, 1:]], 1)
        return own + torch.where(present, 1.0, -1.0) * self.world.half.to(noise)


@dataclass
class LinearGaussian:
    """κ ~ Bernoulli(share), C given κ=1 ~ N(centre, diag spread²), and T = unmix^{-1} (z - shift), where

    z given κ=0 ~ N(-half, I), z given C, κ=1 ~ N(half + load · (C - centre)/spread, I - load loadᵀ).

    The columns of `load` are orthogonal, equally long, and its rows too but for one that is zero: then z given κ=1 is
    N(half, I), so that κ given T is logistic in z, and both Gaussians given the other are diagonal: a knowledge type
    with linear regressors holds all five distributions. The formulas here do not go through z: they are those of
    jointly Gaussian T and C.
    """

    share: float = 0.35
    gain: float = 0.8
    angle: float = 0.6
    half: Tensor = field(default_factory=lambda: vector(0.7, -0.4, 0.8))
    centre: Tensor = field(default_factory=lambda: vector(0.5, -1.0))
    spread: Tensor = field(default_factory=lambda: vector(2.0, 0.6))
    shift: Tensor = field(default_factory=lambda: vector(-0.6, 1.2, 0.3))
    lower: Tensor = field(default_factory=lambda: matrix([1.0, 0.0, 0.0], [-0.8, 1.0, 0.0], [0.5, 0.9, 1.0]))
    upper: Tensor = field(default_factory=lambda: matrix([0.7, 0.6, -0.5], [0.0, 1.6, 0.7], [0.0, 0.0, 1.1]))

    @property
    def unmix(self) -> Tensor:
        """dz/dT, (3, 3)."""
        return self.lower @ self.upper

    @property
    def load(self) -> Tensor:
        """How z given κ=1 moves with standardised C, (3, 2)."""
        turn = matrix([math.cos(self.angle), -math.sin(self.angle)], [math.sin(self.angle), math.cos(self.angle)])
        return self.gain * torch.cat([turn, torch.zeros(1, 2, dtype=torch.float64)])

    @property
    def deviations(self) -> Tensor:
        """Of z given C, κ=1, (3,)."""
        return (1 - self.load.square().sum(1)).sqrt()

    # Moments of T and C

    @property
    def mix(self) -> Tensor:
        return torch.linalg.inv(self.unmix)

    def mean(self, sign: float) -> Tensor:
        """E T given κ=1 for sign 1, given κ=0 for -1."""
        return self.mix @ (sign * self.half - self.shift)

    @property
    def covariance(self) -> Tensor:
        """Cov T given κ, (3, 3), whichever κ."""
        return self.mix @ self.mix.T

    @property
    def slope(self) -> Tensor:
        """d E[T given C, κ=1] / dC, (3, 2)."""
        return self.mix @ self.load / self.spread

    # The distributions, in nats

    def log_prob_given(self, T: Tensor) -> Tensor:
        """log p(T given κ=1), (batch,)."""
        return log_normal(T, self.mean(1), self.covariance)

    def log_prob_given_absence(self, T: Tensor) -> Tensor:
        """log p(T given κ=0), (batch,)."""
        return log_normal(T, self.mean(-1), self.covariance)

    def log_prob(self, T: Tensor) -> Tensor:
        """log p(T), (batch,)."""
        present = self.log_prob_given(T) + math.log(self.share)
        return torch.logaddexp(present, self.log_prob_given_absence(T) + math.log1p(-self.share))

    def log_prob_presence_given(self, T: Tensor) -> tuple[Tensor, Tensor]:
        """log p(κ=0 given T) and log p(κ=1 given T), both (batch,)."""
        log_T = self.log_prob(T)
        absent = self.log_prob_given_absence(T) + math.log1p(-self.share) - log_T
        return absent, self.log_prob_given(T) + math.log(self.share) - log_T

    def log_prob_characteristics(self, C: Tensor) -> Tensor:
        """log p(C given κ=1), (batch,)."""
        return log_normal(C, self.centre, self.spread.square().diag())

    def log_prob_given_characteristics(self, T: Tensor, C: Tensor) -> Tensor:
        """log p(T given C, κ=1), (batch,): regression of T on C."""
        mean = self.mean(1) + (C - self.centre) @ self.slope.T
        rest = self.covariance - self.slope @ self.spread.square().diag() @ self.slope.T
        return log_normal(T, mean, rest)

    def log_prob_characteristics_given(self, C: Tensor, T: Tensor) -> Tensor:
        """log p(C given T, κ=1), (batch,): regression of C on T."""
        across = self.spread.square().diag() @ self.slope.T
        gain = across @ torch.linalg.inv(self.covariance)
        mean = self.centre + (T - self.mean(1)) @ gain.T
        return log_normal(C, mean, self.spread.square().diag() - gain @ across.T)

    def sample(self, n: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
        """T, (n, 3), κ, (n,), and C, (n, 2), nan where κ = 0."""
        generator = stream(seed, "linear-gaussian")
        uniform = torch.rand(n, generator=generator, dtype=torch.float64)
        noise = torch.randn(n, DIMS + CHARACTERISTICS, generator=generator, dtype=torch.float64)
        kappa, standard = (uniform < self.share).double(), noise[:, DIMS:]
        C = torch.where(kappa[:, None] == 1, self.centre + self.spread * standard, torch.nan)
        rest = torch.linalg.cholesky(self.covariance - self.slope @ self.spread.square().diag() @ self.slope.T)
        present = self.mean(1) + (C - self.centre) @ self.slope.T + noise[:, :DIMS] @ rest.T
        absent = self.mean(-1) + noise[:, :DIMS] @ torch.linalg.cholesky(self.covariance).T
        return torch.where(kappa[:, None] == 1, present, absent), kappa, C

    # The family of models

    def untrained(self) -> TzK:
        """A model whose family holds this world, as it starts: f_T and its knowledge type "it" neutral, in float64."""
        flow = build_flow((DIMS,), layers=LAYERS)
        latent = ConditionalGaussian((DIMS,), CHARACTERISTICS, layers=1, mean_bound=UNBOUNDED)
        knowledge = Knowledge((DIMS,), latent, CHARACTERISTICS, layers=1, logit_bound=UNBOUNDED)
        knowledge.characteristics_encoder.mean_bound = UNBOUNDED
        knowledge.initialise(stream(0, "initialise"))
        return TzK(SharedFlow((DIMS,), flow.transform, TwoGaussians(self)), {"it": knowledge}).double()

    @torch.no_grad()
    def model(self) -> TzK:
        """The model that is this world."""
        model = self.untrained()
        knowledge = model.find("it")
        mixing, affine = model.flow.transform._transforms
        mixing.triangles.copy_(self.lower.tril(-1) + self.upper.triu(1))
        mixing.raw_log_diagonal.copy_(soft_bound_inverse(self.upper.diagonal().log(), mixing.bound))
        affine.shift.copy_(self.shift)
        knowledge.log_odds.fill_(math.log(self.share / (1 - self.share)))
        knowledge.characteristics_prior.mean_.copy_(self.centre)
        knowledge.characteristics_prior.scale.copy_(self.spread)
        (discriminator,), (latent,), (encoder,) = (
            knowledge.discriminator,
            knowledge.latent.regressor,
            knowledge.characteristics_encoder.regressor,
        )
        discriminator.weight.copy_(2 * self.half[None])
        discriminator.bias.copy_(knowledge.log_odds)
        log_scale = soft_bound_inverse(self.deviations.log(), knowledge.latent.log_scale_bound)
        latent.weight.copy_(torch.cat([self.load, torch.zeros_like(self.load)]))
        latent.bias.copy_(torch.cat([self.half, log_scale]))
        gain = self.load.T  # the posterior mean of standardised C: z - half has covariance I
        own = vector(*[math.sqrt(1 - self.gain**2)] * CHARACTERISTICS)
        log_scale = soft_bound_inverse(own.log(), knowledge.characteristics_encoder.log_scale_bound)
        encoder.weight.copy_(torch.cat([gain, torch.zeros_like(gain)]))
        encoder.bias.copy_(torch.cat([-gain @ self.half, log_scale]))
        return model


NODES, STEPS = grid(-6.0, 6.0, 25)


@torch.no_grad()
def log_prob_present(model: TzK, T: Tensor) -> Tensor:
    """log p(T given κ=1) of a model, (batch,), C integrated by the trapezoid rule over standardised C in R²."""
    knowledge = model.find("it")
    z, logabsdet = model.flow.encode(T)
    C = knowledge.imagine(torch.cartesian_prod(NODES, NODES)).expand(len(z), -1, -1)
    cell = STEPS[0].log() * 2 + knowledge.characteristics_prior.scale.log().sum()
    log_joint = knowledge.log_prob_latent(z, C) + knowledge.log_prob_characteristics(C)
    return torch.logsumexp(log_joint, 1) + cell + logabsdet


@torch.no_grad()
def shortfall(world: LinearGaussian, model: TzK, *, count: int = 2000, seed: int = 2) -> dict[str, float]:
    """How many nats the model is behind the truth on held-out samples of the world, by what is predicted.

    "T": log p(T). "T given κ=1", with C integrated, and "T given C": of samples in which the knowledge is present.
    "κ given T". "C given T": of samples in which it is present.
    """
    T, kappa, C = world.sample(count, seed)
    knowledge, z, on = model.find("it"), model.flow.encode(T)[0], kappa == 1
    true = torch.where(on, *reversed(world.log_prob_presence_given(T)))
    estimate = torch.where(on, *reversed(knowledge.log_prob_presence_given(z)))
    T1, C1, z1 = T[on], C[on], z[on]
    gaps = {
        "T": world.log_prob(T) - model.log_prob(T),
        "T given κ=1": world.log_prob_given(T1) - log_prob_present(model, T1),
        "T given C": world.log_prob_given_characteristics(T1, C1) - model.log_prob(T1, "it", C1),
        "κ given T": true - estimate,
        "C given T": world.log_prob_characteristics_given(C1, T1) - knowledge.log_prob_characteristics_given(C1, z1),
    }
    return {name: gap.mean().item() for name, gap in gaps.items()}
