"""Natural order, in which "digit-2" comes before "digit-10"."""

from __future__ import annotations

import re


def natural_key(text: str) -> tuple[tuple[int, int, str, str], ...]:
    """Sort key: digits compare as numbers, the rest as text; "1" and "01" differ.

    Python makes no int of more than 4,300 digits, so that numbers compare by their lengths and then as text.
    """
    return tuple(map(_key_of_part, re.findall(r"\d+|\D+", text)))


def _key_of_part(part: str) -> tuple[int, int, str, str]:
    if not (part.isdecimal() and part.isascii()):
        return 1, 0, part, ""
    number = part.lstrip("0")
    return 0, len(number), number, part
