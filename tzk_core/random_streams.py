"""Random streams from a seed and a name: one more consumer moves no other's numbers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def _entropy(seed: int, names: tuple[str | int, ...]) -> int:
    text = "\0".join([str(seed), *(str(name) for name in names)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def stream(seed: int, *names: str | int) -> torch.Generator:
    """A CPU generator that depends on `seed` and `names` only.

    Noise is drawn on the CPU and moved, so that a run does not depend on the device that it is on.
    """
    return torch.Generator().manual_seed(_entropy(seed, names) >> 1)


def numpy_stream(seed: int, *names: str | int) -> np.random.Generator:
    """The same for numpy."""
    return np.random.Generator(np.random.PCG64(_entropy(seed, names)))


@contextmanager
def seeded(seed: int, *names: str | int) -> Iterator[None]:
    """Seed torch's global generator by `seed` and `names` within the block, and restore it after.

    For constructors that draw their own starting values, as nflows' and torch's do.
    """
    with torch.random.fork_rng(devices=[]):
        number = _entropy(seed, names) >> 1
        if torch.accelerator.is_available():
            torch.manual_seed(number)
        else:  # without a device that waits for its seed, each time with a stack that torch formats
            torch.default_generator.manual_seed(number)
        yield
