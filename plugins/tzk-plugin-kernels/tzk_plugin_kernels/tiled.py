"""The operator of the tiled convolution with affine map and SymLog as its end.

Backward needs its inputs, which are outputs of the layer before, and its outputs; the product between is not stored.
Shapes are those of `tiled_torch`.
"""

# ruff: noqa: PLR0917 - an operator's schema is its signature, and torch calls it by position.

from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from tzk_plugin_kernels import tiled_torch as plain
from tzk_plugin_kernels.affine_symlog import affine_symlog_backward
from tzk_plugin_kernels.choice import in_triton
from tzk_plugin_kernels.folding import folded, unfolded


def _on_cuda(rows: Tensor) -> ModuleType:
    """Triton for full float32; cuBLAS for float64, half precision, and TF32 where allowed."""
    if rows.dtype != torch.float32 or torch.get_float32_matmul_precision() != "highest" or not in_triton():
        return plain
    from tzk_plugin_kernels import tiled_triton  # on first use on a CUDA tensor

    return tiled_triton if rows.shape[1] <= tiled_triton.MOST_ROWS else plain


@torch.library.custom_op("tzk::tiled_affine_symlog", mutates_args=())
def tiled_affine_symlog(
    rows: Tensor, weight: Tensor, raw_log_scale: Tensor, shift: Tensor, bound: float, knee: float
) -> tuple[Tensor, Tensor]:
    return plain.forward(rows, weight, raw_log_scale, shift, bound, knee)


@tiled_affine_symlog.register_kernel("cuda")
def _cuda(rows: Tensor, *parameters: Any) -> tuple[Tensor, Tensor]:
    return _on_cuda(rows).forward(rows, *parameters)


@tiled_affine_symlog.register_fake
def _fake(rows: Tensor, weight: Tensor, raw_log_scale: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return rows.new_empty(rows.shape), rows.new_empty(rows.shape[0], rows.shape[1] // raw_log_scale.shape[1])


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    rows, weight, raw_log_scale, shift, *ctx.constants = inputs
    ctx.save_for_backward(rows, weight, raw_log_scale, shift, output[0])


def _differentiate(ctx: Any, grad_y: Tensor, grad_logabsdet: Tensor) -> tuple[Any, ...]:
    rows, weight, raw_log_scale, shift, y = ctx.saved_tensors
    grad_y, y = plain.by_sample(grad_y, shift), plain.by_sample(y, shift)
    grad, grads = affine_symlog_backward(
        grad_y, grad_logabsdet, y, raw_log_scale.flatten(1), shift.flatten(1), *ctx.constants
    )
    grad = grad.view(rows.shape)
    grads = grads.view(2, *shift.shape)
    return grad @ weight, grad.mT @ rows, grads[0], grads[1], *[None] * len(ctx.constants)


tiled_affine_symlog.register_autograd(_differentiate, setup_context=_save)


@tiled_affine_symlog.register_vmap
def _mapped(
    info: Any, in_dims: tuple[int | None, ...], *arguments: Any
) -> tuple[tuple[Tensor, Tensor], tuple[int, int]]:
    y, logabsdet = tiled_affine_symlog(*folded(info, in_dims[:4], arguments[:4]), *arguments[4:])
    return (unfolded(y, info, 0), unfolded(logabsdet, info, 0)), (0, 0)
