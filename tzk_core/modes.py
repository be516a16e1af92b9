"""Training mode within a step; a model is in evaluation mode at all other times."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

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
