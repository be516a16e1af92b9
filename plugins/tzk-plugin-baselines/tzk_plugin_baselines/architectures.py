"""The architectures: transforms of standardised observations to a latent, with or without a context vector.

All take the shape of one observation, then by name their own sizes and the length of the context, or None.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from functools import partial

import torch
from nflows.transforms.base import Transform
from nflows.transforms.conv import OneByOneConvolution
from nflows.transforms.permutations import ReversePermutation
from torch import Tensor

from tzk_core.errors import TzkError
from tzk_core.transforms.affine import Affine, ChannelAffine
from tzk_core.transforms.composite import Composite
from tzk_core.transforms.reshape import Flatten
from tzk_core.transforms.squeeze import Squeeze
from tzk_plugin_baselines import splines
from tzk_plugin_baselines.channels import Multiscale
from tzk_plugin_baselines.couplings import AdditiveCoupling, AffineCoupling
from tzk_plugin_baselines.made import AutoregressiveAffine, MixtureMade
from tzk_plugin_baselines.networks import Convolutional, dense

Shape = tuple[int, ...]


def nice(shape: Shape, *, steps: int, hidden: int, blocks: int, context: int | None = None) -> Transform:
    """`steps` additive couplings, then a scale for each dimension (Dinh et al. 2014, Section 3)."""
    network = partial(dense, hidden=hidden, blocks=blocks, context=context)
    return _couplings(shape, lambda mask: AdditiveCoupling(mask, network), steps=steps, between=False)


def real_nvp(shape: Shape, *, steps: int, hidden: int, blocks: int, context: int | None = None) -> Transform:
    """`steps` affine couplings of a checkerboard and its complement in turn.

    The architecture is that of Papamakarios et al. (2017, Section 4).

    An element-wise scale and shift, started from data, follows every coupling in the place of batch normalisation.
    """
    network = partial(dense, hidden=hidden, blocks=blocks, context=context)
    return _couplings(shape, lambda mask: AffineCoupling(mask, network), steps=steps, between=True)


def maf(shape: Shape, *, steps: int, hidden: int, blocks: int, context: int | None = None) -> Transform:
    """`steps` masked autoregressive layers, the order reversed from one to the next.

    The architecture is that of Papamakarios et al. (2017).
    """
    _check(steps)
    layers = _autoregressive(math.prod(shape), steps, hidden=hidden, blocks=blocks, context=context)
    return Composite([Flatten(shape), *layers])


def made_mog(shape: Shape, *, hidden: int, blocks: int, components: int, context: int | None = None) -> Transform:
    """One MADE whose conditionals are mixtures of `components` Gaussians.

    It is a transform to a standard Gaussian.
    """
    return maf_mog(shape, steps=0, hidden=hidden, blocks=blocks, components=components, context=context)


def maf_mog(
    shape: Shape, *, steps: int, hidden: int, blocks: int, components: int, context: int | None = None
) -> Transform:
    """`steps` masked autoregressive layers whose base is a MADE with mixtures.

    The architecture is that of Papamakarios et al. (2017, MAF MoG).
    """
    dims = math.prod(shape)
    layers = _autoregressive(dims, steps, hidden=hidden, blocks=blocks, context=context)
    base = MixtureMade(dims, hidden=hidden, blocks=blocks, components=components, context=context)
    return Composite([Flatten(shape), *layers, base])


def glow(shape: Shape, *, levels: int, steps: int, hidden: int, blocks: int, context: int | None = None) -> Transform:
    """`levels` times a squeeze and `steps` of Glow (Kingma and Dhariwal 2018).

    A step is a scale and shift, a 1×1 convolution and an affine coupling. Half of the channels are split off after
    every level but the last.
    """
    if levels < 1 or len(shape) != 3:
        raise TzkError(f"glow expects images, (c, h, w), and levels of at least 1; got {shape} and {levels}")
    _check(steps)
    network = partial(Convolutional, hidden=hidden, blocks=blocks, context=context)
    whole: list[Transform] = []
    shapes: list[Shape] = []
    inner = tuple(shape)
    for _ in range(levels):
        squeeze = Squeeze(inner)
        channels, *sides = squeeze.output_shape
        mask = torch.arange(channels) >= channels // 2
        parts: list[Transform] = [squeeze]
        for _ in range(steps):
            scale, mixing = ChannelAffine(squeeze.output_shape), OneByOneConvolution(channels)
            parts += [scale, mixing, AffineCoupling(mask.int(), network)]
        whole.append(Composite([*parts, ChannelAffine(squeeze.output_shape)]))
        shapes.append(squeeze.output_shape)
        inner = (channels - channels // 2, *sides)
    return Multiscale(whole, shapes)


ARCHITECTURES: dict[str, Callable[..., Transform]] = {
    "nice": nice,
    "real-nvp": real_nvp,
    "maf": maf,
    "made-mog": made_mog,
    "maf-mog": maf_mog,
    "glow": glow,
    "rq-nsf-coupling": splines.coupling,
}
"""By name; all take a shape, and by name their own sizes and the length of the context."""


def build(name: str, shape: Shape, *, sizes: Mapping[str, int], context: int | None = None) -> Transform:
    """An architecture by name, with those of the sizes that it takes."""
    taken = inspect.signature(ARCHITECTURES[name]).parameters
    return ARCHITECTURES[name](shape, **{key: sizes[key] for key in taken if key in sizes}, context=context)


def _couplings(shape: Shape, coupling: Callable[[Tensor], Transform], *, steps: int, between: bool) -> Transform:
    """`steps` couplings by mask.

    A scale and shift follows the last, and with `between` every one.
    """
    _check(steps)
    mask, dims = _checkerboard(shape), math.prod(shape)
    parts: list[Transform] = [Flatten(shape)]
    for step in range(steps):
        parts.append(coupling(mask if step % 2 == 0 else 1 - mask))
        if between or step == steps - 1:
            parts.append(Affine((dims,)))
    return Composite(parts)


def _autoregressive(dims: int, steps: int, *, hidden: int, blocks: int, context: int | None) -> list[Transform]:
    parts: list[Transform] = []
    for _ in range(steps):
        parts += [
            AutoregressiveAffine(dims, hidden=hidden, blocks=blocks, context=context),
            Affine((dims,)),
            ReversePermutation(dims),
        ]
    return parts


def _checkerboard(shape: Shape) -> Tensor:
    """Every second pixel of every row and column, flat; of a vector every second element."""
    return torch.stack(torch.meshgrid(*map(torch.arange, shape), indexing="ij")).sum(0).flatten() % 2


def _check(steps: int) -> None:
    if steps < 1:
        raise TzkError(f"a flow has at least one step; got {steps}")
