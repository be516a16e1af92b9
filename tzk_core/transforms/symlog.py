"""SymLog, the paper's invertible activation (Section 3, Fig. 2)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tzk_core.transforms.layer import Layer


class _SymLog(torch.autograd.Function):
    """Output and log-determinant together: backward needs the output only, since dy/dx = exp(-|y|)."""

    generate_vmap_rule = True

    @staticmethod
    def forward(inputs: Tensor) -> tuple[Tensor, Tensor]:
        magnitude = inputs.abs().log1p_()
        logabsdet = -magnitude.flatten(1).sum(1)
        return torch.copysign(magnitude, inputs), logabsdet

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: tuple[Tensor, Tensor]) -> None:
        ctx.save_for_backward(output[0])

    @staticmethod
    def backward(ctx: Any, grad_outputs: Tensor, grad_logabsdet: Tensor) -> Tensor:
        (outputs,) = ctx.saved_tensors
        per_sample = grad_logabsdet.view(-1, *[1] * (outputs.dim() - 1))
        towards = torch.addcmul(grad_outputs, per_sample, outputs.sign(), value=-1)
        return towards * outputs.abs().neg_().exp_()


class SymLog(Layer):
    """y = sign(x) log(|x| + 1), element by element; log|det| = -Σ log(|x| + 1) = -Σ |y|.

    Its inverse grows exponentially. On a latent of a few dimensions several in a row explode when sampled; on a
    wide one the mixing between them dilutes outliers.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.output_shape = tuple(shape)

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return _SymLog.apply(inputs)

    def inverse(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        magnitude = inputs.abs()
        return torch.copysign(torch.expm1(magnitude), inputs), magnitude.flatten(1).sum(1)
