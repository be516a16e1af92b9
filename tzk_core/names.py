"""Names of knowledge types, data sets and runs, which name files on any system."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from functools import lru_cache

LONGEST = 200
"""Bytes of a name in UTF-8. File systems take 255 for a file's, and suffixes and stamps come behind it."""

STAND_IN = "-"
"""What a label's value has in the place of each character that no name holds: "Greek/character24" in
`character-{character}` gives character-Greek-character24."""

_IN_NO_FILE = '<>:"/\\|?*'
_IN_NO_KNOWLEDGE = _IN_NO_FILE + "[]{}."  # globs, columns to fill in, and the names of modules
_UNSEEN = frozenset(["Cc", "Cf", "Cs", "Zl", "Zp"])  # controls, directions, surrogates, line separators
_DEVICE = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|clock\$|(com|lpt)[0-9¹²³])(\..*)?", re.IGNORECASE)
_IGNORABLE = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]")
_COLUMN = re.compile(r"\{([^{}]*)\}")


def problem(name: str) -> str:
    """What is wrong with a knowledge type's name: "expected ...; got ...", "" if nothing is."""
    wanted = _wanted(name, _IN_NO_KNOWLEDGE)
    return f"expected {wanted}; got {name[:40] + '...' if len(name) > 40 else name!r}" if wanted else ""


def wanted_of_file(name: str) -> str:
    """The rule that a data set's or run's name breaks; "" if it will do.

    Unlike that of a knowledge type it may hold dots.
    """
    return _wanted(name, _IN_NO_FILE)


def column_problem(name: str) -> str:
    """What is wrong with the name of a label column or characteristic; "" if nothing is."""
    if name == "dataset":
        return "'dataset' stands for the data set itself where samples are described: rename the column"
    if not name or name != name.strip() or any(letter in "{}" or _is_unseen(letter) for letter in name):
        return f"expected a name without braces, invisible characters and edge spaces; got {name!r}: rename the column"
    return ""


@lru_cache(maxsize=8192)  # adding the thousandth knowledge type asks for all others
def key(name: str) -> str:
    """What names share that a file system may take for one.

    Case and normal form do not count there.
    """
    folded = unicodedata.normalize("NFC", _IGNORABLE.sub("", name)).casefold()
    return unicodedata.normalize("NFC", folded)


def in_a_name(value: str) -> str:
    """The value of a label as part of a name, in normal form C."""
    safe = "".join(STAND_IN if letter in _IN_NO_KNOWLEDGE or _is_unseen(letter) else letter for letter in value)
    return unicodedata.normalize("NFC", safe).strip()


def columns(pattern: str) -> list[str]:
    """The columns between the braces of a name such as `digit-{label}`.

    Raises:
        ValueError: where its braces do not match.
    """
    rest = _COLUMN.sub("", pattern)
    if "{" in rest or "}" in rest:
        raise ValueError(f"unmatched {'{' if '{' in rest else '}'} in {pattern!r}")
    return _COLUMN.findall(pattern)


def filled(pattern: str, values: Mapping[str, str]) -> str:
    """`digit-{label}` with the values of label columns, as far as a name can hold them."""
    return _COLUMN.sub(lambda match: in_a_name(values[match[1]]), pattern)


def glob(pattern: str) -> str:
    """`digit-*` for `digit-{label}`: what the names that it stands for look like."""
    return _COLUMN.sub("*", pattern)


def could_be(name: str, pattern: str) -> bool:
    """Whether `pattern`, its columns filled in, may come to be `name`."""
    texts = _COLUMN.split(pattern)[::2]
    return re.fullmatch(".+".join(map(re.escape, texts)), name, re.DOTALL) is not None


def _wanted(name: str, unsafe: str) -> str:
    size = len(name.encode("utf-8", "surrogatepass"))
    if not name:
        return "a name of at least one letter or digit, since the name is also a file's"
    if size > LONGEST:
        return f"a name of at most {LONGEST} bytes in UTF-8, since the name is also a file's (this has {size})"
    wrong = [letter for letter in dict.fromkeys(name) if letter in unsafe or _is_unseen(letter)]
    if wrong or name != name.strip() or name.startswith("-") or name.endswith("."):
        which = f" (this has {', '.join(map(_called, wrong))})" if wrong else ""
        return (
            f"a name without {' '.join(unsafe)}, invisible characters, edge spaces, '-' in front and '.' at the end, "
            f"since the name is also a file's{which}"
        )
    if _DEVICE.fullmatch(name):
        return "a name that is no device's on Windows, since the name is also a file's"
    if name != unicodedata.normalize("NFC", name):
        return "a name in the composed normal form (NFC), as keyboards give it"
    return ""


def _is_unseen(letter: str) -> bool:
    return unicodedata.category(letter) in _UNSEEN


def _called(letter: str) -> str:
    return f"U+{ord(letter):04X}" if _is_unseen(letter) else letter
