"""What `kernels.py` times on a GPU: each kernel and torch.compile of its definition, on the same tensors."""

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
    moved: int
    """Bytes read and written, at least."""
    elementwise: bool


def cases(batch: int, dims: int, device: str = "cuda") -> dict[str, Case]:
    """By name; `dims` is divisible by the 256 of a tile."""
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

    def tiled_definition(rows: Any, weight: Any, raw: Any, shift: Any) -> Any:
        product = torch.bmm(rows, weight.mT).view(1, batch, dims)
        return affine_symlog_torch.forward(product, raw.flatten(1), shift.flatten(1), BOUND, KNEE)

    def mixture_gradient(x: Any, parameters: Any) -> Any:
        with torch.enable_grad():
            given = x.detach().requires_grad_(), parameters.detach().requires_grad_()
            outputs = compiled_map(*given)
        return torch.autograd.grad(outputs, given, (x, x))

    compiled_map = torch.compile(map.forward)
    plain = {name: torch.compile(getattr(affine_symlog_torch, name)) for name in ("forward", "backward", "inverse")}
    tiled, quantile = torch.compile(tiled_definition), torch.compile(map.inverse)
    return {
        "affine-symlog": Case(
            lambda: affine_symlog(x, raw, shift, BOUND, KNEE),
            lambda: plain["forward"](x, raw, shift, BOUND, KNEE),
            2 * size,
            True,
        ),
        "affine-symlog, backward": Case(
            lambda: affine_symlog_backward(x, logabsdet, y, raw, shift, BOUND, KNEE),
            lambda: plain["backward"](x, logabsdet, y, raw, shift, BOUND, KNEE),
            3 * size,
            True,
        ),
        "affine-symlog, inverse": Case(
            lambda: affine_symlog_inverse(y, raw, shift, BOUND, LIMIT, KNEE),
            lambda: plain["inverse"](y, raw, shift, BOUND, LIMIT, KNEE),
            2 * size,
            True,
        ),
        "tiled convolution": Case(
            lambda: tiled_affine_symlog(rows, weight, *tiles, BOUND, KNEE),
            lambda: tiled(rows, weight, *tiles),
            2 * size,
            False,
        ),
        "mixture": Case(
            lambda: mixture(values, parameters, 6.0),
            lambda: compiled_map(values, parameters),
            (3 * COMPONENTS + 5) * size,
            False,
        ),
        "mixture, backward": Case(
            lambda: mixture_backward(values, values, values, parameters, 6.0),
            lambda: mixture_gradient(values, parameters),
            (6 * COMPONENTS + 8) * size,
            False,
        ),
        "mixture, inverse": Case(
            lambda: mixture_inverse(values, parameters, 6.0),
            lambda: quantile(values, parameters),
            (3 * COMPONENTS + 5) * size,
            False,
        ),
    }
