"""Domains of observations: grey levels, or an open interval for every dimension.

The intervals are of the real line.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import NamedTuple

from tzk_core.errors import TzkError

AUTO, LEVELS, REAL = "auto", "levels", "real"
HALF_LINE, UNIT = "(0, inf)", "(0, 1)"

Domain = str | list[str]
"""`LEVELS`, or the text of an interval for all dimensions, or one text a dimension."""

_INTERVAL = re.compile(r"\(\s*([^,\s]+)\s*,\s*([^,\s]+)\s*\)")
_EXPECTED = f"'{REAL}', or an open interval such as '{HALF_LINE}', '{UNIT}' or '(-inf, 3.5)'"


class Interval(NamedTuple):
    """The open interval (low, high); either end may be infinite."""

    low: float
    high: float


def interval(text: str) -> Interval:
    """Read the text of an interval.

    Raises:
        TzkError: unless it is `REAL`, or "(low, high)" with low < high.
    """
    if text == REAL:
        return Interval(-math.inf, math.inf)
    match = _INTERVAL.fullmatch(text.strip()) if isinstance(text, str) else None
    try:
        low, high = (float(end) for end in match.groups()) if match else (math.nan, math.nan)
    except ValueError:
        low = high = math.nan
    if not low < high:
        raise TzkError(f"a domain is expected as {_EXPECTED}; got {text!r}")
    return Interval(low, high)


def intervals(domain: str | Sequence[str], dims: int) -> list[Interval]:
    """The interval of every dimension.

    Raises:
        TzkError: for a text that is no interval, or a list that has not one a dimension.
    """
    if isinstance(domain, str):
        return [interval(domain)] * dims
    if len(domain) != dims:
        raise TzkError(f"a list of domains has one a dimension: expected {dims}; got {len(domain)}")
    return [interval(text) for text in domain]


def without_data(shape: Sequence[int]) -> str:
    """The domain without data: grey levels for images, (c, h, w), else the real line."""
    return LEVELS if len(shape) == 3 else REAL
