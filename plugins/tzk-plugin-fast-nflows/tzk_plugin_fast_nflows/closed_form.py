"""Gradients in closed form: when they apply."""

from __future__ import annotations

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
