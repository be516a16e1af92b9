"""Knowledge types whose densities are Gaussian, so that their products have closed forms."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import get_args

import torch
from nflows.transforms import CompositeTransform
from torch import Tensor, nn
from worlds import UNBOUNDED, Arcsinh, linear

from tzk_core.distributions.base import Reparametrised
from tzk_core.distributions.conditional import ConditionalGaussian
from tzk_core.distributions.standard import StandardGaussian
from tzk_core.knowledge import Knowledge
from tzk_core.model import SharedFlow, TzK
from tzk_core.model.composition import Composition, Side
from tzk_core.model.smc import Population


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
