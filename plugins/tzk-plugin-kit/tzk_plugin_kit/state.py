"""The state of a part and of the process, which evaluation may not change."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tzk_core.testing.expectations import expect

REGISTER = "register it as a buffer (`register_buffer`) or a parameter, which are saved, loaded, moved and stacked"


@contextmanager
def unchanged(what: str, module: nn.Module) -> Iterator[None]:
    """Refuse a change of parameters, buffers, attributes or global random numbers within the block."""
    tensors = {key: value.clone() for key, value in module.state_dict().items()}
    attributes, streams = plain_attributes(module), random_states()
    yield
    changed = [key for key, value in module.state_dict().items() if not torch.equal(value, tensors[key])]
    changed += different(attributes, plain_attributes(module))
    expect(
        not changed,
        f"{what} should change no state; it changes {', '.join(changed)}: make it a function of its arguments,"
        " and set what starts from data in `initialise`",
    )
    used = different(streams, random_states())
    expect(
        not used,
        f"{what} should use no random numbers of its own; it draws from {', '.join(used)}:"
        " use the noise or the generator that is passed",
    )


def random_states() -> dict[str, Any]:
    """The states of the global random numbers, by what draws from them."""
    return {
        "torch": torch.get_rng_state().numpy().tobytes(),
        "numpy.random": repr(np.random.get_state()),
        "random": random.getstate(),
    }


def different(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """The keys whose values differ."""
    keys = sorted({*before, *after})
    return [key for key in keys if key not in before or key not in after or before[key] != after[key]]


def plain_attributes(module: nn.Module) -> dict[str, Any]:
    """The attributes of a module and its parts beside parameters, buffers and modules, comparable."""
    return {
        f"{path}.{key}" if path else key: _comparable(value)
        for path, part in module.named_modules()
        for key, value in vars(part).items()
        if key != "training" and not key.startswith("_forward") and key not in _OF_TORCH
    }


def expect_registered(name: str, module: nn.Module) -> None:
    """Refuse real numbers in tensors or arrays that are attributes: saving and loading lose them.

    Orders and indices, which are whole numbers, are left to the check of saving and loading.
    """
    plain = [
        f"{path}.{key}" if path else key
        for path, part in module.named_modules()
        for key, value in vars(part).items()
        if key not in _OF_TORCH and key != "arguments" and _holds_tensor(value)
    ]
    expect(
        not plain,
        f"{name}: tensors should be parameters or buffers; {', '.join(plain)} is a plain attribute,"
        f" which saving and loading lose: {REGISTER}",
    )


_OF_TORCH = frozenset(vars(nn.Module()))
"""The attributes that torch itself keeps in a module."""


def _holds_tensor(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(map(_holds_tensor, value.values()))
    if isinstance(value, list | tuple | set):
        return any(map(_holds_tensor, value))
    if isinstance(value, Tensor):
        return value.is_floating_point()
    return isinstance(value, np.ndarray) and value.dtype.kind == "f"


def _comparable(value: Any) -> Any:
    """A value that equals another one where nothing was changed."""
    if isinstance(value, Mapping):
        return {repr(key): _comparable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_comparable(item) for item in value]
    if isinstance(value, torch.Generator):
        return value.get_state().numpy().tobytes()
    if isinstance(value, np.random.Generator):
        return repr(value.bit_generator.state)
    if isinstance(value, random.Random):
        return value.getstate()
    if isinstance(value, Tensor):
        value = value.detach().cpu().numpy()
    if isinstance(value, np.ndarray):
        return value.shape, str(value.dtype), value.tobytes()
    return value if isinstance(value, bool | int | float | str | bytes | set | frozenset | None) else id(value)
