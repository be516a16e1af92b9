"""The first layer of flows of real-valued data.

It maps onto the real line, then to mean 0 and deviation 1.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from tzk_core.domain import REAL, Domain, intervals
from tzk_core.errors import TzkError
from tzk_core.transforms.layer import Layer


class Standardise(Layer):
    """y = (u(x) - mean) / deviation, element by element.

    u is x on the real line, log(x - low) on (low, inf), -log(high - x) on (-inf, high), and
    log((x - low) / (high - x)) on (low, high). Mean and deviation are buffers that `initialise` sets from training
    data. They belong to the model and its log-determinant counts them, so that densities are in the unit of the data.

    Args:
        shape: of one sample.
        domain: the interval of all dimensions, or a list with one a dimension (`tzk_core.domain`).

    Raises:
        TzkError: for a domain that cannot be read.
    """

    elementwise = True
    mean: Tensor
    log_deviation: Tensor
    initialised: Tensor

    def __init__(self, shape: tuple[int, ...], domain: Domain = REAL) -> None:
        super().__init__()
        self.output_shape = tuple(shape)
        ends = torch.tensor(intervals(domain, math.prod(shape)), dtype=torch.float64)
        low, high = (end.reshape(self.output_shape) for end in ends.unbind(1))
        self._bounded = bool(ends.isfinite().any())
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("log_deviation", torch.zeros(shape))
        self.register_buffer("initialised", torch.zeros((), dtype=torch.bool))
        # They follow from the arguments, so that checkpoints need not have them; where there is no end it is 0.
        self.register_buffer("_has_low", low.isfinite(), persistent=False)
        self.register_buffer("_has_high", high.isfinite(), persistent=False)
        self.register_buffer("_low", low.where(low.isfinite(), 0.0).float(), persistent=False)
        self.register_buffer("_high", high.where(high.isfinite(), 0.0).float(), persistent=False)
        width = (high - low).where(low.isfinite() & high.isfinite(), 1.0)
        self.register_buffer("_width", width.float(), persistent=False)

    @torch.no_grad()
    def initialise(self, inputs: Tensor) -> None:
        """Set mean and deviation from `inputs`, (batch, *shape), unless that was done before.

        A dimension that is constant in `inputs` is centred and keeps its scale.

        Raises:
            TzkError: for values outside the domain.
        """
        if self.initialised:
            return
        u = self._onto_reals(inputs.double())[0]
        if not u.isfinite().all():
            row, dim = (int(index) for index in (~u.flatten(1).isfinite()).nonzero()[0])
            value = inputs.flatten(1)[row, dim].item()
            raise TzkError(f"dimension {dim} has the value {value:g}, which is outside its domain, {self._text(dim)}")
        deviation = u.std(0, unbiased=False)
        constant = deviation <= 1e-7 * u.abs().amax(0).clamp_min(1e-30)
        self.mean.copy_(u.mean(0))
        self.log_deviation.copy_(torch.where(constant, 1.0, deviation).log())
        self.initialised.fill_(1)

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        u, slope = self._onto_reals(inputs)
        outputs = (u - self.mean) * torch.exp(-self.log_deviation)
        scale = -self.log_deviation.sum().expand(inputs.shape[0])
        return outputs, scale if slope is None else scale + slope.flatten(1).sum(1)

    def inverse(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        u = torch.addcmul(self.mean, inputs, self.log_deviation.exp())
        scale = self.log_deviation.sum().expand(inputs.shape[0])
        if not self._bounded:
            return u, scale
        has_low, has_high = self._has_low, self._has_high
        both, low_alone, high_alone = has_low & has_high, has_low & ~has_high, has_high & ~has_low
        # exp of an u that is not used could be infinite, and its gradient nan.
        rising = torch.where(low_alone, u, 0.0)
        falling = torch.where(high_alone, -u, 0.0)
        outputs = torch.where(both, self._low + self._width * torch.sigmoid(u), u)
        outputs = torch.where(low_alone, self._low + rising.exp(), outputs)
        outputs = torch.where(high_alone, self._high - falling.exp(), outputs)
        logistic = self._width.log() - functional.softplus(u) - functional.softplus(-u)
        slope = torch.where(both, logistic, 0.0) + rising + falling
        return outputs, scale + slope.flatten(1).sum(1)

    def _onto_reals(self, inputs: Tensor) -> tuple[Tensor, Tensor | None]:
        """u(x), and log du/dx element by element; None where u is x everywhere."""
        if not self._bounded:
            return inputs, None
        log_below = torch.where(self._has_low, inputs - self._low.to(inputs), 1.0).log()
        log_above = torch.where(self._has_high, self._high.to(inputs) - inputs, 1.0).log()
        u = torch.where(self._has_low | self._has_high, log_below - log_above, inputs)
        return u, self._width.log().to(inputs) - log_below - log_above

    def _text(self, dim: int) -> str:
        domain = self.arguments.get("domain", REAL)
        return domain if isinstance(domain, str) else domain[dim]
