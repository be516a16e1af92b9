"""The cases of `kernels.py` on a GPU.

They are kernels and torch.compile of their definitions, on the same tensors.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from tzk_plugin_glow.mixture import MixtureMap
from tzk_plugin_kernels import affine_symlog_torch
from tzk_plugin_kernels.affine_symlog import affine_symlog, affine_symlog_backward, affine_symlog_inverse
from tzk_plugin_kernels.mixture import mixture, mixture_backward, mixture_inverse
from tzk_plugin_kernels.tiled import tiled_affine_symlog

BOUND, LIMIT, KNEE, TILE = 8.0, 30.0, 1.0, 256
COMPONENTS, MIXTURE_BOUND = 4, 6.0


@dataclass(frozen=True)
class Case:
    kernel: Callable[[], Any]
    definition: Callable[[], Any]
    bytes_moved: int
    """Read and written, at least."""
    elementwise: bool = False


def cases(batch: int, dims: int, device: str = "cuda") -> dict[str, Case]:
    """The kernels by name; `dims` is divisible by the 256 of a tile."""
    torch.manual_seed(0)
    x = torch.randn(1, batch, dims, device=device)
    raw, shift = torch.randn(2, 1, dims, device=device)
    weight = torch.randn(1, TILE, TILE, device=device) / TILE**0.5
    parameters = torch.randn(batch, 3 * COMPONENTS + 2, dims, device=device)
    return {
        **affine_cases(x, raw, shift),
        "tiled convolution": tiled_case(x, weight, raw=raw, shift=shift),
        **mixture_cases(x[0], parameters),
    }


def affine_cases(x: Tensor, raw: Tensor, shift: Tensor) -> dict[str, Case]:
    """Map, backward and inverse of `affine-symlog`.

    Args:
        x: (1, batch, dims).
        raw: log scale, (1, dims).
        shift: (1, dims).
    """
    y, logabsdet = affine_symlog(x, raw, shift, BOUND, KNEE)
    plain = {name: torch.compile(getattr(affine_symlog_torch, name)) for name in ("forward", "backward", "inverse")}
    size = 4 * x.numel()
    return {
        "affine-symlog": Case(
            kernel=lambda: affine_symlog(x, raw, shift, BOUND, KNEE),
            definition=lambda: plain["forward"](x, raw, shift, BOUND, KNEE),
            bytes_moved=2 * size,
            elementwise=True,
        ),
        "affine-symlog, backward": Case(
            kernel=lambda: affine_symlog_backward(x, logabsdet, y, raw, shift, BOUND, KNEE),
            definition=lambda: plain["backward"](x, logabsdet, y, raw, shift, BOUND, KNEE),
            bytes_moved=3 * size,
            elementwise=True,
        ),
        "affine-symlog, inverse": Case(
            kernel=lambda: affine_symlog_inverse(y, raw, shift, BOUND, LIMIT, KNEE),
            definition=lambda: plain["inverse"](y, raw, shift, BOUND, LIMIT, KNEE),
            bytes_moved=2 * size,
            elementwise=True,
        ),
    }


def tiled_case(x: Tensor, weight: Tensor, *, raw: Tensor, shift: Tensor) -> Case:
    """The tiled convolution with its affine map and SymLog; weight (1, TILE, TILE)."""
    rows = x.view(1, -1, TILE)
    tiles = raw.view(1, -1, TILE), shift.view(1, -1, TILE)

    def definition(rows: Tensor, weight: Tensor, *tiles: Tensor) -> Any:
        product = torch.bmm(rows, weight.mT).view(x.shape)
        return affine_symlog_torch.forward(product, *(values.flatten(1) for values in tiles), BOUND, KNEE)

    compiled = torch.compile(definition)
    return Case(
        kernel=lambda: tiled_affine_symlog(rows, weight, *tiles, BOUND, KNEE),
        definition=lambda: compiled(rows, weight, *tiles),
        bytes_moved=2 * 4 * x.numel(),
    )


def mixture_cases(values: Tensor, parameters: Tensor) -> dict[str, Case]:
    """Map, backward and inverse of the mixture of logistics; values (batch, dims)."""
    map = MixtureMap(COMPONENTS, MIXTURE_BOUND)
    compiled_map, quantile = torch.compile(map.forward), torch.compile(map.inverse)
    size = 4 * values.numel()

    def gradient(x: Tensor, parameters: Tensor) -> Any:
        with torch.enable_grad():
            inputs = x.detach().requires_grad_(), parameters.detach().requires_grad_()
            outputs = compiled_map(*inputs)
        return torch.autograd.grad(outputs, inputs, (x, x))

    return {
        "mixture": Case(
            kernel=lambda: mixture(values, parameters, MIXTURE_BOUND),
            definition=lambda: compiled_map(values, parameters),
            bytes_moved=(3 * COMPONENTS + 5) * size,
        ),
        "mixture, backward": Case(
            kernel=lambda: mixture_backward(values, values, values, parameters, MIXTURE_BOUND),
            definition=lambda: gradient(values, parameters),
            bytes_moved=(6 * COMPONENTS + 8) * size,
        ),
        "mixture, inverse": Case(
            kernel=lambda: mixture_inverse(values, parameters, MIXTURE_BOUND),
            definition=lambda: quantile(values, parameters),
            bytes_moved=(3 * COMPONENTS + 5) * size,
        ),
    }
