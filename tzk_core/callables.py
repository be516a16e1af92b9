"""Functions in the arguments of layers, as a config writes them: { callable = "module:name", ... }."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

CALLABLES = ("nflows", "torch.nn")
"""Where a callable may point: these modules and those in them."""

FUNCTIONS = ("transform_net_create_fn", "activation")
"""The arguments of nflows' constructors that want a function."""

EXAMPLE = '{ callable = "nflows.nn.nets:ResidualNet", hidden_features = 64 }'


def is_allowed(target: Any) -> bool:
    """Whether a text is "module:name" with its module in `CALLABLES`."""
    module, _, attribute = str(target).partition(":")
    inside = any(module == name or module.startswith(name + ".") for name in CALLABLES)
    return isinstance(target, str) and inside and attribute.isidentifier()


def callable_problem(name: str, value: Any) -> str:
    """What is wrong with an argument that is, or holds, a function; "" if nothing is."""
    if isinstance(value, Mapping) and "callable" in value:
        if not is_allowed(value["callable"]):
            return (
                f"a callable is written 'module:name', its module under nflows or torch.nn; got {value['callable']!r}"
            )
        inside = (callable_problem(key, each) for key, each in value.items() if key != "callable")
        return next((message for message in inside if message), "")
    if name in FUNCTIONS:
        return f"expected a function, written as {EXAMPLE}; got {value!r}"
    return ""
