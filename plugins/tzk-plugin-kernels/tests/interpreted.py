"""Triton's kernels in Triton's interpreter against their definitions in torch; prints one line of JSON for each case.

Run by `test_kernels_interpreted.py` with TRITON_INTERPRET=1, which has to be set before a kernel is defined.
"""

import json
import warnings
from typing import Any

import kernels_cases as cases
import torch
import triton
import triton.language as tl
from torch import Tensor
from tzk_plugin_kernels import (
    affine_symlog_torch,
    affine_symlog_triton,
    arithmetic_triton,
    mixture_torch,
    mixture_triton,
    tiled_torch,
    tiled_triton,
)

warnings.filterwarnings("ignore", category=RuntimeWarning)  # numpy, of the branch that `where` does not take


def report(
    name: str, found: tuple[Tensor, ...], expected: tuple[Tensor, ...], *, dtype: torch.dtype, floor: float = 1e-30
) -> None:
    apart = [difference / torch.finfo(dtype).eps for difference in cases.differences(found, expected, floor)]
    finite = all(bool(values.isfinite().all()) for values in found)
    print(json.dumps({"case": name, "type": str(dtype), "roundings": max(apart), "finite": finite}), flush=True)


def affine(name: str, tensors: tuple[Tensor, Tensor, Tensor], limit: float = cases.LIMIT) -> None:
    for knee in cases.KNEES:
        kneed(f"{name}, knee {knee}", tensors, limit=limit, knee=knee)


def kneed(name: str, tensors: tuple[Tensor, Tensor, Tensor], *, limit: float, knee: float, bound: float = 8.0) -> None:
    (x, raw, shift), dtype = tensors, tensors[0].dtype
    y, logabsdet = expected = affine_symlog_torch.forward(x, raw, shift, bound, knee)
    report(name, affine_symlog_triton.forward(x, raw, shift, bound, knee), expected, dtype=dtype)
    expected = affine_symlog_torch.inverse(y, raw, shift, bound, limit, knee)
    found = affine_symlog_triton.inverse(y, raw, shift, bound, limit, knee)
    report(f"{name}, inverse", found, expected, dtype=dtype)
    inputs: tuple[Any, ...] = torch.cos(x), torch.sin(logabsdet), y, raw, shift, bound, knee
    found, expected = (module.backward(*inputs) for module in (affine_symlog_triton, affine_symlog_torch))
    report(f"{name}, backward", found, expected, dtype=dtype)
    inputs = (*inputs[:-1], limit, knee)
    found, expected = (module.inverse_backward(*inputs) for module in (affine_symlog_triton, affine_symlog_torch))
    report(f"{name}, backward of inverse", found, expected, dtype=dtype)


def mixture(name: str, x: Tensor, parameters: Tensor) -> None:
    """Differences relative to 1 or more, as logarithms of x / exp(s) cancel."""
    dtype, floor = x.dtype, max(1.0, 10 * float(x.abs().max())) if x.numel() else 1.0
    y, slope = expected = mixture_torch.forward(x, parameters, 6.0)
    report(name, mixture_triton.forward(x, parameters, 6.0), expected, dtype=dtype, floor=floor)
    inputs = torch.cos(x), torch.sin(slope), x, parameters, 6.0
    found, expected = (module.backward(*inputs) for module in (mixture_triton, mixture_torch))
    report(f"{name}, backward", found, expected, dtype=dtype)
    found, expected = (module.inverse(y, parameters, 6.0) for module in (mixture_triton, mixture_torch))
    report(f"{name}, inverse", found, expected, dtype=dtype, floor=floor)


@triton.jit
def computing(values, outputs, F: tl.constexpr, B: tl.constexpr):  # noqa: PLR0917 - launched by position
    place = tl.arange(0, B)
    tl.store(outputs + place, F(tl.load(values + place)))


def precision(name: str, values: Tensor) -> None:
    """Relative differences, number by number, of one of the functions that Triton has not."""
    found = torch.empty_like(values)
    computing[(1,)](values, found, getattr(arithmetic_triton, name), len(values))
    expected = getattr(torch, name)(values.double())
    report(name, (found.double() / expected,), (torch.ones_like(expected),), dtype=values.dtype)


for dtype in (torch.float32, torch.float64):
    positive = torch.logspace(-37, 1.9, 2**13, dtype=torch.float64).to(dtype)
    precision("log1p", positive)
    for name in ("expm1", "tanh"):
        precision(name, torch.cat([positive, -positive]))
    for title, size in cases.SIZES.items():
        affine(f"affine-symlog, {title}", cases.affine(size, dtype))
    x, raw, shift = (cases.strided(tensor) for tensor in cases.affine((2, 5, 7), dtype))
    affine("affine-symlog, strided", (x, raw, shift))
    x, raw, _ = cases.affine((1, 5, 7), dtype, 1e-20)
    affine("affine-symlog, tiny", (x, raw, torch.zeros(1, 7, dtype=dtype)))
    affine("affine-symlog, huge", cases.affine((1, 5, 7), dtype, 1e20), limit=80.0)
    mixture("mixture, odd", *cases.mixture(3, 4, 101, dtype=dtype))
    mixture("mixture, one", *cases.mixture(1, 1, 1, dtype=dtype))
    mixture("mixture, none", *cases.mixture(0, 2, 5, dtype=dtype))
    mixture("mixture, strided", *(cases.strided(tensor) for tensor in cases.mixture(3, 2, 5, dtype=dtype)))
    mixture("mixture, tiny", *cases.mixture(2, 3, 5, dtype=dtype, scale=1e-20))
    mixture("mixture, huge", *cases.mixture(2, 3, 5, dtype=dtype, scale=1e6))
for title, sizes in {
    "odd": (1, 23, 3, 20),
    "several": (2, 3, 2, 70),
    "none": (1, 0, 2, 4),
    "one": (1, 1, 1, 1),
}.items():
    for knee in cases.KNEES:
        inputs = (*cases.tiled(sizes, torch.float32), 8.0, knee)
        found, expected = tiled_triton.forward(*inputs), tiled_torch.forward(*inputs)
        report(f"tiled, {title}, knee {knee}", found, expected, dtype=torch.float32)
