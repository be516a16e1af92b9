"""The recipe `multiscale`: grey levels by lattices, then coupling steps on coarse latents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

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
from tzk_plugin_glow.quadratic import RAMP


def multiscale(
    shape: tuple[int, ...],
    widths: Sequence[int] = (64, 96, 64),
    blocks: Sequence[int] = (2, 2, 2),
    *,
    density: str = "grey-levels",
    components: int = 5,
    ramp: float = RAMP,
    steps: int = 8,
    coupling: str = "affine",
    coupling_width: int = 64,
    coupling_blocks: int = 1,
    levels: int = 256,
    lead: int = 0,
    summary: int = 32,
    canvas: bool = False,
) -> Transform:
    """Nested lattices, then coupling steps on the latents within the finest.

    A lattice halves both sides as long as they are even; the smallest image is left to `GreyLevels`. A step is actnorm,
    1×1 convolution and coupling. z is (d,): first a quarter of all dimensions, the latents of every second pixel of
    every second row after the coupling steps; the rest belongs to the finest lattice.

    With the densities "grey-levels" and "grey-shares" and uniform dequantisation, grey levels of all but the quarter
    are coded without loss (see `GreyLevelMap`). With "quadratic-spline" the density is continuous. Sampling evaluates
    two networks a lattice.

    Args:
        shape: (channels, height, width) with even sides.
        widths: of the networks, by lattice from the finest on; the last entry is for all smaller ones.
        blocks: of the networks, as `widths`.
        density: of pixels given those before them, one of `lattice.DENSITIES` (see `pixel_map`).
        components: of that density, logistics, knots or trapezoids.
        ramp: of splines, 1/64 of a grey level: the length on which the density falls beside a level that is frequent.
        steps: of coupling.
        coupling: the map of elements, "affine", "mixture-of-logistics" or "rational-quadratic".
        coupling_width: of the couplings' networks, as `coupling_blocks`.
        lead: rows of pixels that make a code before all latents (see `LeadingLattice`), 0 for none.
        summary: the width of the network that makes the code.
        canvas: to all lattices but the finest the code says what is where (see `ConvolutionalNet`).

    Raises:
        TzkError: for shapes that cannot be cut.
    """
    _check(shape, widths, blocks, lead=lead)
    half = (shape[0], shape[1] // 2, shape[2] // 2)
    code = shape[0] * lead * half[2]
    sizes = _sizes(widths, blocks)
    pixels: dict[str, Any] = {"components": components, "density": density, "levels": levels, "ramp": ramp}
    given: dict[str, Any] = {"code": code, "canvas": canvas}
    coarse = _coarse(half, sizes[1:] or sizes, pixels, given=given)
    inner = Composite([coarse, *_steps(half, steps, coupling, width=coupling_width, blocks=coupling_blocks)])
    finest = pixels | sizes[0]._asdict()
    if lead:
        return LeadingLattice(tuple(shape), inner, lead, summary=summary, **finest)
    return Lattice(tuple(shape), inner, flat=True, **finest)


def _check(shape: tuple[int, ...], widths: Sequence[int], blocks: Sequence[int], *, lead: int) -> None:
    if len(shape) != 3 or shape[1] % 2 or shape[2] % 2:
        raise TzkError(
            f"the recipe multiscale is for images, (channels, height, width) of even sides; got {tuple(shape)}"
        )
    if not widths or not blocks:
        raise TzkError("multiscale expects widths and blocks for at least one lattice")
    if lead < 0 or lead > shape[1] // 2:
        raise TzkError(f"multiscale can have 0 to {shape[1] // 2} rows of pixels lead; got {lead}")


class _Size(NamedTuple):
    """The size of the networks of a lattice."""

    width: int
    blocks: int


def _sizes(widths: Sequence[int], blocks: Sequence[int]) -> list[_Size]:
    """Sizes of networks by lattice, finest first; the last repeats."""
    count = max(len(widths), len(blocks))
    return [_Size(widths[min(i, len(widths) - 1)], blocks[min(i, len(blocks) - 1)]) for i in range(count)]


def _coarse(
    shape: tuple[int, ...], sizes: Sequence[_Size], pixels: dict[str, Any], *, given: dict[str, Any]
) -> Transform:
    """Nested lattices from `shape` down to the smallest image.

    pixels: the arguments of their `pixel_map`.
    given: their code, and how they take it.
    """
    if shape[1] % 2 or shape[2] % 2:
        return GreyLevels(shape, **pixels)
    half = (shape[0], shape[1] // 2, shape[2] // 2)
    inner = _coarse(half, sizes[1:] or sizes, pixels, given=given)
    return Lattice(shape, inner, **given, **sizes[0]._asdict(), **pixels)


def _steps(shape: tuple[int, ...], steps: int, coupling: str, *, width: int, blocks: int) -> list[Transform]:
    """Coupling steps on an image of latents, then its flattening.

    The image is squeezed first if its sides are even.
    """
    layers: list[Transform] = []
    if shape[1] % 2 == 0 and shape[2] % 2 == 0:
        layers.append(Squeeze(shape))
        shape = layers[0].output_shape
    if shape[0] > 1:
        for step in range(steps):
            layers += [
                ActNorm(shape),
                PointwiseConvolution(shape, "orthogonal", seed=step),
                Coupling(shape, coupling, 4, width=width, blocks=blocks),
            ]
    return [*layers, Flatten(shape)]
