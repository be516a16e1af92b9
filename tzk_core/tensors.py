"""The type and device of a module, and whether `torch.func.vmap` maps a tensor."""

from __future__ import annotations

import itertools
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn


def like_of(*modules: nn.Module) -> Tensor:
    """A tensor of the type and device of the first module that has tensors.

    Parameters come before buffers. Where no module has any, it is float32 on the CPU.
    """
    tensors = itertools.chain.from_iterable((module.parameters(), module.buffers()) for module in modules)
    floating = (tensor for tensor in itertools.chain.from_iterable(tensors) if tensor.is_floating_point())
    return next(floating, torch.zeros(()))


def mapped() -> bool:
    """Whether this is called within `torch.func.vmap`, where no value of a tensor can decide anything."""
    levels = torch._C._functorch.get_interpreter_stack() or ()
    return any(level.key() == torch._C._functorch.TransformType.Vmap for level in levels)


def only_mapped() -> bool:
    """Whether of `torch.func` nothing but `vmap` is at work, if that."""
    levels = torch._C._functorch.get_interpreter_stack() or ()
    return all(level.key() == torch._C._functorch.TransformType.Vmap for level in levels)


def unmapped() -> AbstractContextManager[None]:
    """Within it tensors are made as outside of `torch.func.vmap`, which refuses to draw noise."""
    context: AbstractContextManager[None] = torch._C._DisableFuncTorch() if mapped() else nullcontext()
    return context
