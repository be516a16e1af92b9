"""Which implementation computes: TZK_KERNELS, and what speaks against Triton here."""

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
    """TZK_KERNELS: "auto" (Triton on CUDA devices, the layers themselves elsewhere; the default), "torch" (the fused
    operators in plain torch, everywhere) or "triton" (as auto, and an error where Triton cannot be used on a CUDA
    device). Raises `TzkError` for anything else."""
    chosen = os.environ.get("TZK_KERNELS", "auto")
    if chosen not in CHOICES:
        raise TzkError(f"the environment variable TZK_KERNELS should be one of {', '.join(CHOICES)}; got {chosen!r}")
    return chosen


def unusable(device: str) -> str:
    """The reason why the operators are not used on a kind of device; "" if they are. Raises `TzkError` if Triton was
    asked for on a CUDA device that is there, and cannot be used."""
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
    """The reason why Triton's kernels cannot be used on this machine's CUDA device; "" if they can."""
    if not torch.cuda.is_available():
        return "torch finds no CUDA device"
    if torch.version.hip is not None:
        return "the kernels are for NVIDIA devices, and this torch was built for AMD's"
    if torch.cuda.get_device_capability() < CAPABILITY:
        return f"{torch.cuda.get_device_name()} has compute capability {torch.cuda.get_device_capability()}, not 8.0"
    try:
        importlib.import_module("triton")
    except Exception as error:  # a broken installation raises whatever it likes
        return f"Triton cannot be imported: {type(error).__name__}: {error}"
    return ""


def in_triton() -> bool:
    """Whether an operator on CUDA tensors is computed by Triton."""
    return choice() != "torch" and not without_triton()
