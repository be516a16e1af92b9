"""Files of knowledge that do not fit, or were altered, are refused, and nothing is written."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from knowledge_runs import flipped, made, refused, saved
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

import tzk_core
from tzk_core.errors import TzkError
from tzk_core.storage.knowledge_files import (
    export_knowledge,
    import_knowledge,
    remove_knowledge,
)
from tzk_core.storage.knowledge_format import KnowledgeFile, parse_export


def test_knowledge_of_another_shared_flow_is_refused_with_both_hashes(tmp_path: Path) -> None:
    """A file of another seed fits by all its shapes."""
    one, other = saved(tmp_path / "one", made()), saved(tmp_path / "other", made(("all",), seed=1))
    (file,) = export_knowledge(one, "b", tmp_path)
    message = refused(other, "does not fit .*hashes of its weights", lambda: import_knowledge(other, file))
    cores = [json.loads((run / "checkpoint/manifest.json").read_text())["core"]["hash"] for run in (one, other)]
    assert cores[0] != cores[1] and all(core[:12] in message for core in cores)


def test_a_flow_that_went_on_training_is_another(tmp_path: Path) -> None:
    model = made()
    (file,) = export_knowledge(saved(tmp_path / "one", model), "b", tmp_path)
    with torch.no_grad():
        next(model.flow.parameters()).view(-1)[0] += 1e-6
    later = saved(tmp_path / "later", model)
    refused(later, "does not fit", lambda: import_knowledge(later, file, name="c"))


def header(content: bytes) -> dict[str, Any]:
    return json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])


def edited(content: bytes, edit: Callable[[dict[str, Any]], None]) -> bytes:
    """The file with its metadata, parsed, changed by `edit`, and all else as it was."""
    whole, length = header(content), int.from_bytes(content[:8], "little")
    metadata = {key: json.loads(text) for key, text in whole["__metadata__"].items()}
    edit(metadata)
    whole["__metadata__"] = {key: json.dumps(value) for key, value in metadata.items()}
    text = json.dumps(whole, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + content[8 + length :]


def test_edited_gives_a_sound_file_back_if_nothing_is_edited(tmp_path: Path) -> None:
    (file,) = export_knowledge(saved(tmp_path / "one", made()), "a é", tmp_path)
    assert edited(file.read_bytes(), lambda metadata: None) == file.read_bytes()


def as_pickle(content: bytes) -> bytes:
    return pickle.dumps(load_tensors(content))


ALTERED = "was cut off or altered after it was exported"
NO_EXPORT = "expected one that `tzk knowledge export` wrote"
DAMAGE: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "first tensor byte": (lambda c: flipped(c, 8 + int.from_bytes(c[:8], "little")), ALTERED),
    "last tensor byte": (lambda c: flipped(c, -1), ALTERED),
    "name": (lambda c: edited(c, lambda m: m["tzk"].update(name="other")), ALTERED),
    "core": (lambda c: edited(c, lambda m: m["tzk"].update(core="0" * 64)), ALTERED),
    "implies": (lambda c: edited(c, lambda m: m["tzk"].update(implies=[])), ALTERED),
    "argument": (lambda c: edited(c, lambda m: m["tzk"]["part"]["arguments"].update(hidden=7)), ALTERED),
    "plugin": (lambda c: edited(c, lambda m: m["tzk"]["part"].update(plugin="other")), ALTERED),
    "sha256": (lambda c: edited(c, lambda m: m["tzk-knowledge"].update(sha256="0" * 64)), ALTERED),
    "more metadata": (lambda c: edited(c, lambda m: m.update(more=1)), ALTERED),
    "format": (lambda c: edited(c, lambda m: m["tzk-knowledge"].update(format=2)), "has format 2; .* reads format 1"),
    "a tensor renamed": (lambda c: c.replace(b'"log_odds"', b'"log_oddS"'), ALTERED),
    "cut off by a byte": (lambda c: c[:-1], ALTERED),
    "cut off within the tensors": (lambda c: c[: len(c) - 500], ALTERED),
    "cut off within the header": (lambda c: c[:100], NO_EXPORT),
    "something behind": (lambda c: c + b"\0", ALTERED),
    "empty": (lambda c: b"", NO_EXPORT),
    "text": (lambda c: b"digit-7: a knowledge type\n" * 20, NO_EXPORT),
    "a list": (lambda c: (2).to_bytes(8, "little") + b"[]", NO_EXPORT),
    "nested without end": (lambda c: (100_000).to_bytes(8, "little") + b"[" * 100_000, NO_EXPORT),
    "half a letter": (lambda c: c.replace(b'"log_odds"', b'"\\ud800_"'), NO_EXPORT),
    "pickle": (as_pickle, "is a pickle, .*would run whatever it holds"),
    "zip, as torch.save writes": (lambda c: b"PK\x03\x04" + c, "is a pickle"),
    "other safetensors": (lambda c: save_tensors(load_tensors(c)), "do not say which knowledge they are"),
    "of a checkpoint": (lambda c: edited(c, lambda m: m.pop("tzk-knowledge")), "a checkpoint's own.*export RUN NAME"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_file_that_was_tampered_with_is_refused(tmp_path: Path, damage: str) -> None:
    one, other = saved(tmp_path / "one", made()), saved(tmp_path / "other", made(("all",)))
    sound, file = export_knowledge(one, ["a é", "b"], tmp_path)
    alter, words = DAMAGE[damage]
    content = file.read_bytes()
    assert alter(content) != content
    file.write_bytes(alter(content))
    message = refused(other, words, lambda: import_knowledge(other, [sound, file]))
    assert str(file) in message


def test_no_byte_of_a_file_can_be_changed_unnoticed(tmp_path: Path) -> None:
    (file,) = export_knowledge(saved(tmp_path / "one", made()), "b", tmp_path)
    content = file.read_bytes()
    for at in range(len(content)):
        with pytest.raises(TzkError):
            parse_export(flipped(content, at), file)
    assert parse_export(content, file).name == "b"


def test_a_file_opens_whatever_the_length_of_its_header(tmp_path: Path) -> None:
    """The length comes first in the file: its lowest byte can be the first one of a pickle, 0x80."""
    (file,) = export_knowledge(saved(tmp_path / "one", made()), "b", tmp_path)
    read = parse_export(file.read_bytes(), file)
    files = {name: read.renamed(name).sealed() for name in ("n" * length for length in range(1, 257, 4))}
    assert {content[0] for content in files.values()} == set(range(0, 256, 8)), "all that there can be"
    for name, content in files.items():
        assert parse_export(content, file).name == name
        with pytest.raises(TzkError, match="not a safetensors file"):
            parse_export(content[:30], file)


@pytest.mark.parametrize("name", ["../../evil", "a/b", "", ".", "x.y", "a\\b"])
def test_a_name_that_leads_elsewhere_is_refused_even_in_a_sound_file(tmp_path: Path, name: str) -> None:
    one, other = saved(tmp_path / "one", made()), saved(tmp_path / "other", made(("all",)))
    (file,) = export_knowledge(one, "b", tmp_path)
    file.write_bytes(parse_export(file.read_bytes(), file).renamed(name).sealed())
    refused(other, "name is also a file's.*--as", lambda: import_knowledge(other, file))
    assert import_knowledge(other, file, name="c").knowledge == ("c",)


@pytest.mark.parametrize(
    "entries",
    [
        {"part": None},
        {"part": {"name": "gaussian"}},
        {"implies": "all"},
        {"implies": [3]},
        {"core": 3},
    ],
)
def test_a_hash_over_nonsense_does_not_make_it_sense(tmp_path: Path, entries: dict[str, Any]) -> None:
    one = saved(tmp_path / "one", made())
    (file,) = export_knowledge(one, "b", tmp_path)
    read = parse_export(file.read_bytes(), file)
    file.write_bytes(KnowledgeFile("c", {**read.entry, **entries}, read.content).sealed())
    refused(one, "is damaged: it does not say", lambda: import_knowledge(one, file))


def test_tensors_that_are_not_those_of_the_part_are_refused(tmp_path: Path) -> None:
    one = saved(tmp_path / "one", made())
    (file,) = export_knowledge(one, "b", tmp_path)
    read = parse_export(file.read_bytes(), file)
    part = {**read.entry["part"], "arguments": {**read.entry["part"]["arguments"], "hidden": 9}}
    file.write_bytes(KnowledgeFile("c", {**read.entry, "part": part}, read.content).sealed())
    refused(one, "does not fit the model: .* tensors differ", lambda: import_knowledge(one, file))


def test_a_taken_name_asks_for_another(tmp_path: Path) -> None:
    one = saved(tmp_path / "one", made())
    files = export_knowledge(one, ["b", "a é"], tmp_path)
    refused(one, "has one called 'b' already: give it another name with --as", lambda: import_knowledge(one, files[0]))
    refused(one, "has one called 'a é' already", lambda: import_knowledge(one, files[0], name="a é"))
    refused(one, "has one called 'b' already", lambda: import_knowledge(one, files[0], name="B"))
    refused(one, "a name is for one file: got 2 files", lambda: import_knowledge(one, files, name="c"))
    other = saved(tmp_path / "other", made(("all",)))
    refused(other, "has one called 'b' already", lambda: import_knowledge(other, [files[0], files[0]]))


def test_knowledge_does_not_come_to_imply_itself(tmp_path: Path) -> None:
    one, other = saved(tmp_path / "one", made()), saved(tmp_path / "other", made(("b",)))
    (file,) = export_knowledge(one, "a é", tmp_path)
    refused(other, "'all' would imply itself", lambda: import_knowledge(other, file, name="all"))


def test_implied_knowledge_that_is_not_there_is_named(tmp_path: Path) -> None:
    one, other = saved(tmp_path / "one", made()), saved(tmp_path / "other", made(()))
    files = export_knowledge(one, ["a é", "b", "all"], tmp_path)
    (warning,) = import_knowledge(other, files[1]).warnings
    assert "'b' implies 'all'" in warning and "other" in warning
    assert import_knowledge(other, [files[0], files[2]]).warnings == ()


def test_an_unknown_name_suggests_the_nearest(tmp_path: Path) -> None:
    one = saved(tmp_path / "one", made(("all", "b")))
    refused(one, "no knowledge type 'al'; did you mean 'all'", lambda: remove_knowledge(one, ["b", "al"]))
    refused(one, "no knowledge type 'al'; did you mean 'all'", lambda: export_knowledge(one, ["b", "al"], tmp_path))
    refused(one, "no knowledge type 'zzz'; there is 'all', 'b'", lambda: remove_knowledge(one, "zzz"))
    assert not list(tmp_path.glob("*.safetensors"))


def test_an_export_overwrites_nothing(tmp_path: Path) -> None:
    run = saved(tmp_path / "one", made())
    (tmp_path / "b.safetensors").write_text("mine")
    with pytest.raises(TzkError, match="b.safetensors is there already, and nothing is overwritten"):
        export_knowledge(run, ["all", "b"], tmp_path)
    assert (tmp_path / "b.safetensors").read_text() == "mine" and not (tmp_path / "all.safetensors").exists()
    with pytest.raises(TzkError, match="is one file, which holds one knowledge type: name a folder for 2"):
        export_knowledge(run, ["all", "b"], tmp_path / "both.safetensors")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(TzkError, match="cannot be written"):
        export_knowledge(run, "all", tmp_path / "file")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    run = saved(tmp_path / "one", made())
    export_knowledge(run, "b", tmp_path / "digit-1.safetensors")
    with pytest.raises(TzkError, match="no file .*digit-l.safetensors; did you mean 'digit-1.safetensors'"):
        import_knowledge(run, tmp_path / "digit-l.safetensors")
    with pytest.raises(TzkError, match="is expected to be a file; it is a folder"):
        import_knowledge(run, tmp_path)


def test_a_damaged_file_of_the_run_is_not_passed_on(tmp_path: Path) -> None:
    run = saved(tmp_path / "one", made())
    file = run / "checkpoint/knowledge/b.safetensors"
    file.write_bytes(flipped(file.read_bytes(), -1))
    refused(run, "b.safetensors is truncated or altered", lambda: export_knowledge(run, "b", tmp_path))
    refused(run, "b.safetensors is truncated or altered", lambda: remove_knowledge(run, "a é"))
    remove_knowledge(run, "b")
    assert [name for name, _ in tzk_core.load(run).named_knowledge()] == ["all", "a é"]
