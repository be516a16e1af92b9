"""nflows' layers of many forms, built as people build them, away from their neutral start."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from nflows.nn.nets import ConvResidualNet, ResidualNet
from nflows.transforms import autoregressive, conv, coupling, lu, nonlinearities
from nflows.transforms.base import Transform
from torch import Tensor
from torch.nn import functional

FEATURES = 6
net = partial(ResidualNet, hidden_features=8, num_blocks=1)
given = partial(net, context_features=2)
images = partial(ConvResidualNet, hidden_channels=4, num_blocks=1)
HALVES, REVERSED, EVERY_SECOND, SCATTERED = [0, 0, 0, 1, 1, 1], [1, 1, 1, 0, 0], [1, 0, 1, 0, 1, 0], [1, 1, 0, 1, 0, 0]


class Case(NamedTuple):
    """make: the layer. shape: of one input. unit: whether inputs lie in [0, 1]. context: its length, 0 for none."""

    make: Callable[[], Transform]
    shape: tuple[int, ...] = (FEATURES,)
    unit: bool = False
    context: int = 0

    def layer(self) -> Transform:
        torch.manual_seed(0)
        layer = self.make().double().eval()
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter += 0.3 * torch.randn_like(parameter)
        return layer

    def inputs(self, batch: int = 7) -> Tensor:
        """Both inside of the tails and beyond."""
        generator = torch.Generator().manual_seed(1)
        drawn = torch.rand if self.unit else torch.randn
        values = drawn(batch, *self.shape, generator=generator, dtype=torch.float64)
        return values if self.unit else 1.5 * values

    def contexts(self, batch: int = 7) -> Tensor | None:
        generator = torch.Generator().manual_seed(2)
        return torch.randn(batch, self.context, generator=generator, dtype=torch.float64) if self.context else None


SPLINE = partial(coupling.PiecewiseRationalQuadraticCouplingTransform, num_bins=5, tails="linear", tail_bound=2.0)
MAF = partial(autoregressive.MaskedAffineAutoregressiveTransform, FEATURES, 16)
RQ = partial(
    autoregressive.MaskedPiecewiseRationalQuadraticAutoregressiveTransform, FEATURES, 16, num_bins=5, tail_bound=2.0
)
CDF = nonlinearities.PiecewiseRationalQuadraticCDF
AFFINE, ADDITIVE = coupling.AffineCouplingTransform, coupling.AdditiveCouplingTransform

CASES: dict[str, Case] = {
    "affine": Case(lambda: AFFINE(HALVES, net)),
    "affine, other half, odd": Case(lambda: AFFINE(REVERSED, net), (5,)),
    "affine, every second": Case(lambda: AFFINE(EVERY_SECOND, net)),
    "affine, scattered": Case(lambda: AFFINE(SCATTERED, net)),
    "affine, given context": Case(lambda: AFFINE(HALVES, given), context=2),
    "affine, images": Case(lambda: AFFINE([1, 0, 1, 0], images), (4, 3, 3)),
    "additive": Case(lambda: ADDITIVE(HALVES, net)),
    "additive, scattered": Case(lambda: ADDITIVE(SCATTERED, net)),
    "spline": Case(lambda: SPLINE(HALVES, net)),
    "spline, scattered": Case(lambda: SPLINE(SCATTERED, net)),
    "spline, without tails": Case(lambda: SPLINE(HALVES, net, tails=None), unit=True),
    "spline, other least sizes": Case(lambda: SPLINE(HALVES, net, min_bin_width=0.01, min_bin_height=0.02)),
    "spline, all features": Case(lambda: SPLINE(HALVES, net, apply_unconditional_transform=True)),
    "spline, images": Case(lambda: SPLINE([1, 0, 1, 0], images), (4, 3, 3)),
    "elements": Case(lambda: CDF([FEATURES], tails="linear", tail_bound=2.0)),
    "elements, without tails": Case(lambda: CDF([FEATURES]), unit=True),
    "elements, images": Case(lambda: CDF([2, 3, 3], tails="linear"), (2, 3, 3)),
    "lu": Case(lambda: lu.LULinear(FEATURES, identity_init=False)),
    "convolution": Case(lambda: conv.OneByOneConvolution(4, identity_init=False), (4, 3, 3)),
    "maf": Case(MAF),
    "maf, feed-forward": Case(lambda: MAF(use_residual_blocks=False)),
    "maf, random masks": Case(lambda: MAF(use_residual_blocks=False, random_mask=True)),
    "maf, given context": Case(lambda: MAF(context_features=2, activation=functional.elu), context=2),
    "maf, feed-forward, given context": Case(lambda: MAF(context_features=2, use_residual_blocks=False), context=2),
    "maf, batch normalisation": Case(lambda: MAF(use_batch_norm=True)),
    "maf, dropout": Case(lambda: MAF(dropout_probability=0.5)),
    "maf, few units": Case(lambda: autoregressive.MaskedAffineAutoregressiveTransform(FEATURES, 3)),
    "maf, one feature": Case(lambda: autoregressive.MaskedAffineAutoregressiveTransform(1, 4), (1,)),
    "spline maf": Case(lambda: RQ(tails="linear")),
    "spline maf, without tails": Case(lambda: RQ(), unit=True),
    "spline maf, given context": Case(lambda: RQ(tails="linear", context_features=2), context=2),
}
"""Batch normalisation has no inverse unit by unit: its inverse stays nflows'."""
