"""Modes that end with a block: training, evaluation, and denormal numbers as zero.

Training mode is on within a step, evaluation mode elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from nflows.transforms.linear import Linear
from torch import nn


@contextmanager
def training(module: nn.Module) -> Iterator[None]:
    """Put the module into training mode within the block, and into evaluation mode after it.

    That holds whatever is raised.
    """
    module.train()
    try:
        yield
    finally:
        module.eval()


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put the module into evaluation mode within the block.

    Afterwards each of its modules is in its former mode.
    """
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


def without_caches(module: nn.Module) -> None:
    """Turns off the caches of nflows' linear layers (`using_cache`), here and in all within.

    A cached weight outlives the parameters that it was made of: it is stale once weights are loaded, and is of one
    floating-point type whatever is computed in. Without it the values are the same.
    """
    for part in module.modules():
        if isinstance(part, Linear):
            part.use_cache(mode=False)
            part.cache.invalidate()


@contextmanager
def flushing_denormals() -> Iterator[None]:
    """Within the block denormal numbers are zero in this thread.

    Afterwards they are what they were before.

    A step takes ten times as long once numbers become denormal.
    """
    before = flushes_denormals()
    torch.set_flush_denormal(True)  # noqa: FBT003 -- torch takes it by position
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


def flushes_denormals() -> bool:
    """Whether denormal numbers are zero in this thread."""
    return math.ulp(0.0) == 0.0
