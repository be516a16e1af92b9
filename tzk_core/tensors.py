"""The floating-point type and the device of a module, as an example tensor."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn


def like_of(*modules: nn.Module) -> Tensor:
    """A tensor of the type and device of the first module that has tensors.

    Parameters come before buffers. Where no module has any, it is float32 on the CPU.
    """
    tensors = itertools.chain.from_iterable((module.parameters(), module.buffers()) for module in modules)
    floating = (tensor for tensor in itertools.chain.from_iterable(tensors) if tensor.is_floating_point())
    return next(floating, torch.zeros(()))
