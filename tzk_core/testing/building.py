"""Parts built as a config would build them, and copies away from their neutral start."""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from nflows.transforms.base import Transform
from torch import nn

from tzk_core.testing.expectations import expect, returning

Module = TypeVar("Module", bound=nn.Module)


def built(name: str, recipe: Callable[..., Any], shape: tuple[int, ...]) -> Transform:
    """The transform that a recipe returns, once its type and its dimensions are checked."""
    with returning(f"recipe {name} of {shape}"):
        transform = recipe(shape)
    expect(
        isinstance(transform, Transform),
        f"recipe {name}: should return an nflows Transform; got {type(transform).__name__}:"
        " end it with `return`, such as of tzk_core.transforms.composite.Composite(layers)",
    )
    declared = tuple(getattr(transform, "output_shape", None) or shape)
    expect(
        math.prod(declared) == math.prod(shape),
        f"recipe {name}: should keep the {math.prod(shape)} dimensions of {shape}; got {declared}",
    )
    return transform


def takes_shape(target: Callable[..., Any]) -> bool:
    """Whether a recipe or a layer can be built from a shape alone."""
    parameters = list(inspect.signature(target).parameters.values())
    needed = [parameter.name for parameter in parameters if parameter.default is parameter.empty and _named(parameter)]
    return needed in (["shape"], ["features"])


def _named(parameter: inspect.Parameter) -> bool:
    return parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)


def perturbed(module: Module, by: float, seed: int) -> Module:
    """A copy in float64 whose every parameter has noise of this deviation added."""
    moved = copy.deepcopy(module).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in moved.parameters():
            if by and parameter.is_floating_point():
                parameter.add_(by * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))
    return moved
