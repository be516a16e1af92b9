"""Monotone rational-quadratic splines (Durkan et al. 2019), as nflows has them but without boolean indexing.

nflows gathers the elements inside the tails and scatters them back. Here all elements are computed, those outside at
the nearest knot, and a choice by element follows. So shapes depend on no value: one graph, and `torch.func.vmap` works.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from nflows.transforms.base import InputOutsideDomain, Transform
from torch import Tensor, nn
from torch.nn import functional

from tzk_core.tensors import mapped


@dataclass(frozen=True)
class Spline:
    """What nflows' layers say about their splines.

    tails: "linear" for the identity outside of [-bound, bound]; None for a spline on [0, 1] alone.
    minimum: the least width and height of a bin, as a share of the interval.
    """

    tails: str | None
    bound: float
    minimum: tuple[float, float]
    least_slope: float

    @classmethod
    def of(cls, layer: Transform) -> Spline:
        """As a layer of nflows has it."""
        return cls(layer.tails, layer.tail_bound, (layer.min_bin_width, layer.min_bin_height), layer.min_derivative)

    @property
    def interval(self) -> tuple[float, float]:
        return (0.0, 1.0) if self.tails is None else (-self.bound, self.bound)


class Raw(NamedTuple):
    """Unconstrained parameters of splines, as a network returns them.

    sizes: widths and heights before their softmax, (…, 2, bins).
    slopes: before their softplus, (…, bins - 1) with tails and (…, bins + 1) without.
    """

    sizes: Tensor
    slopes: Tensor

    @classmethod
    def of_network(cls, parameters: Tensor, bins: int, network: nn.Module) -> Raw:
        """Split (…, 3 bins ± 1) outputs of a network.

        nflows divides sizes by the root of a network's width, where it tells one.
        """
        width = getattr(network, "hidden_features", getattr(network, "hidden_channels", 1))
        sizes = parameters[..., : 2 * bins].unflatten(-1, (2, bins))
        return cls(sizes if width == 1 else sizes / math.sqrt(width), parameters[..., 2 * bins :])


class Piece(NamedTuple):
    """The bin of every element and the slopes at both of its knots."""

    left: Tensor
    bottom: Tensor
    width: Tensor
    height: Tensor
    slope: Tensor
    next_slope: Tensor


def evaluate(inputs: Tensor, raw: Raw, spline: Spline, *, inverse: bool) -> tuple[Tensor, Tensor]:
    """The spline, or its inverse, of every element.

    Args:
        inputs: of any shape, ….
        raw: the parameters of every element.

    Returns:
        Outputs and log-derivatives, … each.

    Raises:
        InputOutsideDomain: as nflows, where the spline has no tails; compiled or mapped it is nan there instead.
    """
    low, high = spline.interval
    inside = (inputs >= low) & (inputs <= high)
    if spline.tails is None and not torch.compiler.is_compiling() and not mapped() and not inside.all():
        raise InputOutsideDomain()
    values = torch.where(inside, inputs, low)  # clamp has no gradient at the bounds themselves
    piece = _piece(values, raw, spline, by_height=inverse)
    outputs, log_slope = _inverse(values, piece) if inverse else _forward(values, piece)
    if spline.tails is None:
        nan = torch.nan
        return torch.where(inside, outputs, nan), torch.where(inside, log_slope, nan)
    return torch.where(inside, outputs, inputs), torch.where(inside, log_slope, 0.0)


def _piece(values: Tensor, raw: Raw, spline: Spline, *, by_height: bool) -> Piece:
    low, high = spline.interval
    sizes, slopes = raw
    bins = sizes.shape[-1]
    least = _least(sizes, spline, bins)
    shares = least + (1 - bins * least) * functional.softmax(sizes, -1)
    knots = low + (high - low) * shares[..., :-1].cumsum(-1)
    at_knots = spline.least_slope + functional.softplus(slopes)
    index = (values.unsqueeze(-1) >= knots[..., int(by_height), :]).sum(-1)
    knots = functional.pad(functional.pad(knots, (1, 0), value=low), (0, 1), value=high)
    if spline.tails is not None:
        at_knots = functional.pad(at_knots, (1, 1), value=1.0)
    table = torch.cat([knots, at_knots.unsqueeze(-2)], -2)  # (…, 3, bins + 1)
    both = torch.stack([index, index + 1], -1).unsqueeze(-2)
    found = table.gather(-1, both.expand(*both.shape[:-2], 3, 2))
    (left, right), (bottom, top), (slope, next_slope) = (row.unbind(-1) for row in found.unbind(-2))
    return Piece(left, bottom, right - left, top - bottom, slope, next_slope)


def _least(sizes: Tensor, spline: Spline, bins: int) -> Tensor | float:
    width, height = spline.minimum
    if bins * max(width, height) > 1:
        raise ValueError(f"{bins} bins of at least {max(width, height)} of the interval do not fit in it")
    return width if width == height else sizes.new_tensor([[width], [height]])


def _forward(inputs: Tensor, piece: Piece) -> tuple[Tensor, Tensor]:
    place, mean = (inputs - piece.left) / piece.width, piece.height / piece.width
    across = place * (1 - place)
    denominator = mean + (piece.slope + piece.next_slope - 2 * mean) * across
    outputs = piece.bottom + piece.height * (mean * place.square() + piece.slope * across) / denominator
    return outputs, _log_slope(piece, place)


def _inverse(outputs: Tensor, piece: Piece) -> tuple[Tensor, Tensor]:
    mean = piece.height / piece.width
    excess = piece.slope + piece.next_slope - 2 * mean
    rise = outputs - piece.bottom
    a = rise * excess + piece.height * (mean - piece.slope)
    b = piece.height * piece.slope - rise * excess
    c = -mean * rise
    place = 2 * c / (-b - (b.square() - 4 * a * c).clamp_min(0).sqrt())
    return piece.left + piece.width * place, -_log_slope(piece, place)


def _log_slope(piece: Piece, place: Tensor) -> Tensor:
    """The log-derivative at `place` in [0, 1] (Durkan et al. 2019, Eq. 5)."""
    mean, across = piece.height / piece.width, place * (1 - place)
    denominator = mean + (piece.slope + piece.next_slope - 2 * mean) * across
    numerator = piece.next_slope * place.square() + 2 * mean * across + piece.slope * (1 - place).square()
    return (mean.square() * numerator).log() - 2 * denominator.log()
