"""The operators of the map of a mixture-of-logistics coupling: forward, backward and inverse.

Backward needs the inputs only, the numbers and their parameters, which are stored anyway; no tensor of all logistics
is. Shapes are those of `mixture_torch`.
"""

# ruff: noqa: PLR0917 - an operator's schema is its signature, and torch calls it by position.

from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from tzk_plugin_glow.mixture import FLAT

from tzk_core.transforms.bounds import soft_bound
from tzk_plugin_kernels import mixture_torch as plain
from tzk_plugin_kernels.choice import in_triton
from tzk_plugin_kernels.folding import folded, unfolded


def _on_cuda() -> ModuleType:
    if not in_triton():
        return plain
    from tzk_plugin_kernels import mixture_triton  # on first use on a CUDA tensor

    return mixture_triton


@torch.library.custom_op("tzk::mixture", mutates_args=())
def mixture(x: Tensor, parameters: Tensor, bound: float) -> tuple[Tensor, Tensor]:
    return plain.forward(x, parameters, bound)


@torch.library.custom_op("tzk::mixture_backward", mutates_args=())
def mixture_backward(
    grad_y: Tensor, grad_log_slope: Tensor, x: Tensor, parameters: Tensor, bound: float
) -> tuple[Tensor, Tensor]:
    return plain.backward(grad_y, grad_log_slope, x, parameters, bound)


@torch.library.custom_op("tzk::mixture_inverse", mutates_args=())
def mixture_inverse(y: Tensor, parameters: Tensor, bound: float) -> tuple[Tensor, Tensor]:
    return plain.inverse(y, parameters, bound)


mixture.register_kernel("cuda", lambda *inputs: _on_cuda().forward(*inputs))
mixture_backward.register_kernel("cuda", lambda *inputs: _on_cuda().backward(*inputs))
mixture_inverse.register_kernel("cuda", lambda *inputs: _on_cuda().inverse(*inputs))


def _mapped(values: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return values.new_empty(values.shape), values.new_empty(values.shape)


mixture.register_fake(_mapped)
mixture_inverse.register_fake(_mapped)


@mixture_backward.register_fake
def _gradients(
    grad_y: Tensor, grad_slope: Tensor, x: Tensor, parameters: Tensor, bound: float
) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), parameters.new_empty(parameters.shape)


def _save_inputs(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, parameters, ctx.bound = inputs
    ctx.save_for_backward(x, parameters)


def _differentiate(ctx: Any, grad_y: Tensor, grad_log_slope: Tensor) -> tuple[Any, ...]:
    return *mixture_backward(grad_y, grad_log_slope, *ctx.saved_tensors, ctx.bound), None


def _save_outputs(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    _, parameters, ctx.bound = inputs
    ctx.save_for_backward(*output, parameters)


def _differentiate_inverse(ctx: Any, grad_x: Tensor, grad_log_slope: Tensor) -> tuple[Any, ...]:
    """Differentiate the implicit function: x is where the map has y.

    log dx/dy is minus log dy/dx there. Where F is all but flat, the slope is bounded by `FLAT`, as in the definition.
    """
    x, log_slope, parameters = ctx.saved_tensors
    through_slope, _ = mixture_backward(torch.zeros_like(grad_x), -grad_log_slope, x, parameters, ctx.bound)
    log_scale = soft_bound(parameters[:, -2], ctx.bound / 2)
    grad_y = (grad_x + through_slope) * torch.exp(-torch.maximum(-log_slope, FLAT + log_scale))
    _, grad_parameters = mixture_backward(-grad_y, -grad_log_slope, x, parameters, ctx.bound)
    return grad_y, grad_parameters, None


mixture.register_autograd(_differentiate, setup_context=_save_inputs)
mixture_inverse.register_autograd(_differentiate_inverse, setup_context=_save_outputs)


def _mapped_over(operator: Any, tensors: int) -> Any:
    """The `vmap` rule of an operator: the mapped dimension joins the batch.

    Args:
        tensors: how many of the first arguments are tensors.
    """

    def rule(
        info: Any, in_dims: tuple[int | None, ...], *arguments: Any
    ) -> tuple[tuple[Tensor, Tensor], tuple[int, int]]:
        first, second = operator(*folded(info, in_dims[:tensors], arguments[:tensors]), *arguments[tensors:])
        return (unfolded(first, info, 0), unfolded(second, info, 0)), (0, 0)

    return rule


for operator, tensors in ((mixture, 2), (mixture_inverse, 2), (mixture_backward, 4)):
    operator.register_vmap(_mapped_over(operator, tensors))
