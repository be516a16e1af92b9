"""Detection by one statistic.

There are the area under the ROC curve, and a threshold by false alarms.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from tzk_core.errors import TzkError


@dataclass(frozen=True)
class Area:
    """The area under a ROC curve, 0 to 1, and its standard error."""

    area: float
    standard_error: float | None


def roc_area(inside: Tensor, outside: Tensor) -> Area:
    """The probability that the statistic is larger `inside` than `outside`.

    Ties count half (Mann and Whitney). The standard error is that of DeLong, DeLong and Clarke-Pearson (1988): the sum
    of the variances of the shares of one sample that the values of the other exceed. It is None where one sample has a
    single value.

    Args:
        inside: (m,).
        outside: (n,).
    """
    inside, outside = _checked(inside, "inside"), _checked(outside, "outside")
    exceeded = _share_below(inside, outside)  # by every inside value, of the outside ones
    exceeding = 1 - _share_below(outside, inside)
    area = exceeded.mean().item()
    if len(inside) < 2 or len(outside) < 2:
        return Area(area, None)
    return Area(area, math.sqrt((exceeded.var() / len(inside) + exceeding.var() / len(outside)).item()))


def threshold(inside: Tensor, false_alarms: float) -> float:
    """The largest value of `inside`, (n,), with at most the share `false_alarms` below it.

    Without ties these are exactly ⌊false_alarms · n⌋ of them.

    Raises:
        TzkError: unless 0 <= false_alarms < 1.
    """
    if not 0 <= false_alarms < 1:
        raise TzkError(f"the share of false alarms is at least 0 and below 1; got {false_alarms}")
    inside = _checked(inside, "inside").sort().values
    return inside[int(math.floor(false_alarms * len(inside) + 1e-9))].item()


def _share_below(values: Tensor, others: Tensor) -> Tensor:
    """The shares of `others` below `values`, equal ones counting half."""
    ordered = others.sort().values
    below, not_above = (torch.searchsorted(ordered, values, right=right).double() for right in (False, True))
    return (below + not_above) / (2 * len(others))


def _checked(values: Tensor, what: str) -> Tensor:
    if values.dim() != 1 or not len(values):
        raise TzkError(f"values {what} are expected as (n,), n at least 1; got {tuple(values.shape)}")
    if values.isnan().any():
        raise TzkError(f"values {what} hold nan, first at {int(values.isnan().nonzero()[0])}")
    return values.double().contiguous()
