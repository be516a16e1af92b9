"""The same architectures over vectors in TzK, nflows, normflows and zuko, for `tabular.py`.

Every library uses its own layers and its own start. The widths, numbers of layers, bins and tail bounds are the same.
Matrices between spline couplings are as in the published model (Durkan et al. 2019) where a library has them. zuko has
none, and its spline flow masks one network where the others have a network a coupling. Masked networks have units of
tanh, TzK's default, in every library.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from nflows.nn.nets import ResidualNet
from peers import BINS, Unavailable, _imported
from torch import Tensor, nn

from tzk_core import TzK, build_flow

ARCHITECTURES = ("real-nvp", "maf", "rq-nsf-coupling")
RIVALS = ("nflows", "normflows", "zuko")
TAIL = 4.0
"""Splines are the identity beyond so many deviations."""


@dataclass(frozen=True)
class Sizes:
    """steps: layers of a flow. hidden: the width of networks, which have two hidden layers."""

    steps: int
    hidden: int


def tzk(architecture: str, dims: int, *, sizes: Sizes, seed: int) -> TzK:
    """The recipe of that name, with two hidden layers as everywhere here."""
    more: dict[str, Any] = {"blocks": 1, "steps": sizes.steps, "hidden": sizes.hidden}
    if architecture == "rq-nsf-coupling":
        more |= {"bins": BINS, "tail_bound": TAIL}
    return TzK(build_flow((dims,), architecture, seed=seed, **more))


def rival(library: str, architecture: str, *, dims: int, sizes: Sizes) -> tuple[nn.Module, Callable[[Tensor], Tensor]]:
    """A flow in another library, over standardised vectors, with log p(x) of (batch, dims).

    Raises:
        Unavailable: if the library is not installed.
    """
    return BUILDERS[library](architecture, dims, sizes)


def _residual(sizes: Sizes) -> Callable[[int, int], nn.Module]:
    return lambda inputs, outputs: ResidualNet(inputs, outputs, sizes.hidden, num_blocks=1)


def _nflows(architecture: str, dims: int, sizes: Sizes) -> tuple[nn.Module, Callable[[Tensor], Tensor]]:
    from nflows import transforms as of
    from nflows.distributions.normal import StandardNormal
    from nflows.flows.base import Flow

    parts: list[Any] = []
    for step in range(sizes.steps):
        mask = (torch.arange(dims) + step) % 2
        if architecture == "real-nvp":
            parts.append(of.AffineCouplingTransform(mask, _residual(sizes)))
        elif architecture == "maf":
            layer = of.MaskedAffineAutoregressiveTransform(
                dims, sizes.hidden, num_blocks=1, use_residual_blocks=False, activation=torch.tanh
            )
            parts += [layer, of.ReversePermutation(dims)]
        else:
            spline = of.PiecewiseRationalQuadraticCouplingTransform(
                mask, _residual(sizes), num_bins=BINS, tails="linear", tail_bound=TAIL
            )
            parts += [of.RandomPermutation(dims), of.LULinear(dims, identity_init=True), spline]
    if architecture == "rq-nsf-coupling":
        parts += [of.RandomPermutation(dims), of.LULinear(dims, identity_init=True)]
    flow = Flow(of.CompositeTransform(parts), StandardNormal([dims]))
    return flow, flow.log_prob


def _normflows(architecture: str, dims: int, sizes: Sizes) -> tuple[nn.Module, Callable[[Tensor], Tensor]]:
    library = _imported("normflows")
    parts: list[Any] = []
    for step in range(sizes.steps):
        if architecture == "real-nvp":
            seen = (dims + 1) // 2
            network = library.nets.MLP([seen, sizes.hidden, sizes.hidden, 2 * (dims - seen)], init_zeros=True)
            parts += [library.flows.AffineCouplingBlock(network), library.flows.Permute(dims, mode="swap")]
        elif architecture == "maf":
            layer = library.flows.MaskedAffineAutoregressive(
                dims, sizes.hidden, num_blocks=1, use_residual_blocks=False, activation=torch.tanh
            )
            order = library.flows.Permute(dims)
            order.perm = order.inv_perm = torch.arange(dims).flip(0)
            parts += [library.flows.Reverse(layer), order]  # the density is the slow direction unless turned round
        else:
            spline = library.flows.CoupledRationalQuadraticSpline(
                dims, 1, sizes.hidden, num_bins=BINS, tail_bound=TAIL, reverse_mask=bool(step % 2)
            )
            parts += [spline, library.flows.LULinearPermute(dims)]
    flow = library.NormalizingFlow(library.distributions.DiagGaussian(dims, trainable=False), parts)
    return flow, flow.log_prob


def _zuko(architecture: str, dims: int, sizes: Sizes) -> tuple[nn.Module, Callable[[Tensor], Tensor]]:
    library = _imported("zuko")
    widths = (sizes.hidden, sizes.hidden)
    if architecture == "real-nvp":
        flow = library.flows.RealNVP(dims, transforms=sizes.steps, hidden_features=widths)
    elif architecture == "maf":
        flow = library.flows.MAF(dims, transforms=sizes.steps, hidden_features=widths, activation=nn.Tanh)
    else:  # its intervals are [-5, 5]
        flow = library.flows.NSF(dims, transforms=sizes.steps, hidden_features=widths, bins=BINS, passes=2)
    return flow, lambda x: flow().log_prob(x)


BUILDERS = {"nflows": _nflows, "normflows": _normflows, "zuko": _zuko}

__all__ = ["ARCHITECTURES", "RIVALS", "Sizes", "Unavailable", "rival", "tzk"]
