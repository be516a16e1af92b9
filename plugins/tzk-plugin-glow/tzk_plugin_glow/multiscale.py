"""The recipe `multiscale`: grey levels coded lattice by lattice, then coupling steps on the coarse latents."""

from __future__ import annotations

from collections.abc import Sequence

from nflows.transforms.base import Transform

from tzk_core.errors import TzkError
from tzk_core.transforms.composite import Composite
from tzk_core.transforms.reshape import Flatten
from tzk_core.transforms.squeeze import Squeeze
from tzk_plugin_glow.actnorm import ActNorm
from tzk_plugin_glow.convolution import PointwiseConvolution
from tzk_plugin_glow.coupling import Coupling
from tzk_plugin_glow.lattice import GreyLevels, Lattice
from tzk_plugin_glow.lead import LeadingLattice


def multiscale(
    shape: tuple[int, ...],
    widths: Sequence[int] = (64, 96, 64),
    blocks: Sequence[int] = (2, 2, 2),
    components: int = 5,
    steps: int = 8,
    coupling: str = "affine",
    coupling_width: int = 64,
    coupling_blocks: int = 1,
    levels: int = 256,
    lead: int = 0,
    summary: int = 32,
) -> Transform:
    """`Lattice`s in one another, finest first, then `steps` of actnorm, 1×1 convolution and coupling on what the
    lattices within the finest gave.

    `shape` is (channels, height, width) with even sides. A lattice halves both sides as long as they are even; the
    smallest image is left to `GreyLevels`. `widths` and `blocks` are those of the networks of the finest lattice, the
    next and so on; the last entry is for all smaller ones. z is (d,): first a quarter of all dimensions, the latents of
    every second pixel of every second row after the coupling steps; the rest belongs to the finest lattice. `coupling`
    is a map of elements, "affine", "mixture-of-logistics" or "rational-quadratic".

    Under uniform dequantisation the grey levels of all but the quarter are coded without loss (see `GreyMap`). Sampling
    evaluates two networks a lattice. Raises `TzkError` for shapes that cannot be cut.
    """
    if len(shape) != 3 or shape[1] % 2 or shape[2] % 2:
        raise TzkError(
            f"the recipe multiscale is for images, (channels, height, width) of even sides; got {tuple(shape)}"
        )
    if not widths or not blocks:
        raise TzkError("multiscale expects widths and blocks for at least one lattice")
    half = (shape[0], shape[1] // 2, shape[2] // 2)
    if lead < 0 or lead > half[1]:
        raise TzkError(f"multiscale can have 0 to {half[1]} rows of pixels lead; got {lead}")
    code = shape[0] * lead * half[2]
    coarse = _coarse(half, 1, widths, blocks, components, levels, code)
    inner = Composite([coarse, *_steps(half, steps, coupling, coupling_width, coupling_blocks)])
    if lead:
        return LeadingLattice(tuple(shape), inner, lead, components, widths[0], blocks[0], levels, summary)
    return Lattice(tuple(shape), inner, components, widths[0], blocks[0], levels, flat=True)


def _coarse(
    shape: tuple[int, ...],
    depth: int,
    widths: Sequence[int],
    blocks: Sequence[int],
    components: int,
    levels: int,
    code: int,
) -> Transform:
    """The lattices within `depth` others, from `shape` down to the smallest image."""
    if shape[1] % 2 or shape[2] % 2:
        return GreyLevels(shape, components, levels)
    inner = _coarse((shape[0], shape[1] // 2, shape[2] // 2), depth + 1, widths, blocks, components, levels, code)
    width, count = (each[min(depth, len(each) - 1)] for each in (widths, blocks))
    return Lattice(shape, inner, components, width, count, levels, code=code)


def _steps(shape: tuple[int, ...], steps: int, coupling: str, width: int, blocks: int) -> list[Transform]:
    """Coupling steps on an image of latents, and its flattening; on squeezed images if its sides are even."""
    layers: list[Transform] = []
    if shape[1] % 2 == 0 and shape[2] % 2 == 0:
        layers.append(Squeeze(shape))
        shape = layers[0].output_shape
    if shape[0] > 1:
        for step in range(steps):
            layers += [
                ActNorm(shape),
                PointwiseConvolution(shape, "orthogonal", seed=step),
                Coupling(shape, coupling, 4, width, blocks),
            ]
    return [*layers, Flatten(shape)]
