"""A manifest is not believed: whatever is altered in it, the model is the one that was saved, or is refused."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from manifests import rewritten

import tzk_core
from tzk_core import TzK, build_flow, build_knowledge
from tzk_core.errors import TzkError
from tzk_core.storage.checkpoint import load_trainer, save_checkpoint
from tzk_core.storage.manifest import read_manifest
from tzk_core.storage.stored import read_stored

T = torch.rand(3, 1, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float32)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = TzK(build_flow((1, 4, 4), steps=1, tile=2))
    model.add("all", build_knowledge("gaussian", (1, 4, 4), 0, name="all", hidden=4, layers=2))
    model.add("one", build_knowledge("flow", (1, 4, 4), 0, name="one", steps=1, tile=2, hidden=4))
    model.find("one").describe_as(implies=("all",))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    folder = tmp_path_factory.mktemp("run") / "checkpoint"
    save_checkpoint(model, folder, {"step": 120})
    return folder


def figures(folder: Path) -> dict[str, Any]:
    """All that a checkpoint computes, and what it says of its knowledge."""
    model = tzk_core.load(folder)
    with torch.no_grad():
        found: dict[str, Any] = {name: model.log_prob(T, name).tolist() for name in model.knowledge}
    return found | {
        "": model.log_prob(T).tolist(),
        "implies": {name: kind.implies for name, kind in model.named_knowledge()},
        "opaque": sorted(model.opaque),
    }


def copied(saved: Path, folder: Path) -> Path:
    return shutil.copytree(saved, folder, dirs_exist_ok=True)


@pytest.mark.parametrize("itself", [True, False], ids=["with its hash", "as older versions wrote it"])
def test_one_letter_altered_anywhere_changes_no_figure(saved: Path, tmp_path: Path, itself: bool) -> None:
    """A digit for a digit, a letter for a letter: what stays readable is the danger."""
    folder, expected = copied(saved, tmp_path / "checkpoint"), figures(saved)
    if not itself:
        rewritten(folder, lambda manifest: None, headers=False)
    path = folder / "manifest.json"
    text = path.read_text()
    places = [i for i, letter in enumerate(text) if letter.isalnum() or letter in "-."]
    refused = 0
    for place in random.Random(0).sample(places, 150):
        other = "7" if text[place].isdigit() and text[place] != "7" else "b" if text[place] != "b" else "c"
        path.write_text(text[:place] + other + text[place + 1 :])
        try:
            assert figures(folder) == expected, text[place - 30 : place + 10]
        except TzkError:
            refused += 1
    assert refused == 150 if itself else refused > 120


def set_at(*keys: str | int, to: Any) -> Callable[[dict[str, Any]], None]:
    def change(manifest: dict[str, Any]) -> None:
        for key in keys[:-1]:
            manifest = manifest[key]  # type: ignore[index]
        manifest[keys[-1]] = to  # type: ignore[index]

    return change


ALTERED = {
    "alpha": set_at("core", "parts", "recipe", "arguments", "alpha", to=0.05),
    "base": set_at("core", "parts", "base", to="logistic"),
    "no such base": set_at("core", "parts", "base", to="cauchy"),
    "shape": set_at("core", "parts", "shape", to=[16, 1, 1]),
    "core's hash": set_at("core", "hash", to="0" * 64),
    "core of knowledge": set_at("knowledge", "one", "core", to="0" * 64),
    "name": set_at("knowledge", "all", "part", "name", to="low-rank"),
    "plugin": set_at("knowledge", "all", "part", "plugin", to="other"),
    "implies": set_at("knowledge", "one", "implies", to=[]),
    "no part": set_at("knowledge", "one", "part", to=None),
    "layers": set_at("knowledge", "all", "part", "arguments", "layers", to=10**6),
}


@pytest.mark.parametrize("what", ALTERED)
def test_what_an_older_manifest_says_is_compared_with_the_files(saved: Path, tmp_path: Path, what: str) -> None:
    folder = copied(saved, tmp_path / "checkpoint")
    rewritten(folder, ALTERED[what], headers=False)
    with pytest.raises(TzkError):
        tzk_core.load(folder)


def test_an_older_manifest_opens_and_gets_its_hash_at_the_next_save(saved: Path, tmp_path: Path) -> None:
    folder = copied(saved, tmp_path / "checkpoint")
    rewritten(folder, lambda manifest: None, headers=False)
    assert figures(folder) == figures(saved)
    tzk_core.save(tzk_core.load(folder), folder)
    assert "sha256" in json.loads((folder / "manifest.json").read_text())
    assert figures(folder) == figures(saved)


PLACES = [("core", "file"), ("trainer", "file"), ("knowledge", "one", "file")]


@pytest.mark.parametrize("keys", PLACES, ids=lambda keys: keys[0])
@pytest.mark.parametrize("where", ["/dev/zero", "../outside", "core.safetensors/", "C:\\x", ""])
def test_files_have_fixed_names(saved: Path, tmp_path: Path, keys: tuple[str, ...], where: str) -> None:
    folder = copied(saved, tmp_path / "checkpoint")
    rewritten(folder, set_at(*keys, to=where), headers=False)
    with pytest.raises(TzkError, match="manifest.json is damaged"):
        read_stored(folder, trainer=True)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes are of POSIX")
@pytest.mark.parametrize("name", ["manifest.json", "core.safetensors", "trainer.pt", "knowledge/one.safetensors"])
@pytest.mark.parametrize("kind", ["a pipe", "a folder", "a device"])
def test_files_are_regular_ones(saved: Path, tmp_path: Path, name: str, kind: str) -> None:
    path = copied(saved, tmp_path / "checkpoint") / name
    path.unlink()
    {"a pipe": os.mkfifo, "a folder": os.mkdir, "a device": lambda at: os.symlink("/dev/zero", at)}[kind](path)
    with pytest.raises(TzkError, match=f"is expected to be a file; it is {kind}"):
        load_trainer(tmp_path / "checkpoint") if name == "trainer.pt" else tzk_core.load(tmp_path)


def paths(value: Any, at: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Where a manifest has anything."""
    within = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return ([at] if at else []) + [place for key, each in within for place in paths(each, (*at, key))]


