"""Check of a recipe: a function that builds a shared flow for a shape.

The shape is that of an observation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from nflows.transforms.base import Transform
from torch import Tensor

from tzk_core.testing.building import built
from tzk_core.testing.expectations import expect
from tzk_plugin_kit.transform import check_transform


def check_recipe(recipe: Callable[..., Any], inputs: Tensor, **options: Any) -> None:
    """Check that a recipe builds a `Transform` of its inputs' shape.

    It does so anew at each call, and from torch's seed alone.

    Args:
        recipe: called with the shape of an observation; `functools.partial` for its further arguments.
        inputs: (batch, *shape) as the flow gets them, few and small.
        options: of `check_transform`, which checks the transform.

    Raises:
        NotConforming: with what was expected, what it got and what to change.
    """
    shape = tuple(inputs.shape[1:])
    name = getattr(recipe, "__name__", type(recipe).__name__)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        first = built(name, recipe, shape)
        torch.manual_seed(1)
        second = built(name, recipe, shape)
    with torch.no_grad():
        for parameter in second.parameters():
            parameter.add_(1)
        shared = [key for key, value in first.named_parameters() if value is dict(second.named_parameters()).get(key)]
    expect(
        first is not second and not shared,
        f"recipe {name}: should build a flow anew at each call; two calls share {', '.join(shared) or 'it'}",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        state = built(name, recipe, shape).state_dict()
    differ = [key for key, value in first.state_dict().items() if not torch.equal(value, state[key])]
    expect(
        not differ,
        f"recipe {name}: should start from torch's global seed alone; {', '.join(differ)} differ for the same seed:"
        " draw starting values with torch's global generator, which the core seeds",
    )

    def again() -> Transform:
        return built(name, recipe, shape)

    check_transform(first, inputs, **({"again": again} | options))
