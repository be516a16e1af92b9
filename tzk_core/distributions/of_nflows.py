"""Base densities of nflows as those of this package.

They sample by a function of noise.
"""

from __future__ import annotations

import math

import torch
from nflows.distributions.base import Distribution
from nflows.distributions.normal import DiagonalNormal, StandardNormal
from torch import Tensor, nn

from tzk_core.distributions.base import Reparametrised
from tzk_core.distributions.standard import LOG_2PI, StandardGaussian
from tzk_core.errors import TzkError


class LearnedGaussian(Reparametrised):
    """N(μ, diag σ²) with μ and log σ as parameters, those of an nflows `DiagonalNormal`."""

    def __init__(self, normal: DiagonalNormal) -> None:
        super().__init__(tuple(normal._shape))
        self.mean_: nn.Parameter = normal.mean_
        self.log_std_: nn.Parameter = normal.log_std_

    def _log_prob(self, inputs: Tensor, context: Tensor | None) -> Tensor:
        standard = (inputs.flatten(1) - self.mean_) * torch.exp(-self.log_std_)
        return -0.5 * (standard.square().sum(1) + math.prod(self.shape) * LOG_2PI) - self.log_std_.sum()

    def from_noise(self, noise: Tensor, context: Tensor | None = None) -> Tensor:
        return (self.mean_ + self.log_std_.exp() * noise.flatten(1)).view(noise.shape)


def reparametrised(base: Distribution) -> Reparametrised:
    """The same density as a `Reparametrised`, with the parameters themselves.

    Raises:
        TzkError: unless it is one, or a `StandardNormal` or `DiagonalNormal` of nflows.
    """
    if isinstance(base, Reparametrised):
        return base
    if type(base) is StandardNormal:
        return StandardGaussian(tuple(base._shape))
    if type(base) is DiagonalNormal:
        return LearnedGaussian(base)
    raise TzkError(
        "the base of a flow is expected as nflows' StandardNormal or DiagonalNormal, or as a "
        f"tzk_core.distributions.base.Reparametrised; got {type(base).__name__}"
    )
