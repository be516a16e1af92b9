"""The memory that a training takes."""

from __future__ import annotations

import sys

import torch

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

_UNIT = 1 if sys.platform == "darwin" else 1024
"""Bytes of a unit of `ru_maxrss`."""


def peak_memory(device: torch.device) -> int | None:
    """The most bytes in use so far, of a CUDA device or the process.

    None if that is unknown.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return None if resource is None else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _UNIT
