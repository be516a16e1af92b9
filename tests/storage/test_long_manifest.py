"""A long manifest is read type by type, as one that is read at once, and no damage passes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from knowledge_runs import TYPES, assert_says_the_same, made
from manifests import rewritten

import tzk_core
from tzk_core.errors import TzkError
from tzk_core.storage import long_manifest, schema
from tzk_core.storage import manifest as manifests
from tzk_core.storage.checkpoint import save_checkpoint
from tzk_core.storage.index import Index
from tzk_core.storage.long_manifest import read_index
from tzk_core.storage.manifest import read_manifest

NAMES = list(TYPES)


@pytest.fixture(params=["apart", "together"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint with a file for each type, or with one for all; letters are read a few at a time."""
    monkeypatch.setattr(manifests, "TOGETHER_FROM", len(NAMES) + (request.param == "apart"))
    save_checkpoint(made(), tmp_path / "checkpoint", {"step": 3})
    monkeypatch.setattr(long_manifest, "LONG", 0)
    monkeypatch.setattr(schema, "CHECKED_AT_ONCE", 2)
    monkeypatch.setattr(long_manifest, "CHECKED_AT_ONCE", 2)
    return tmp_path / "checkpoint"


@pytest.mark.parametrize("letters", [1, 7, 10**6])
def test_it_says_what_the_whole_one_says(folder: Path, monkeypatch: pytest.MonkeyPatch, letters: int) -> None:
    monkeypatch.setattr(long_manifest, "READ", letters)
    whole = read_manifest(folder)
    head, index = read_index(folder)
    assert head == {**whole, "knowledge": {}} and list(index) == list(whole["knowledge"])
    other = Index(whole)
    for name, entry in whole["knowledge"].items():
        assert index.entry(name) == other.entry(name) == entry
        assert index.implies(name) == tuple(entry["implies"]) and index.number(name) == other.number(name)
    assert list(index.alike()) == list(other.alike()) and "no-such" not in index and len(index) == len(NAMES)


def test_a_model_is_opened_by_it(folder: Path) -> None:
    model = tzk_core.open(folder, lazy=True)
    for name in NAMES:
        assert_says_the_same(model, made(), name)


ALTERED: dict[str, Callable[[dict[str, Any]], Any]] = {
    "a hash": lambda manifest: manifest["knowledge"][NAMES[1]].update(sha256="0" * 63),
    "another file": lambda manifest: manifest["knowledge"][NAMES[0]].update(file="/dev/zero"),
    "an entry that is none": lambda manifest: manifest["knowledge"].update({NAMES[-1]: 3}),
    "a place": lambda manifest: manifest["knowledge"][NAMES[1]].update(offset=1, size=-1),
    "a name in capitals": lambda manifest: manifest["knowledge"].update(
        {NAMES[0].upper(): manifest["knowledge"][NAMES[0]]}
    ),
    "a format to come": lambda manifest: manifest.update(format=3),
    "no flow": lambda manifest: manifest.pop("core"),
    "something more": lambda manifest: manifest.update(more=1),
    "no types": lambda manifest: manifest.pop("knowledge"),
}


@pytest.mark.parametrize("altered", ALTERED.values(), ids=ALTERED)
def test_what_is_wrong_is_refused(folder: Path, altered: Callable[[dict[str, Any]], Any]) -> None:
    """Even with a hash of itself that fits."""
    rewritten(folder, altered, headers=False)
    with pytest.raises(TzkError, match=r"manifest\.json"):
        read_index(folder)


TEXTS: dict[str, Callable[[str], str]] = {
    "cut off": lambda text: text[:-20],
    "more at its end": lambda text: text + "{}",
    "a letter": lambda text: text.replace('"implies"', '"implied"', 1),
    "no comma": lambda text: text.replace(",", " ", 1),
    "a number": lambda text: text.replace('"step": 3', '"step": 4'),
    "nothing": lambda text: "",
    "a list": lambda text: f"[{text}]",
    "twice": lambda text: text.replace('"knowledge": {', f'"knowledge": {{{json.dumps(NAMES[0])}: 1,', 1),
}


@pytest.mark.parametrize("damage", TEXTS.values(), ids=TEXTS)
def test_damage_is_found(folder: Path, damage: Callable[[str], str]) -> None:
    file = folder / "manifest.json"
    file.write_text(damage(file.read_text()))
    with pytest.raises(TzkError, match=r"manifest\.json"):
        read_index(folder)