VALUES: list[Any] = [None, True, -1, 0, 1.5, 10**30, "", "x", [], ["x"], [[]], {}, {"x": 1}, float("nan")]


def test_another_structure_anywhere_is_a_sentence(saved: Path, tmp_path: Path) -> None:
    folder, expected = copied(saved, tmp_path / "checkpoint"), figures(saved)
    manifest = read_manifest(saved)
    path, source = folder / "manifest.json", random.Random(1)
    for place in paths(manifest):
        for value in [*source.sample(VALUES, 3), ...]:
            altered = json.loads(json.dumps(manifest))
            within = altered
            for key in place[:-1]:
                within = within[key]
            if value is ...:
                del within[place[-1]]
            else:
                within[place[-1]] = value
            path.write_text(json.dumps(altered))
            try:
                load_trainer(folder) if place[0] == "trainer" else tzk_core.load(folder)
            except TzkError:
                continue
            assert {**figures(folder), "opaque": []} == expected | {"opaque": []} or place[0] == "knowledge", place


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, '{"format": ' + "1" * 5000 + "}", "\ufeff{}", "nan", '{"format": 1e0}', '{"format": true}', "null"],
    ids=["brackets", "digits", "byte-order mark", "nan", "1e0", "true", "null"],
)
def test_what_is_no_manifest_is_a_sentence(saved: Path, tmp_path: Path, text: str) -> None:
    path = copied(saved, tmp_path / "checkpoint") / "manifest.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(TzkError, match=r"manifest\.json (is damaged|has format)"):
        tzk_core.load(tmp_path)
