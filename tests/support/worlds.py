"""One-dimensional worlds whose five distributions are known, as models and as formulas by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from nflows.transforms import CompositeTransform, Transform
from torch import Tensor, nn

from tzk_core.distributions.base import Reparametrised
from tzk_core.distributions.conditional import ConditionalGaussian
from tzk_core.distributions.standard import StandardGaussian
from tzk_core.knowledge import Knowledge
from tzk_core.model import SharedFlow, TzK
from tzk_core.transforms.affine import Affine

UNBOUNDED = 1e9  # a soft bound so wide that it is the identity to rounding


def gaussian(x: Tensor, mean: Tensor | float, deviation: float) -> Tensor:
    """log N(x; mean, deviation²), in nats."""
    return -0.5 * ((x - mean) / deviation) ** 2 - math.log(deviation) - 0.5 * math.log(2 * math.pi)


def grid(low: float, high: float, count: int) -> tuple[Tensor, Tensor]:
    """Nodes and weights of the trapezoid rule, exponentially exact for densities that vanish at both ends."""
    nodes = torch.linspace(low, high, count, dtype=torch.float64)
    return nodes, torch.full_like(nodes, (high - low) / (count - 1))


def hermite(count: int) -> tuple[Tensor, Tensor]:
    """Nodes and weights of an expectation over a standard Gaussian, by the trapezoid rule."""
    nodes, weights = grid(-8.5, 8.5, count)
    return nodes, weights * gaussian(nodes, 0.0, 1.0).exp()


class Arcsinh(Transform):
    """T to z = arcsinh(T); log|dz/dT| = -½ log(1 + T²)."""

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return torch.asinh(inputs), -0.5 * torch.log1p(inputs.square()).flatten(1).sum(1)

    def inverse(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        outputs = torch.sinh(inputs)
        return outputs, 0.5 * torch.log1p(outputs.square()).flatten(1).sum(1)


class Mixture(Reparametrised):
    """A mixture of two Gaussians of unit variance, the density of z in a `World`."""

    def __init__(self, world: World) -> None:
        super().__init__((1,))
        self.world = world

    def _log_prob(self, inputs: Tensor, context: Tensor | None) -> Tensor:
        return self.world.log_prob_z(inputs.squeeze(1))


@dataclass
class World:
    """κ ~ Bernoulli(share); z given κ=0 ~ N(absent, 1); C given κ=1 ~ N(centre, spread²), and
    z given C, κ=1 ~ N(present + slope (C - centre), 1 - slope² spread²), so that z given κ=1 ~ N(present, 1).

    Then κ given z is logistic and C given z Gaussian. T = sinh(z).
    """

    share: float = 0.3
    absent: float = -0.8
    present: float = 1.1
    centre: float = 0.4
    spread: float = 0.7
    slope: float = 0.9

    @property
    def residue(self) -> float:
        """The standard deviation of z given C, κ=1."""
        return math.sqrt(1 - (self.slope * self.spread) ** 2)

    def log_prob_z(self, z: Tensor) -> Tensor:
        absent = gaussian(z, self.absent, 1.0) + math.log1p(-self.share)
        return torch.logaddexp(absent, gaussian(z, self.present, 1.0) + math.log(self.share))

    def log_prob_C(self, C: Tensor) -> Tensor:
        return gaussian(C, self.centre, self.spread)

    def log_prob_z_given(self, z: Tensor, C: Tensor) -> Tensor:
        return gaussian(z, self.present + self.slope * (C - self.centre), self.residue)

    def log_prob_C_given(self, C: Tensor, z: Tensor) -> Tensor:
        mean = self.centre + self.slope * self.spread**2 * (z - self.present)
        return gaussian(C, mean, self.spread * self.residue)

    def log_prob_present_given(self, z: Tensor) -> Tensor:
        return math.log(self.share) + gaussian(z, self.present, 1.0) - self.log_prob_z(z)

    def log_prob_absent_given(self, z: Tensor) -> Tensor:
        return math.log1p(-self.share) + gaussian(z, self.absent, 1.0) - self.log_prob_z(z)

    def knowledge(self) -> Knowledge:
        """The knowledge type that holds this world's five distributions, in float64."""
        knowledge = Knowledge((1,), ConditionalGaussian((1,), 1, mean_bound=UNBOUNDED), 1, logit_bound=UNBOUNDED)
        knowledge.characteristics_encoder = ConditionalGaussian((1,), 1, mean_bound=UNBOUNDED)
        for regressed in (knowledge.latent, knowledge.characteristics_encoder):
            regressed.log_scale_bound = UNBOUNDED
        knowledge.double()
        lean = self.present - self.absent
        odds = math.log(self.share / (1 - self.share)) if self.share < 1 else 40.0
        knowledge.discriminator = linear([lean], [odds - 0.5 * (self.present**2 - self.absent**2)])
        # of the standardised C, (C - centre) / spread, which is what both regressors see
        gain = self.slope * self.spread
        knowledge.characteristics_encoder.regressor = linear(
            [gain, 0.0], [-gain * self.present, math.log(self.residue)]
        )
        knowledge.latent.regressor = linear([gain, 0.0], [self.present, math.log(self.residue)])
        knowledge.characteristics_prior.mean_.fill_(self.centre)
        knowledge.characteristics_prior.scale.fill_(self.spread)
        knowledge.log_odds.fill_(odds)
        return knowledge

    def model(self, perturb: Callable[[Knowledge], None] = lambda knowledge: None) -> TzK:
        """A model of this world with one knowledge type, "it", which `perturb` may then make wrong."""
        base = Mixture(self) if self.share < 1 else StandardGaussian((1,))
        knowledge = self.knowledge()
        with torch.no_grad():
            perturb(knowledge)
        transform = CompositeTransform([Affine((1,)).double(), Arcsinh()])  # the affine map starts as the identity
        return TzK(SharedFlow((1,), transform, base), {"it": knowledge})


def linear(weight: list[float], bias: list[float]) -> nn.Linear:
    """The exact regressor of these worlds, of one input, in float64."""
    layer = nn.Linear(1, len(weight), dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weight, dtype=torch.float64)[:, None])
        layer.bias.copy_(torch.tensor(bias, dtype=torch.float64))
    return layer
