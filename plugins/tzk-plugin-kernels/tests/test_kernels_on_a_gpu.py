"""Triton's kernels on a CUDA device against their definitions: `pytest -m gpu`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import kernels_cases as cases
import pytest
import torch
from torch import Tensor
from tzk_plugin_kernels import affine_symlog_torch, mixture_torch
from tzk_plugin_kernels.affine_symlog import (
    affine_symlog,
    affine_symlog_backward,
    affine_symlog_inverse,
    affine_symlog_inverse_backward,
)
from tzk_plugin_kernels.choice import without_triton
from tzk_plugin_kernels.mixture import mixture, mixture_backward, mixture_inverse
from tzk_plugin_kernels.tiled import tiled_affine_symlog

from tzk_core import TzK, build_flow
from tzk_core.agreement import agreement, as_it_is
from tzk_core.implementations import places

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(bool(without_triton()), reason=f"there is no GPU for the kernels: {without_triton()}"),
]
TOLERANCE = {torch.float32: 2e-5, torch.float64: 1e-11}


def agree(
    operator: Callable[..., Any], definition: Callable[..., Any], tensors: tuple[Tensor, ...], *more: float
) -> None:
    found = operator(*(each.cuda() for each in tensors), *more)
    expected = definition(*tensors, *more)
    dtype = tensors[0].dtype
    apart = cases.differences(tuple(each.cpu() for each in found), expected, 1.0 if definition in MIXTURES else 1e-30)
    assert max(apart) < TOLERANCE[dtype]


MIXTURES = (mixture_torch.forward, mixture_torch.inverse)


@pytest.mark.parametrize("knee", cases.KNEES)
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("size", [*cases.SIZES.values(), (1, 5000, 1024), (20, 30, 256)])
def test_the_map_and_its_backward(size: tuple[int, int, int], dtype: torch.dtype, knee: float) -> None:
    x, raw, shift = cases.affine(size, dtype)
    y, volume = affine_symlog_torch.forward(x, raw, shift, cases.BOUND, knee)
    agree(affine_symlog, affine_symlog_torch.forward, (x, raw, shift), cases.BOUND, knee)
    agree(affine_symlog_inverse, affine_symlog_torch.inverse, (y, raw, shift), cases.BOUND, cases.LIMIT, knee)
    given = x.cos(), volume.sin(), y, raw, shift
    agree(affine_symlog_backward, affine_symlog_torch.backward, given, cases.BOUND, knee)
    agree(affine_symlog_inverse_backward, affine_symlog_torch.inverse_backward, given, cases.BOUND, cases.LIMIT, knee)


@pytest.mark.parametrize("knee", cases.KNEES)
@pytest.mark.parametrize("sizes", [(1, 23, 3, 20), (2, 3, 2, 70), (1, 0, 2, 4), (1, 64, 4, 256), (1, 2000, 4, 256)])
def test_the_tiled_map(sizes: tuple[int, int, int, int], knee: float) -> None:
    agree(tiled_affine_symlog, tiled_affine_symlog, cases.tiled(sizes, torch.float32), cases.BOUND, knee)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("sizes", [(3, 4, 101), (1, 1, 1), (0, 2, 5), (64, 4, 784)])
def test_the_mixture_and_its_backward(sizes: tuple[int, int, int], dtype: torch.dtype) -> None:
    x, parameters = cases.mixture(*sizes, dtype=dtype)
    agree(mixture, mixture_torch.forward, (x, parameters), 6.0)
    agree(mixture_backward, mixture_torch.backward, (x.cos(), x.sin(), x, parameters), 6.0)
    agree(mixture_inverse, mixture_torch.inverse, (x, parameters), 6.0)


def test_a_model_on_a_gpu_takes_the_kernels_and_computes_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZK_KERNELS", "triton")
    flow = build_flow((1, 32, 32), "paper", steps=4)
    flow.initialise(torch.rand(256, 1, 32, 32))
    plain = as_it_is(TzK(flow), torch.device("cuda"), torch.float64)
    other = TzK(build_flow((1, 32, 32), "paper", steps=4)).to("cuda", torch.float64)
    other.load_state_dict(plain.state_dict())
    assert places(other, "cuda") == {"kernels/tiled-affine-symlog-cuda": 4}
    assert max(agreement(plain, other, 16).values()) < 1e-9
    assert max(agreement(as_it_is(plain, torch.device("cuda"), torch.float32), other.float(), 16).values()) < 1e-4
