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
    name: str, kind: torch.dtype, found: tuple[Tensor, ...], expected: tuple[Tensor, ...], floor: float = 1e-30
) -> None:
    apart = [each / torch.finfo(kind).eps for each in cases.differences(found, expected, floor)]
    finite = all(bool(each.isfinite().all()) for each in found)
    print(json.dumps({"case": name, "type": str(kind), "roundings": max(apart), "finite": finite}), flush=True)


def affine(name: str, x: Tensor, raw: Tensor, shift: Tensor, limit: float = cases.LIMIT) -> None:
    for knee in cases.KNEES:
        kneed(f"{name}, knee {knee}", (x, raw, shift), limit, knee)


def kneed(name: str, tensors: tuple[Tensor, Tensor, Tensor], limit: float, knee: float, bound: float = 8.0) -> None:
    (x, raw, shift), kind = tensors, tensors[0].dtype
    y, logabsdet = expected = affine_symlog_torch.forward(x, raw, shift, bound, knee)
    report(name, kind, affine_symlog_triton.forward(x, raw, shift, bound, knee), expected)
    expected = affine_symlog_torch.inverse(y, raw, shift, bound, limit, knee)
    report(f"{name}, inverse", kind, affine_symlog_triton.inverse(y, raw, shift, bound, limit, knee), expected)
    given: tuple[Any, ...] = torch.cos(x), torch.sin(logabsdet), y, raw, shift, bound, knee
    found, expected = (each.backward(*given) for each in (affine_symlog_triton, affine_symlog_torch))
    report(f"{name}, backward", kind, found, expected)
    given = (*given[:-1], limit, knee)
    found, expected = (each.inverse_backward(*given) for each in (affine_symlog_triton, affine_symlog_torch))
    report(f"{name}, backward of inverse", kind, found, expected)


def mixture(name: str, x: Tensor, parameters: Tensor) -> None:
    """Differences relative to 1 or more, as logarithms of x / exp(s) cancel."""
    kind, floor = x.dtype, max(1.0, 10 * float(x.abs().max())) if x.numel() else 1.0
    y, slope = expected = mixture_torch.forward(x, parameters, 6.0)
    report(name, kind, mixture_triton.forward(x, parameters, 6.0), expected, floor)
    given = torch.cos(x), torch.sin(slope), x, parameters, 6.0
    found, expected = (each.backward(*given) for each in (mixture_triton, mixture_torch))
    report(f"{name}, backward", kind, found, expected)
    found, expected = (each.inverse(y, parameters, 6.0) for each in (mixture_triton, mixture_torch))
    report(f"{name}, inverse", kind, found, expected, floor)


@triton.jit
def computing(values, found, F: tl.constexpr, B: tl.constexpr):
    place = tl.arange(0, B)
    tl.store(found + place, F(tl.load(values + place)))


def precision(name: str, values: Tensor) -> None:
    """Relative differences, number by number, of one of the functions that Triton has not."""
    found = torch.empty_like(values)
    computing[(1,)](values, found, getattr(arithmetic_triton, name), len(values))
    expected = getattr(torch, name)(values.double())
    report(name, values.dtype, (found.double() / expected,), (torch.ones_like(expected),))


for kind in (torch.float32, torch.float64):
    positive = torch.logspace(-37, 1.9, 2**13, dtype=torch.float64).to(kind)
    precision("log1p", positive)
    for name in ("expm1", "tanh"):
        precision(name, torch.cat([positive, -positive]))
    for title, size in cases.SIZES.items():
        affine(f"affine-symlog, {title}", *cases.affine(size, kind))
    affine("affine-symlog, strided", *(cases.strided(each) for each in cases.affine((2, 5, 7), kind)))
    affine("affine-symlog, tiny", *cases.affine((1, 5, 7), kind, 1e-20)[:2], torch.zeros(1, 7, dtype=kind))
    affine("affine-symlog, huge", *cases.affine((1, 5, 7), kind, 1e20), limit=80.0)
    mixture("mixture, odd", *cases.mixture(3, 4, 101, kind))
    mixture("mixture, one", *cases.mixture(1, 1, 1, kind))
    mixture("mixture, none", *cases.mixture(0, 2, 5, kind))
    mixture("mixture, strided", *(cases.strided(each) for each in cases.mixture(3, 2, 5, kind)))
    mixture("mixture, tiny", *cases.mixture(2, 3, 5, kind, 1e-20))
    mixture("mixture, huge", *cases.mixture(2, 3, 5, kind, 1e6))
for title, sizes in {
    "odd": (1, 23, 3, 20),
    "several": (2, 3, 2, 70),
    "none": (1, 0, 2, 4),
    "one": (1, 1, 1, 1),
}.items():
    for knee in cases.KNEES:
        given = (*cases.tiled(*sizes, torch.float32), 8.0, knee)
        found, expected = tiled_triton.forward(*given), tiled_torch.forward(*given)
        report(f"tiled, {title}, knee {knee}", torch.float32, found, expected)
