"""Two names that a file system takes for one have one key, by its rules and on a real one.

`TZK_CASEFOLD` names a folder of a file system that folds case: an ext4 folder with `chattr +F`, vfat, APFS or NTFS.
"""

from __future__ import annotations

import os
import sys
import tempfile
import unicodedata
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tzk_core.names import key, problem

LETTERS = [chr(code) for code in range(0x20, sys.maxunicode + 1) if not 0xD800 <= code < 0xE000]


@pytest.fixture(scope="module")
def key_of() -> Mapping[str, str]:
    """The keys of all names that there are around a letter."""
    return {name: key(name) for name in (f"x{letter}y" for letter in LETTERS) if not problem(name)}


def of_ext4(name: str) -> str:
    """NFDi with full case folding, as fs/unicode of Linux has it."""
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", name).casefold())


def of_ntfs(name: str) -> str:
    """Letter by letter to upper case; dotless i, which has none there, stays."""
    return "".join(letter.upper() if len(letter.upper()) == 1 and letter != "ı" else letter for letter in name)


def of_hfs(name: str) -> str:
    """Decomposed, and letter by letter to lower case."""
    return "".join(each.lower() if len(each.lower()) == 1 else each for each in unicodedata.normalize("NFD", name))


@pytest.mark.parametrize("rule", [of_ext4, of_ntfs, of_hfs])
def test_what_a_file_system_takes_for_one_has_one_key(rule: Callable[[str], str], key_of: Mapping[str, str]) -> None:
    keys: dict[str, str] = {}
    differ = [name for name, own in key_of.items() if keys.setdefault(rule(name), own) != own]
    assert len(keys) > 100_000 and not differ


@pytest.mark.parametrize(
    "names",
    [("A", "a"), ("É", "é"), ("Σ", "ς"), ("ß", "ẞ"), ("\u212a", "k"), ("é", "e\u0301"), ("ſ", "S"), ("ﬁ", "fi")],
)
def test_names_that_differ_by_case_or_form_alone_have_one_key(names: tuple[str, str]) -> None:
    assert key(names[0]) == key(names[1])


def test_other_names_have_other_keys() -> None:
    names = ["a", "b", "ä", "ae", "1", "¹x", "ı", "i", "o", "ø", "k-a", "ka", "字", "学"]
    assert len(set(map(key, names))) == len(names)


@pytest.mark.skipif("TZK_CASEFOLD" not in os.environ, reason="TZK_CASEFOLD names no folder that folds case")
def test_a_real_file_system_takes_for_one_what_has_one_key(key_of: Mapping[str, str]) -> None:
    """Each letter that has another case or form, against the file system itself."""
    varied = [
        (name, other)
        for name in key_of
        for other in {name.upper(), name.lower(), name.casefold(), name.swapcase(), unicodedata.normalize("NFD", name)}
        if other != name
    ]
    with tempfile.TemporaryDirectory(dir=os.environ["TZK_CASEFOLD"]) as folder:
        (Path(folder) / "A").touch()
        assert (Path(folder) / "a").exists(), "the folder does not fold case"
        for name, other in varied:
            file = Path(folder) / name
            file.touch()
            assert not (Path(folder) / other).exists() or key(name) == key(other), (name, other)
            file.unlink()
