"""The operators of element-wise affine map, SymLog and log-determinant, and their gradients.

Backward of the forward map needs its outputs only, so that the inputs are not stored. Shapes are those of
`affine_symlog_torch`. Second derivatives are not defined.
"""

# ruff: noqa: PLR0917 - an operator's schema is its signature, and torch calls it by position.

from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from tzk_plugin_kernels import affine_symlog_torch as plain
from tzk_plugin_kernels.choice import in_triton
from tzk_plugin_kernels.folding import folded, unfolded


def _on_cuda() -> ModuleType:
    if not in_triton():
        return plain
    from tzk_plugin_kernels import affine_symlog_triton  # on first use on a CUDA tensor

    return affine_symlog_triton


@torch.library.custom_op("tzk::affine_symlog", mutates_args=())
def affine_symlog(x: Tensor, raw_log_scale: Tensor, shift: Tensor, bound: float, knee: float) -> tuple[Tensor, Tensor]:
    return plain.forward(x, raw_log_scale, shift, bound, knee)


@torch.library.custom_op("tzk::affine_symlog_backward", mutates_args=())
def affine_symlog_backward(
    grad_y: Tensor,
    grad_logabsdet: Tensor,
    y: Tensor,
    raw_log_scale: Tensor,
    shift: Tensor,
    bound: float,
    knee: float,
) -> tuple[Tensor, Tensor]:
    return plain.backward(grad_y, grad_logabsdet, y, raw_log_scale, shift, bound, knee)


@torch.library.custom_op("tzk::affine_symlog_inverse", mutates_args=())
def affine_symlog_inverse(
    y: Tensor, raw_log_scale: Tensor, shift: Tensor, bound: float, limit: float, knee: float
) -> tuple[Tensor, Tensor]:
    return plain.inverse(y, raw_log_scale, shift, bound, limit, knee)


@torch.library.custom_op("tzk::affine_symlog_inverse_backward", mutates_args=())
def affine_symlog_inverse_backward(
    grad_x: Tensor,
    grad_logabsdet: Tensor,
    y: Tensor,
    raw_log_scale: Tensor,
    shift: Tensor,
    bound: float,
    limit: float,
    knee: float,
) -> tuple[Tensor, Tensor]:
    return plain.inverse_backward(grad_x, grad_logabsdet, y, raw_log_scale, shift, bound, limit, knee)


affine_symlog.register_kernel("cuda", lambda *inputs: _on_cuda().forward(*inputs))
affine_symlog_backward.register_kernel("cuda", lambda *inputs: _on_cuda().backward(*inputs))
affine_symlog_inverse.register_kernel("cuda", lambda *inputs: _on_cuda().inverse(*inputs))
affine_symlog_inverse_backward.register_kernel("cuda", lambda *inputs: _on_cuda().inverse_backward(*inputs))


def _mapped(x: Tensor, raw_log_scale: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), x.new_empty(x.shape[:-1])


def _gradients(
    grad: Tensor, grad_logabsdet: Tensor, y: Tensor, raw_log_scale: Tensor, *_: Any
) -> tuple[Tensor, Tensor]:
    return y.new_empty(y.shape), raw_log_scale.new_empty(2, *raw_log_scale.shape)


for operator in (affine_symlog, affine_symlog_inverse):
    operator.register_fake(_mapped)
for operator in (affine_symlog_backward, affine_symlog_inverse_backward):
    operator.register_fake(_gradients)


def _save_output(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    _, raw_log_scale, shift, *ctx.constants = inputs
    ctx.save_for_backward(output[0], raw_log_scale, shift)


def _save_input(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    """Save the input of the inverse, which is the forward map's output."""
    y, raw_log_scale, shift, *ctx.constants = inputs
    ctx.save_for_backward(y, raw_log_scale, shift)


def _differentiated_by(operator: Any) -> Any:
    def differentiate(ctx: Any, grad_values: Tensor, grad_logabsdet: Tensor) -> tuple[Any, ...]:
        grad, grads = operator(grad_values, grad_logabsdet, *ctx.saved_tensors, *ctx.constants)
        return grad, grads[0], grads[1], *[None] * len(ctx.constants)

    return differentiate


affine_symlog.register_autograd(_differentiated_by(affine_symlog_backward), setup_context=_save_output)
affine_symlog_inverse.register_autograd(_differentiated_by(affine_symlog_inverse_backward), setup_context=_save_input)


def _mapped_over(operator: Any, tensors: int, groups_at: int) -> Any:
    """The `vmap` rule of an operator: the mapped dimension joins the groups.

    Args:
        tensors: how many of the first arguments are tensors.
        groups_at: the dimension of the groups in the second output.
    """

    def rule(
        info: Any, in_dims: tuple[int | None, ...], *arguments: Any
    ) -> tuple[tuple[Tensor, Tensor], tuple[int, int]]:
        first, second = operator(*folded(info, in_dims[:tensors], arguments[:tensors]), *arguments[tensors:])
        return (unfolded(first, info, 0), unfolded(second, info, groups_at)), (0, groups_at)

    return rule


for operator, tensors, groups_at in (
    (affine_symlog, 3, 0),
    (affine_symlog_inverse, 3, 0),
    (affine_symlog_backward, 5, 1),
    (affine_symlog_inverse_backward, 5, 1),
):
    operator.register_vmap(_mapped_over(operator, tensors, groups_at))
