"""What a knowledge type may be called: its name is also a file's on any system and a module's, and is globbed."""

from __future__ import annotations

import re

UNSAFE = re.compile(r'[<>:"/\\|?*\[\].\x00-\x1f]')
"""What no name holds."""

STAND_IN = "-"
"""What a label's value has in the place of each of these once it is part of a name: "Greek/character24" in
`character-{character}` gives character-Greek-character24."""


def is_file_name(name: str) -> bool:
    """Whether `name` can be a file's without leading elsewhere."""
    return bool(name) and not any(letter in "./\\" or ord(letter) < 32 for letter in name)


def in_a_name(value: str) -> str:
    """The value of a label as part of a knowledge type's name."""
    return UNSAFE.sub(STAND_IN, value).strip()
