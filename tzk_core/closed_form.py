"""Functions whose gradient is written by hand: where they are used, and their second derivatives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tzk_core.tensors import only_mapped


def usable(inputs: Tensor) -> bool:
    """Whether the core's own functions take these inputs.

    They do so on a CPU, in their own precision, and with no other of torch's transforms than `vmap`. Elsewhere, and for
    the compiler, there are layers of torch's operations.
    """
    here = inputs.device.type == "cpu" and not torch.compiler.is_compiling()
    return here and not torch.is_autocast_enabled("cpu") and only_mapped()


def hooked(*modules: nn.Module) -> bool:
    """Whether some module has hooks, for which it has to be called itself."""
    return any(
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
        for module in modules
    )


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
