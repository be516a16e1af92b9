"""Gradients in closed form: when they apply, and their second derivatives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad


def applies(*tensors: Tensor) -> bool:
    """Whether torch differentiates in reverse alone, in single or double precision.

    All tensors have to be of one type.
    """
    first = tensors[0]
    if torch._C._functorch.peek_interpreter_stack() is not None or forward_ad._current_level >= 0:
        return False
    if torch.is_autocast_enabled(first.device.type) or first.dtype not in (torch.float32, torch.float64):
        return False
    return all(tensor.dtype == first.dtype for tensor in tensors)


def differentiable(
    function: Callable[..., Any], inputs: Sequence[Tensor], grad_outputs: Tensor | tuple[Tensor, ...]
) -> tuple[Tensor | None, ...]:
    """The gradients of a function by torch itself, which can be differentiated again.

    A backward in closed form calls it where gradients are enabled, as in `create_graph=True`.

    Args:
        function: of `inputs`, of torch's own operations.

    Returns:
        One for every input; None where it needs no gradient.
    """
    asked = [value for value in inputs if value.requires_grad]
    found = iter(torch.autograd.grad(function(*inputs), asked, grad_outputs, create_graph=True, allow_unused=True))
    return tuple(next(found) if value.requires_grad else None for value in inputs)
