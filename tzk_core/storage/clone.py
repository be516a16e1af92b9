"""Copies of a module around other tensors.

For each of a thousand, that is much sooner done than building it anew, or a deep copy.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn

from tzk_core.parts import Part

_NEVER_CHANGED = (bool, int, float, str, bytes, type(None), type, FunctionType, torch.dtype, torch.device, Part)


def copy_around(module: nn.Module, tensors: Mapping[str, Tensor]) -> Any:
    """A copy of `module` that has `tensors` in the place of its own.

    They go by the keys of its state dict, each once.

    All else is copied deeply, but for what is never changed. Parameters require a gradient where those of `module` do.
    """
    made: dict[int, Any] = {}
    for key, own in module.state_dict(keep_vars=True).items():
        parameter = isinstance(own, nn.Parameter)
        made[id(own)] = nn.Parameter(tensors[key], own.requires_grad) if parameter else tensors[key]
    return _copied(module, made)


def _copied(module: nn.Module, made: dict[int, Any]) -> Any:
    if id(module) in made:
        return made[id(module)]
    if hasattr(module, "__deepcopy__"):
        return copy.deepcopy(module, made)
    new = made[id(module)] = object.__new__(type(module))
    for key, value in vars(module).items():
        if key == "_modules":
            new.__dict__[key] = {name: None if each is None else _copied(each, made) for name, each in value.items()}
        elif _constant(value):
            new.__dict__[key] = value
        elif isinstance(value, dict | set) and not value:
            new.__dict__[key] = type(value)()
        else:
            new.__dict__[key] = copy.deepcopy(value, made)
    return new


def _constant(value: Any) -> bool:
    return isinstance(value, _NEVER_CHANGED) or (isinstance(value, tuple) and all(map(_constant, value)))
