"""TOML, with a bound on the digits of a number.

Python has one for decimal numbers alone.
"""

from __future__ import annotations

import sys
import tomllib
from typing import Any

TOMLDecodeError = tomllib.TOMLDecodeError


def parse(text: str) -> dict[str, Any]:
    """The tables of a TOML document.

    Raises `TOMLDecodeError`, ValueError for a number of more digits than Python writes, which no error could show, and
    RecursionError.
    """
    tables = tomllib.loads(text)
    values: list[Any] = [tables]
    most = sys.get_int_max_str_digits() * 3  # bits, a little less than so many digits have
    while values:
        value = values.pop()
        if isinstance(value, dict):
            values.extend(value.values())
        elif isinstance(value, list):
            values.extend(value)
        elif most and isinstance(value, int) and value.bit_length() > most:
            raise ValueError(f"a number has {value.bit_length():,} bits")
    return tables
