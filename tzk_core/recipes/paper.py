"""The paper's shared flow: tiled convolutions, element-wise affine maps and SymLog (Section 3, Fig. 2)."""

from __future__ import annotations

import math

import torch
from nflows.transforms.base import Transform
from torch import Tensor

from tzk_core.errors import TzkError
from tzk_core.recipes.entrance import entrance, gains_domain
from tzk_core.transforms.affine import Affine
from tzk_core.transforms.bounds import soft_bound_inverse
from tzk_core.transforms.composite import Composite
from tzk_core.transforms.reshape import Rearrangement
from tzk_core.transforms.squeeze import Squeeze, Unsqueeze
from tzk_core.transforms.symlog import SymLog
from tzk_core.transforms.tiled_convolution import TiledConvolution

MOST_STEPS = 1000


def paper(
    shape: tuple[int, ...],
    *,
    steps: int = 10,
    tile: int = 16,
    alpha: float = 1e-6,
    initialisation: str = "identity",
    knee: float = 1.0,
    domain: str | list[str] = "auto",
) -> Transform:
    """Logit, then `steps` flow steps of alternating tilings, then an affine map onto the base.

    The paper takes 10 steps and 16×16 tiles on 32×32 images, the logit of Real NVP (alpha = 0.05) and the plain SymLog
    (knee = 0). `initialisation` is that of the tiled convolutions, "identity" or "orthogonal"; `knee` that of `SymLog`.
    Where the `domain` is not that of grey levels, `Standardise` takes the place of the logit.
    """
    _check(shape, steps, tile)
    first = entrance(shape, domain, alpha)
    return Composite([first, *_steps(shape, steps, tile, initialisation=initialisation, knee=knee)])


upgrade_arguments = SymLog.upgrade_arguments  # what the recipe gained is the knee of its SymLogs
paper.upgrade = SymLog.upgrade  # type: ignore[attr-defined]
paper.upgrade_arguments = upgrade_arguments  # type: ignore[attr-defined]
gains_domain(paper, 3)


def flow_steps(shape: tuple[int, ...], steps: int, tile: int, *, gain: float = 0.03, knee: float = 1.0) -> Composite:
    """`steps` flow steps that start close to the identity.

    SymLog is linear for small values, so the first affine map scales by `gain` and the last back. At 0.03 four steps
    cost a standard Gaussian 0.003 nats a dimension, at 1 it is 0.35; `tests/recipes/test_recipes.py` measures both.
    """
    _check(shape, steps, tile)
    parts = _steps(shape, steps, tile, initialisation="identity", knee=knee)
    affine = [part for part in parts if isinstance(part, Affine)]
    quantiles = torch.special.ndtri((torch.arange(1000, dtype=torch.float64) + 0.5) / 1000)
    values = gain * quantiles
    activation = SymLog((1,), knee=knee)
    for _ in range(steps):
        values = activation(values[:, None])[0].squeeze(1)
    with torch.no_grad():
        for part, scale in ((affine[0], gain), (affine[-1], 1 / values.std().item())):
            part.raw_log_scale.fill_(soft_bound_inverse(torch.tensor(math.log(scale)), part.bound).item())
    return Composite(parts)


@torch.no_grad()
def start_steps(transform: Composite, z: Tensor) -> None:
    """Start fresh `flow_steps` from latents z, (n, *shape), in closed form, layer after layer.

    Matrices whiten their tiles. Element-wise maps standardise to the deviation that the first of them has for a
    standard Gaussian, the last to 1. SymLog is close to linear there. What comes out is therefore close to the Gaussian
    that fits z best among those that tiles of a shared covariance can make, in turn. Training starts from it.
    """
    affine = [part for part in transform._transforms if isinstance(part, Affine)]
    gain = float(affine[0].log_scale.mean().exp())
    for part in transform._transforms:
        if isinstance(part, TiledConvolution):
            part.whiten(z)
        elif isinstance(part, Affine):
            part.standardise(z, 1.0 if part is affine[-1] else gain)
        z = part(z)[0]


def _steps(shape: tuple[int, ...], steps: int, tile: int, *, initialisation: str, knee: float) -> list[Transform]:
    """The layers of `steps` flow steps on images or vectors.

    On images every second step sees every second pixel. Tiles of neighbours and tiles of strided pixels take turns, so
    that information reaches all dimensions. A vector is one tile of all its dimensions.

    A step works on the image squeezed, so that a tile is a channel; between two steps goes one rearrangement.
    """
    image = len(shape) == 3
    parts: list[Transform] = []
    moves: list[Transform] = []
    inner = tuple(shape)
    for step in range(steps):
        squeeze = _squeeze(shape, tile, strided=step % 2 == 1) if image else None
        if squeeze is not None:
            moves.append(squeeze)
        parts += _joined(inner, moves)
        inner = squeeze.output_shape if squeeze is not None else tuple(shape)
        mixing = {"tile": tile, "channels": 1} if image else {}
        parts += [
            TiledConvolution(inner, **mixing, initialisation=initialisation, seed=step),
            Affine(inner),
            SymLog(inner, bound=30.0, knee=knee),  # the bound leaves room for the matrices between several
        ]
        moves = [Unsqueeze(inner, squeeze.factor, squeeze.tiling)] if squeeze is not None else []
    return [*parts, *_joined(inner, moves), Affine(shape)]


def _check(shape: tuple[int, ...], steps: int, tile: int) -> None:
    """Raise `TzkError`, naming the argument, unless there are steps and tiles cut the image.

    Where there are several steps, tiles also have to cut every second pixel of it.
    """
    if not 1 <= steps <= MOST_STEPS:
        raise TzkError(f"steps = {steps}: a flow has at least one step, and at most {MOST_STEPS} are expected")
    if len(shape) != 3:
        return
    _, height, width = shape
    sides = math.gcd(height, width) // (2 if steps > 1 else 1)
    odd = steps > 1 and (height % 2 or width % 2)
    if odd or tile < 1 or sides % tile:
        fits = [side for side in range(1, sides + 1) if sides % side == 0 and not odd]
        advice = f"expected one of {', '.join(map(str, fits))}" if fits else "expected steps = 1, or even sides"
        raise TzkError(
            f"tile = {tile} does not cut images of {height} x {width} pixels into tiles in {steps} steps: {advice}; or "
            "give the data sets another size"
        )


def _squeeze(shape: tuple[int, ...], tile: int, *, strided: bool) -> Squeeze | None:
    """The rearrangement of an image that a step works on.

    None if it is arranged so already, or cannot be cut into such tiles.
    """
    if strided:
        return Squeeze(shape)
    _, height, width = shape
    cuts = height // tile
    return Squeeze(shape, cuts, "blocks") if height == width == cuts * tile and cuts > 1 else None


def _joined(shape: tuple[int, ...], moves: list[Transform]) -> list[Transform]:
    return [Rearrangement(shape, moves)] if len(moves) > 1 else moves
