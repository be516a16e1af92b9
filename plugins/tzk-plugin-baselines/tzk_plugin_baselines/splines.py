"""Neural spline flows (Durkan et al. 2019) on standardised vectors.

Splines are those of nflows, matrices those of the core.
"""

from __future__ import annotations

import math
from functools import partial

from nflows.nn.nets import ResidualNet
from nflows.transforms.autoregressive import MaskedPiecewiseRationalQuadraticAutoregressiveTransform
from nflows.transforms.base import Transform
from nflows.transforms.coupling import PiecewiseRationalQuadraticCouplingTransform
from torch import arange

from tzk_core.errors import TzkError
from tzk_core.transforms.composite import Composite
from tzk_core.transforms.reshape import Flatten
from tzk_core.transforms.tiled_convolution import TiledConvolution
from tzk_plugin_baselines.couplings import SplineCoupling

Shape = tuple[int, ...]


def coupling(
    shape: Shape,
    *,
    steps: int,
    hidden: int,
    blocks: int,
    bins: int = 8,
    tail_bound: float = 4.0,
    context: int | None = None,
) -> Transform:
    """`steps` of a matrix and a coupling, and a matrix at the end.

    The halves take turns in the couplings.

    Splines are the identity beyond `tail_bound` deviations. With a context, of that length, networks see it too.

    Raises:
        TzkError: for fewer than two dimensions, of which a coupling has none to depend on.
    """
    dims = _checked(shape, steps=steps, bins=bins, tail_bound=tail_bound)
    if dims < 2:
        raise TzkError(f"couplings expect at least two dimensions; got {dims}: take recipe = 'rq-nsf-autoregressive'")
    network = partial(ResidualNet, hidden_features=hidden, num_blocks=blocks, context_features=context)
    layer = PiecewiseRationalQuadraticCouplingTransform if context is None else SplineCoupling
    parts: list[Transform] = [Flatten(shape)]
    for step in range(steps):
        mask = (arange(dims) + step) % 2
        spline = layer(mask, network, num_bins=bins, tails="linear", tail_bound=tail_bound)
        parts += [TiledConvolution((dims,)), spline]
    return Composite([*parts, TiledConvolution((dims,))])


def autoregressive(shape: Shape, *, steps: int, hidden: int, blocks: int, bins: int, tail_bound: float) -> Transform:
    """`steps` of a matrix and an autoregressive layer, and a matrix at the end.

    The masked autoregressive layers are of splines.

    Raises:
        TzkError: if `hidden` is less than the number of dimensions, which nflows' masks cut off from one another then.
    """
    dims = _checked(shape, steps=steps, bins=bins, tail_bound=tail_bound)
    if hidden < dims:
        raise TzkError(f"rq-nsf-autoregressive expects hidden = {dims} or more, one unit a dimension; got {hidden}")
    parts: list[Transform] = [Flatten(shape)]
    for _ in range(steps):
        spline = MaskedPiecewiseRationalQuadraticAutoregressiveTransform(
            dims, hidden, num_blocks=blocks, num_bins=bins, tails="linear", tail_bound=tail_bound
        )
        parts += [TiledConvolution((dims,)), spline]
    return Composite([*parts, TiledConvolution((dims,))])


def _checked(shape: Shape, *, steps: int, bins: int, tail_bound: float) -> int:
    """The number of dimensions."""
    if steps < 1 or bins < 2 or not tail_bound > 0:
        raise TzkError(
            "a spline flow expects steps of at least 1, bins of at least 2 and a tail_bound above 0; "
            f"got steps = {steps}, bins = {bins}, tail_bound = {tail_bound}"
        )
    return math.prod(shape)
