"""Random states and settings of the process that others' code cannot change.

They are settings that numbers depend on.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tzk_core.modes import flushes_denormals


def _cuda_states() -> list[Tensor]:
    return torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []


RANDOM: tuple[tuple[Callable[[], Any], Callable[[Any], Any]], ...] = (
    (random.getstate, random.setstate),
    (np.random.get_state, np.random.set_state),
    (torch.get_rng_state, torch.set_rng_state),
    (_cuda_states, torch.cuda.set_rng_state_all),
)
"""How the state of every global generator is read and put back."""

SETTINGS: tuple[tuple[Callable[[], Any], Callable[[Any], Any]], ...] = (
    (torch.get_default_dtype, torch.set_default_dtype),
    (torch.get_default_device, torch.set_default_device),
    (torch.is_grad_enabled, torch.set_grad_enabled),
    (torch.get_num_threads, torch.set_num_threads),
    (torch.are_deterministic_algorithms_enabled, torch.use_deterministic_algorithms),
    (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    (lambda: torch.is_autocast_enabled("cpu"), lambda on: torch.set_autocast_enabled("cpu", on)),
    (flushes_denormals, torch.set_flush_denormal),
)
"""The same of settings of the process that numbers depend on."""


@contextmanager
def protected() -> Iterator[None]:
    """Put the random states and `SETTINGS` back at the end of the block."""
    states = [(write, read()) for read, write in RANDOM]
    settings = [(read, write, read()) for read, write in SETTINGS]
    try:
        yield
    finally:
        for write, state in states:
            write(state)
        for read, write, value in settings:
            if read() != value:  # writing torch's default device, even the one there is, slows every call down
                write(value)
