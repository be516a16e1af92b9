"""What `kernels.py` times on a GPU: kernels and torch.compile of their definitions, on the same tensors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from tzk_plugin_glow.mixture import MixtureMap
from tzk_plugin_kernels import affine_symlog_torch
from tzk_plugin_kernels.affine_symlog import affine_symlog, affine_symlog_backward, affine_symlog_inverse
from tzk_plugin_kernels.mixture import mixture, mixture_backward, mixture_inverse
from tzk_plugin_kernels.tiled import tiled_affine_symlog

BOUND, LIMIT, KNEE, COMPONENTS, TILE = 8.0, 30.0, 1.0, 4, 256


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
    y, logabsdet = affine_symlog(x, raw, shift, BOUND, KNEE)
    rows = x.view(1, -1, TILE)
    weight = torch.randn(1, TILE, TILE, device=device) / TILE**0.5
    tiles = raw.view(1, -1, TILE), shift.view(1, -1, TILE)
    values, parameters = x[0], torch.randn(batch, 3 * COMPONENTS + 2, dims, device=device)
    map = MixtureMap(COMPONENTS, 6.0)
    size = 4 * batch * dims

    def tiled_definition(rows: Any, weight: Any, *tiles: Any) -> Any:
        product = torch.bmm(rows, weight.mT).view(1, batch, dims)
        return affine_symlog_torch.forward(product, *(values.flatten(1) for values in tiles), BOUND, KNEE)

    def mixture_gradient(x: Any, parameters: Any) -> Any:
        with torch.enable_grad():
            inputs = x.detach().requires_grad_(), parameters.detach().requires_grad_()
            outputs = compiled_map(*inputs)
        return torch.autograd.grad(outputs, inputs, (x, x))

    compiled_map = torch.compile(map.forward)
    plain = {name: torch.compile(getattr(affine_symlog_torch, name)) for name in ("forward", "backward", "inverse")}
    tiled, quantile = torch.compile(tiled_definition), torch.compile(map.inverse)
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
        "tiled convolution": Case(
            kernel=lambda: tiled_affine_symlog(rows, weight, *tiles, BOUND, KNEE),
            definition=lambda: tiled(rows, weight, *tiles),
            bytes_moved=2 * size,
        ),
        "mixture": Case(
            kernel=lambda: mixture(values, parameters, 6.0),
            definition=lambda: compiled_map(values, parameters),
            bytes_moved=(3 * COMPONENTS + 5) * size,
        ),
        "mixture, backward": Case(
            kernel=lambda: mixture_backward(values, values, values, parameters, 6.0),
            definition=lambda: mixture_gradient(values, parameters),
            bytes_moved=(6 * COMPONENTS + 8) * size,
        ),
        "mixture, inverse": Case(
            kernel=lambda: mixture_inverse(values, parameters, 6.0),
            definition=lambda: quantile(values, parameters),
            bytes_moved=(3 * COMPONENTS + 5) * size,
        ),
    }
