"""Many knowledge types are written in one file, and all that is done with a checkpoint is as with a file each."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from knowledge_runs import TYPES, assert_says_the_same, made
from manifests import rewritten

import tzk_core
from tzk_core.errors import TzkError
from tzk_core.storage import manifest as manifests
from tzk_core.storage.checkpoint import save_checkpoint
from tzk_core.storage.knowledge_files import export_knowledge, import_knowledge, list_knowledge, remove_knowledge

NAMES = list(TYPES)


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """The same model with a file for each type, and with all types in one."""
    apart, together = tmp_path / "apart", tmp_path / "together"
    save_checkpoint(made(), apart / "checkpoint", {"step": 3})
    monkeypatch.setattr(manifests, "TOGETHER_FROM", len(NAMES))
    save_checkpoint(made(), together / "checkpoint", {"step": 3})
    return apart, together


def written(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "checkpoint").iterdir())


def test_all_types_are_in_one_file_from_so_many_on(runs: tuple[Path, Path]) -> None:
    assert written(runs[0]) == ["core.safetensors", "knowledge", "manifest.json", "trainer.pt"]
    assert written(runs[1]) == ["core.safetensors", "knowledge.bin", "manifest.json", "trainer.pt"]


def test_it_is_the_same_model(runs: tuple[Path, Path]) -> None:
    apart, together = (tzk_core.load(run) for run in runs)
    for name in NAMES:
        assert_says_the_same(apart, together, name)
        assert apart.find(name).implies == together.find(name).implies
    assert list_knowledge(runs[0]) == list_knowledge(runs[1])


def test_opened_lazily_it_is_the_same_model(runs: tuple[Path, Path]) -> None:
    apart, together = (tzk_core.open(run, lazy=True, in_memory=1) for run in runs)
    for name in NAMES:
        assert_says_the_same(apart, together, name)


def test_exported_files_are_the_same_to_the_byte(runs: tuple[Path, Path], tmp_path: Path) -> None:
    for run in runs:
        export_knowledge(run, NAMES, tmp_path / f"files-of-{run.name}")
    for path in (tmp_path / "files-of-apart").iterdir():
        assert path.read_bytes() == (tmp_path / "files-of-together" / path.name).read_bytes()


def test_fewer_types_have_files_of_their_own_again(runs: tuple[Path, Path], tmp_path: Path) -> None:
    apart, together = runs
    (file,) = export_knowledge(together, NAMES[-1], tmp_path / "files")
    for run in runs:
        remove_knowledge(run, NAMES[-1])
    assert "knowledge.bin" not in written(together)
    for path in (apart / "checkpoint/knowledge").iterdir():
        assert path.read_bytes() == (together / "checkpoint/knowledge" / path.name).read_bytes()
    import_knowledge(together, file)
    assert "knowledge" not in written(together)
    assert_says_the_same(tzk_core.load(together), made(), NAMES[-1])


def test_a_type_that_cannot_be_used_is_kept_to_the_byte(runs: tuple[Path, Path], tmp_path: Path) -> None:
    folder = runs[1] / "checkpoint"
    core = "0" * 64
    rewritten(folder, lambda manifest: manifest["knowledge"][NAMES[0]].update(core=core), headers=False)
    with pytest.raises(TzkError, match="altered"):  # the file says another hash of the flow
        tzk_core.load(folder)


def byte(place: float) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        content = bytearray(path.read_bytes())
        content[int(place * (len(content) - 1))] ^= 1
        path.write_bytes(content)

    return change


DAMAGE: dict[str, Callable[[Path], None]] = {
    **{f"a bit at {place}": byte(place) for place in (0, 0.2, 0.5, 0.8, 1)},
    "cut off": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"x"),
    "empty": lambda path: path.write_bytes(b""),
    "gone": Path.unlink,
    "a folder": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_damage_is_refused_by_name(runs: tuple[Path, Path], damage: Callable[[Path], None]) -> None:
    path = runs[1] / "checkpoint/knowledge.bin"
    damage(path)
    with pytest.raises(TzkError, match=r"knowledge\.bin"):
        tzk_core.load(runs[1])


def moved(manifest: dict[str, Any]) -> None:
    first, second = (manifest["knowledge"][name] for name in NAMES[:2])
    for key in ("offset", "size", "sha256"):
        first[key], second[key] = second[key], first[key]


def fewer(manifest: dict[str, Any]) -> None:
    del manifest["knowledge"][NAMES[-1]]


ALTERED: dict[str, Callable[[dict[str, Any]], Any]] = {
    "an offset": lambda manifest: manifest["knowledge"][NAMES[1]].update(offset=1),
    "a negative offset": lambda manifest: manifest["knowledge"][NAMES[0]].update(offset=-1),
    "a size": lambda manifest: manifest["knowledge"][NAMES[-1]].update(size=10**12),
    "no size": lambda manifest: manifest["knowledge"][NAMES[0]].pop("size"),
    "another file": lambda manifest: manifest["knowledge"][NAMES[0]].update(file="/dev/zero"),
    "the format of a file each": lambda manifest: manifest.update(format=1),
    "a format to come": lambda manifest: manifest.update(format=3),
    "two places changed": moved,
    "a type less": fewer,
}


@pytest.mark.parametrize("altered", ALTERED.values(), ids=ALTERED)
def test_the_manifest_is_not_believed(runs: tuple[Path, Path], altered: Callable[[dict[str, Any]], Any]) -> None:
    """Even with a hash of itself that fits."""
    rewritten(runs[1] / "checkpoint", altered, headers=False)
    with pytest.raises(TzkError):
        tzk_core.load(runs[1])


def test_a_checkpoint_takes_the_place_of_one_of_the_other_form(runs: tuple[Path, Path]) -> None:
    apart, together = (run / "checkpoint" for run in runs)
    save_checkpoint(tzk_core.load(apart), apart)
    assert json.loads((apart / "manifest.json").read_text())["format"] == 2
    shutil.rmtree(together)
    shutil.copytree(apart, together)
    assert_says_the_same(tzk_core.load(together), made(), NAMES[0])


def test_tensors_that_numpy_lacks_are_written(tmp_path: Path) -> None:
    from tzk_core.storage import tensors

    some = {"a": torch.ones(3, dtype=torch.bfloat16), "b": torch.zeros(2)}
    read = tensors.parse(tensors.written(some, {"x": "y"}), tmp_path)
    assert all(torch.equal(read[name], some[name]) and read[name].dtype == some[name].dtype for name in some)
