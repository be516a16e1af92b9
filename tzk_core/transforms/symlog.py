"""SymLog, the paper's invertible non-linearity (Section 3, Fig. 2), linear beyond a knee."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from tzk_core.errors import TzkError
from tzk_core.transforms.layer import Layer, leading


class _SymLog(torch.autograd.Function):
    """`squashed`. Backward needs the output only, which the next layer keeps as well."""

    @staticmethod
    def forward(inputs: Tensor, dims: int, knee: float) -> tuple[Tensor, Tensor]:
        return squashed(inputs, dims, knee)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, int, float], output: tuple[Tensor, Tensor]) -> None:
        ctx.save_for_backward(output[0])
        ctx.limit = math.log1p(inputs[2])

    @staticmethod
    def backward(ctx: Any, grad_outputs: Tensor, grad_logabsdet: Tensor) -> tuple[Tensor, None, None]:
        (outputs,) = ctx.saved_tensors
        grad, magnitude = _before_slope(grad_outputs, grad_logabsdet, at=outputs, end=ctx.limit)
        return grad * magnitude.neg_().exp_(), None, None  # dy/dx = exp(-min(|y|, limit))

    @staticmethod
    def vmap(  # noqa: PLR0917  torch calls it by position
        info: Any, in_dims: tuple[int | None, ...], inputs: Tensor, dims: int, knee: float
    ) -> tuple[tuple[Tensor, Tensor], tuple[int, int]]:
        return _SymLog.apply(*leading(info, in_dims, (inputs,)), dims, knee), (0, 0)


def squashed(inputs: Tensor, dims: int, knee: float) -> tuple[Tensor, Tensor]:
    """SymLog of values, and its log-determinant over their last `dims` dimensions.

    Args:
        knee: infinite for none.
    """
    inside = inputs if knee == math.inf else inputs.clamp(-knee, knee)
    log_slope = inside.abs().log1p_()
    logabsdet = -log_slope.flatten(-dims).sum(-1)
    outputs = log_slope.copysign_(inputs)
    if knee != math.inf:  # not in place: second derivatives need what is added to
        outputs = torch.add(outputs, torch.nn.functional.softshrink(inputs, knee), alpha=1 / (1 + knee))
    return outputs, logabsdet


def squashed_gradient(grad_outputs: Tensor, grad_logabsdet: Tensor, *, inputs: Tensor, knee: float) -> Tensor:
    """The gradient of `squashed` from its inputs: dy/dx = 1 / (1 + min(|x|, knee))."""
    grad, magnitude = _before_slope(grad_outputs, grad_logabsdet, at=inputs, end=knee)
    return grad.div_(magnitude.add_(1))


def _before_slope(grad_outputs: Tensor, grad_logabsdet: Tensor, *, at: Tensor, end: float) -> tuple[Tensor, Tensor]:
    """The gradient over dy/dx, and |x| or |y| up to the knee.

    Args:
        at: x or y. end: the knee there, infinite for none.
    """
    per_sample = grad_logabsdet.view(*grad_logabsdet.shape, *[1] * (at.dim() - grad_logabsdet.dim()))
    sign, magnitude = at.sign(), at.abs()
    if end != math.inf:
        # beyond the knee the slope is constant; on a CPU a masked fill takes 20 times as long
        sign = torch.ops.aten.hardtanh_backward(sign, at, -end, end)
        magnitude.clamp_max_(end)
    return torch.addcmul(grad_outputs, per_sample, sign, value=-1), magnitude


class SymLog(Layer):
    """y = sign(x) log(1 + |x|), element by element; beyond |x| = `knee` linear.

    With L = log(1 + knee), |y| = L + (|x| - knee) / (1 + knee) for |x| > knee, and log|det| = -Σ min(log(1 + |x|), L).
    The derivative is continuous, and that of the inverse at most 1 + knee.

    Without a knee (knee = 0) the inverse grows exponentially. Several in sequence explode for latents far from all
    training data. Beyond |y| = `bound` the inverse is then constant, so that samples are finite: at 80, |x| is 6e34, at
    30 it is 1e13.

    Raises:
        TzkError: if `knee` is negative or not finite.
    """

    state_version = 2

    @staticmethod
    def upgrade(state: dict[str, Tensor], version: int) -> dict[str, Tensor]:
        """Upgrade the state dict of an older `state_version`: there are no tensors in it."""
        return state

    @staticmethod
    def upgrade_arguments(arguments: dict[str, Any], version: int) -> dict[str, Any]:
        """Upgrade arguments of an older `state_version`: before the second there was no knee."""
        return {"knee": 0.0, **arguments} if version < 2 else arguments

    def __init__(self, shape: tuple[int, ...], bound: float = 80.0, knee: float = 0.0) -> None:
        super().__init__()
        if not 0 <= knee < math.inf:
            raise TzkError(f"symlog expects a finite knee above 0, or 0 for none; got {knee}")
        self.output_shape = tuple(shape)
        self.bound, self.knee = bound, knee
        self.limit = math.log1p(knee) if knee else math.inf

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if not torch.compiler.is_compiling():
            return _SymLog.apply(inputs, len(self.output_shape), self.knee or math.inf)
        # the compiler fuses backward by itself; a sign of 1 at zero, so that the derivative there is 1
        sign = torch.where(inputs < 0, -1.0, 1.0).to(inputs.dtype)
        if self.knee:
            magnitude, log_slope = _kneed(sign * inputs, self.limit)
        else:
            magnitude = log_slope = torch.log1p(sign * inputs)
        return sign * magnitude, -log_slope.flatten(-len(self.output_shape)).sum(-1)

    def inverse(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        magnitude = inputs.abs()
        inside = magnitude.clamp_max(self.limit if self.knee else self.bound)
        outputs = torch.expm1(inside)
        if self.knee:
            outputs = torch.addcmul(outputs, magnitude - inside, outputs.new_tensor(1 + self.knee))
        return torch.copysign(outputs, inputs), inside.flatten(1).sum(1)


def _kneed(magnitude: Tensor, limit: float) -> tuple[Tensor, Tensor]:
    """|y| and -log dy/dx at |x|; linear beyond log(1 + |x|) = `limit`."""
    knee = math.expm1(limit)
    inside = magnitude.clamp_max(knee)
    log_slope = inside.log1p()
    return torch.add(log_slope, magnitude - inside, alpha=1 / (1 + knee)), log_slope
