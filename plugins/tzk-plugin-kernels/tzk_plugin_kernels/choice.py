"""Which implementation computes: TZK_KERNELS, and reasons against Triton here."""

from __future__ import annotations

import functools
import importlib
import os

import torch

from tzk_core import TzkError

CHOICES = ("auto", "torch", "triton")
CAPABILITY = (8, 0)
"""The oldest CUDA devices that the kernels are compiled for in the tests: those of sm_80."""


def choice() -> str:
    """The environment variable TZK_KERNELS, "auto" by default.

    "auto": Triton on CUDA devices, the layers themselves elsewhere. "torch": the fused operators in plain torch,
    everywhere. "triton": as auto, and an error where Triton cannot be used on a CUDA device.

    Raises:
        TzkError: for any other value.
    """
    chosen = os.environ.get("TZK_KERNELS", "auto")
    if chosen not in CHOICES:
        raise TzkError(f"the environment variable TZK_KERNELS should be one of {', '.join(CHOICES)}; got {chosen!r}")
    return chosen


def unusable(device: str) -> str:
    """The reason against the operators on a type of device; "" for none.

    Raises:
        TzkError: if Triton was asked for and cannot be used on an available CUDA device.
    """
    chosen = choice()
    if device == "cuda" and not torch.cuda.is_available():
        return without_triton()
    if chosen == "torch":
        return ""
    if device != "cuda":
        return "a CPU uses the layers themselves, unless TZK_KERNELS=torch"
    reason = without_triton()
    if reason and chosen == "triton":
        raise TzkError(f"TZK_KERNELS=triton, and Triton cannot be used: {reason}")
    return reason


@functools.cache
def without_triton() -> str:
    """The reason why the CUDA device cannot use Triton's kernels; "" for none."""
    if not torch.cuda.is_available():
        return "torch finds no CUDA device"
    if torch.version.hip is not None:
        return "the kernels are for NVIDIA devices, and this torch was built for AMD's"
    if torch.cuda.get_device_capability() < CAPABILITY:
        return f"{torch.cuda.get_device_name()} has compute capability {torch.cuda.get_device_capability()}, not 8.0"
    try:
        importlib.import_module("triton")
    except Exception as error:  # a broken installation raises any exception
        return f"Triton cannot be imported: {type(error).__name__}: {error}"
    return ""


def in_triton() -> bool:
    """Whether Triton computes an operator on CUDA tensors."""
    return choice() != "torch" and not without_triton()
