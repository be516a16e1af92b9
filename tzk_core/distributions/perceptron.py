"""Linear layers with PReLU between them as one function, with a backward by hand.

It may be that of many networks at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from tzk_core.closed_form import differentiable
from tzk_core.transforms.layer import leading

PERIOD = 3
"""Parameters of a layer: weight, bias and the slope of its PReLU, which the last layer has not."""


def perceptron(inputs: Tensor, parameters: Sequence[Tensor]) -> Tensor:
    """(…, inputs) to (…, outputs).

    Args:
        parameters: weight, bias and slope of each layer, in order.
    """
    outputs: Tensor = _Perceptron.apply(inputs, *parameters)[0]
    return outputs


class _Perceptron(torch.autograd.Function):
    """Outputs; what else it returns is for backward.

    Parameters are those of one network, or of k, (k, ...). Of k networks inputs are (k, n, inputs), or (n, inputs) for
    all of them.
    """

    @staticmethod
    def forward(inputs: Tensor, *parameters: Tensor) -> tuple[Tensor, ...]:
        values, kept = inputs, []
        for weight, bias, *slope in _layers(parameters):
            values = _linear(values, weight, bias)
            if slope:
                kept.append(values)
                values = torch.ops.aten._prelu_kernel(values, _as_factor(slope[0], values))
                kept.append(values)
        return values, *kept

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
        ctx.mark_non_differentiable(*output[1:])
        ctx.set_materialize_grads(False)
        ctx.given = len(inputs)
        ctx.save_for_backward(*inputs, *output[1:])

    @staticmethod
    def backward(ctx: Any, grad: Any, *_: None) -> tuple[Tensor | None, ...]:
        inputs, kept = ctx.saved_tensors[: ctx.given], list(ctx.saved_tensors[ctx.given :])
        if grad is None:
            return (None,) * ctx.given
        if torch.is_grad_enabled():  # as in create_graph=True
            return differentiable(lambda *values: _Perceptron.forward(*values)[0], inputs, grad)
        found: list[Tensor | None] = []
        for weight, _bias, *slope in reversed(_layers(inputs[1:])):
            of_slope = []
            if slope:
                kept.pop()
                grad, by_element = torch.ops.aten._prelu_kernel_backward(grad, kept.pop(), _as_factor(slope[0], grad))
                of_slope = [by_element.flatten(weight.dim() - 2).sum(-1).view(slope[0].shape)]
            values = kept[-1] if kept else inputs[0]
            needed = bool(kept) or ctx.needs_input_grad[0]
            grad, *of_linear = _linear_gradients(grad, values, weight, needed=needed)
            found = [*of_linear, *of_slope, *found]
        return grad, *found

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], inputs: Tensor, *parameters: Tensor) -> tuple[Any, Any]:
        first, *own = in_dims
        size = info.batch_size
        if parameters[0].dim() - (own[0] is not None) > 2:  # mapped within mapped
            columns = [(inputs, first), *zip(parameters, own, strict=True)]
            outputs = _one_by_one(
                [[value if dim is None else value.select(dim, i) for value, dim in columns] for i in range(size)]
            )
        elif first is not None and all(dim is None for dim in own):  # one network, at more inputs
            outputs = _Perceptron.apply(inputs.movedim(first, 0), *parameters)
        else:
            values = inputs if first is None else inputs.movedim(first, 0)
            between = values.shape[first is not None : -1]
            flat = values.flatten(0, -2) if first is None else values.reshape(size, -1, values.shape[-1])
            outputs = _Perceptron.apply(flat, *leading(info, tuple(own), parameters))
            outputs = tuple(value.reshape(size, *between, value.shape[-1]) for value in outputs)
        return outputs, (0,) * len(outputs)


def _one_by_one(rows: Sequence[Sequence[Tensor]]) -> tuple[Tensor, ...]:
    return tuple(torch.stack(column) for column in zip(*(_Perceptron.apply(*row) for row in rows), strict=True))


def _layers(parameters: Sequence[Tensor]) -> list[Sequence[Tensor]]:
    """Weight, bias and slope of each layer; the last has no slope."""
    return [parameters[start : start + PERIOD] for start in range(0, len(parameters), PERIOD)]


def _linear(values: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """One layer, (…, n, outputs); of several networks with their dimension in front."""
    if weight.dim() == 2:
        return functional.linear(values, weight, bias)
    if values.dim() == 3:
        return torch.baddbmm(bias.unsqueeze(1), values, weight.mT)
    joined = functional.linear(values, weight.flatten(0, 1), bias.flatten())
    return joined.view(len(values), *bias.shape).movedim(1, 0)


def _linear_gradients(
    grad: Tensor, values: Tensor, weight: Tensor, *, needed: bool
) -> tuple[Tensor | None, Tensor, Tensor]:
    """The gradients of `_linear` in its values, weight and bias.

    That of the values is None unless it is needed.
    """
    if weight.dim() == 2:
        rows, values = grad.reshape(-1, grad.shape[-1]), values.reshape(-1, values.shape[-1])
        return grad @ weight if needed else None, rows.mT @ values, rows.sum(0)
    if values.dim() == 3:
        return grad @ weight if needed else None, grad.mT @ values, grad.sum(1)
    rows = grad.movedim(0, 1).flatten(1)
    of_weight = (rows.mT @ values).view(weight.shape)
    return rows @ weight.flatten(0, 1) if needed else None, of_weight, grad.sum(1)


def _as_factor(slope: Tensor, values: Tensor) -> Tensor:
    """The slope of PReLU to multiply values with: of each network its own."""
    return slope if slope.dim() == 1 else slope.view(-1, *[1] * (values.dim() - 1))
