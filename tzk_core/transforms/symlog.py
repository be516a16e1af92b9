"""SymLog, the paper's invertible activation (Section 3, Fig. 2)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tzk_core.transforms.layer import Layer, leading


class _SymLog(torch.autograd.Function):
    """Output and log-determinant, over the last `dims` dimensions, together: backward needs the output only, since
    dy/dx = exp(-|y|)."""

    @staticmethod
    def forward(inputs: Tensor, dims: int) -> tuple[Tensor, Tensor]:
        magnitude = inputs.abs().log1p_()
        logabsdet = -magnitude.flatten(-dims).sum(-1)
        return magnitude.copysign_(inputs), logabsdet

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, int], output: tuple[Tensor, Tensor]) -> None:
        ctx.save_for_backward(output[0])

    @staticmethod
    def backward(ctx: Any, grad_outputs: Tensor, grad_logabsdet: Tensor) -> tuple[Tensor, None]:
        (outputs,) = ctx.saved_tensors
        per_sample = grad_logabsdet.view(*grad_logabsdet.shape, *[1] * (outputs.dim() - grad_logabsdet.dim()))
        towards = torch.addcmul(grad_outputs, per_sample, outputs.sign(), value=-1)
        return towards * outputs.abs().neg_().exp_(), None

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], inputs: Tensor, dims: int
    ) -> tuple[tuple[Tensor, Tensor], tuple[int, int]]:
        return _SymLog.apply(*leading(info, in_dims, (inputs,)), dims), (0, 0)


class SymLog(Layer):
    """y = sign(x) log(|x| + 1), element by element; log|det| = -Σ log(|x| + 1) = -Σ |y|.

    Its inverse grows exponentially, and several in a row explode for latents that no training point was near. Beyond
    |y| = `bound` it stays where it is there, so that samples are finite: at 80, |x| is 6e34, at 30 it is 1e13.
    """

    def __init__(self, shape: tuple[int, ...], bound: float = 80.0) -> None:
        super().__init__()
        self.output_shape = tuple(shape)
        self.bound = bound

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if not torch.compiler.is_compiling():
            return _SymLog.apply(inputs, len(self.output_shape))
        # the compiler fuses backward by itself; a sign of 1 at zero, so that the derivative there is 1
        sign = torch.where(inputs < 0, -1.0, 1.0).to(inputs.dtype)
        magnitude = torch.log1p(sign * inputs)
        return sign * magnitude, -magnitude.flatten(-len(self.output_shape)).sum(-1)

    def inverse(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        magnitude = inputs.abs().clamp_max(self.bound)
        return torch.copysign(torch.expm1(magnitude), inputs), magnitude.flatten(1).sum(1)
