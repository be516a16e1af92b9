"""Knowledge travels between runs bit for bit or not at all, and what does not travel is not touched."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from kills import Killed, killing
from manifests import rewritten
from models import LAYERS
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

import tzk_core
from tzk_core.build import build_flow, build_knowledge
from tzk_core.distributions.standard import StandardGaussian
from tzk_core.errors import TzkError
from tzk_core.knowledge.gaussian import GaussianKnowledge
from tzk_core.model import SharedFlow, TzK
from tzk_core.storage.checkpoint import load_trainer, save_checkpoint
from tzk_core.storage.knowledge_files import (
    Changed,
    export_knowledge,
    import_knowledge,
    list_knowledge,
    remove_knowledge,
)
from tzk_core.storage.knowledge_format import KnowledgeFile, parse_export
from tzk_core.transforms.affine import Affine
from tzk_core.transforms.composite import Composite

TYPES: dict[str, dict[str, Any]] = {
    "all": {"type": "flow", "steps": 1, "tile": 1},
    "a é": {"type": "gaussian", "characteristics": 3},
    "b": {"type": "gaussian"},
}
T = torch.linspace(-1, 1, 12).view(3, 4)


def made(names: tuple[str, ...] = tuple(TYPES), seed: int = 0) -> TzK:
    """A model with random weights, those of every part from `seed` and its name; "a é" and "b" imply "all"."""
    model = TzK(build_flow((4,), layers=LAYERS, seed=seed))
    _shake(model.flow, seed)
    for name in names:
        kind = build_knowledge(latent_shape=(4,), seed=seed, name=name, hidden=6, layers=2, **TYPES[name])
        _shake(kind, seed + len(name))
        kind.log_odds.fill_(-len(name))
        kind.describe_as(implies=() if name == "all" else ("all",))
        model.add(name, kind)
    return model


@torch.no_grad()
def _shake(module: torch.nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter += 0.1 * torch.randn(parameter.shape, generator=generator)


def saved(path: Path, model: TzK, trainer: dict[str, Any] | None = None) -> Path:
    """A run folder with that model in it."""
    path.mkdir()
    save_checkpoint(model, path / "checkpoint", trainer)
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def answers(model: TzK, name: str) -> tuple[torch.Tensor, ...]:
    """What a model says by way of one knowledge type: densities, samples and posterior."""
    posterior = model.posterior(T)[name]
    return (
        model.log_prob(T, name),
        model.sample(5, name, seed=1),
        posterior.presence,
        posterior.mean,
        posterior.deviation,
    )


def assert_says_the_same(one: TzK, other: TzK, name: str, *, other_name: str | None = None) -> None:
    for left, right in zip(answers(one, name), answers(other, other_name or name), strict=True):
        assert torch.equal(left, right)


# round trip


def test_knowledge_taken_from_one_run_into_another_is_the_same_file_and_says_the_same(tmp_path: Path) -> None:
    one, other = saved(tmp_path / "one", made()), saved(tmp_path / "other", made(("all", "b")))
    (file,) = export_knowledge(one, "a é", tmp_path / "files")
    assert file == tmp_path / "files/a é.safetensors"
    before = tzk_core.load(other)
    changed = import_knowledge(other, file)
    core = json.loads((one / "checkpoint/manifest.json").read_text())["core"]["hash"]
    assert changed == Changed(("a é",), core, ())
    name = "checkpoint/knowledge/a é.safetensors"
    assert (other / name).read_bytes() == (one / name).read_bytes()
    after = tzk_core.load(other)
    assert_says_the_same(tzk_core.load(one), after, "a é")
    assert after.find("a é").implies == ("all",)
    for each in ("all", "b"):
        assert_says_the_same(before, after, each)
    manifests = [json.loads((run / "checkpoint/manifest.json").read_text()) for run in (one, other)]
    assert manifests[0]["core"] == manifests[1]["core"] and manifests[0]["knowledge"] == manifests[1]["knowledge"]


def test_weights_of_an_exported_file_are_those_of_the_model(tmp_path: Path) -> None:
    """Read with the safetensors library alone."""
    model = made()
    files = export_knowledge(saved(tmp_path / "run", model), list(TYPES), tmp_path)
    for name, file in zip(TYPES, files, strict=True):
        tensors = load_tensors(file.read_bytes())
        state = model.find(name).state_dict()
        assert set(tensors) == set(state)
        for key, value in state.items():
            assert torch.equal(tensors[key], value) and tensors[key].dtype == value.dtype


def test_an_exported_file_says_what_it_is(tmp_path: Path) -> None:
    run = saved(tmp_path / "run", made())
    (file,) = export_knowledge(run, "b", tmp_path / "mine.safetensors")
    manifest = json.loads((run / "checkpoint/manifest.json").read_text())["knowledge"]["b"]
    read = parse_export(file.read_bytes(), file)
    assert read.name == "b" and read.entry == {key: manifest[key] for key in ("part", "implies", "core")}
    assert read.entry["part"]["plugin"] == "tzk" and read.entry["part"]["arguments"]["hidden"] == 6
    assert hashlib.sha256(read.content).hexdigest() == manifest["sha256"]


def test_another_name_changes_the_name_and_nothing_else(tmp_path: Path) -> None:
    one = saved(tmp_path / "one", made())
    (file,) = export_knowledge(one, "b", tmp_path)
    import_knowledge(one, file, name="c")
    model = tzk_core.load(one)
    assert [name for name, _ in model.named_knowledge()] == [*TYPES, "c"]
    assert_says_the_same_but_for_noise(model, "b", "c")
    (again,) = export_knowledge(one, "c", tmp_path)
    import_knowledge(saved(tmp_path / "two", made(("all",))), again, name="b")
    first, second = (tmp_path / run / "checkpoint/knowledge/b.safetensors" for run in ("one", "two"))
    assert first.read_bytes() == second.read_bytes()


def assert_says_the_same_but_for_noise(model: TzK, name: str, other: str) -> None:
    """The noise of samples and bounds derives from the name."""
    C = torch.tensor([0.3, -0.7])
    assert torch.equal(model.log_prob(T, name, C), model.log_prob(T, other, C))
    assert torch.equal(model.posterior(T)[name].presence, model.posterior(T)[other].presence)


def test_a_checkpoint_saved_again_after_an_import_is_the_same(tmp_path: Path) -> None:
    one, other = saved(tmp_path / "one", made()), saved(tmp_path / "other", made(("all",)))
    import_knowledge(other, export_knowledge(one, ["a é", "b"], tmp_path))
    tzk_core.save(tzk_core.load(other), tmp_path / "again")
    assert contents(tmp_path / "again") == contents(other / "checkpoint")


# removal


def test_removing_leaves_all_others_as_they_were(tmp_path: Path) -> None:
    run = saved(tmp_path / "run", made())
    before, model = contents(run / "checkpoint"), tzk_core.load(run)
    changed = remove_knowledge(run, "a é")
    assert changed.knowledge == ("a é",) and changed.warnings == ()
    after = contents(run / "checkpoint")
    del before["knowledge/a é.safetensors"]
    manifests = [json.loads(files.pop("manifest.json")) for files in (before, after)]
    assert after == before
    del manifests[0]["knowledge"]["a é"]
    assert manifests[0].pop("sha256") != manifests[1].pop("sha256")  # each of its own manifest
    assert manifests[1] == manifests[0]
    left = tzk_core.load(run)
    assert [name for name, _ in left.named_knowledge()] == ["all", "b"]
    for name in ("all", "b"):
        assert_says_the_same(model, left, name)
    assert torch.equal(model.log_prob(T), left.log_prob(T))


def test_what_implies_the_removed_is_named(tmp_path: Path) -> None:
    run = saved(tmp_path / "run", made())
    assert [warning.partition(", ")[0] for warning in remove_knowledge(run, "all").warnings] == [
        "'a é' implies 'all'",
        "'b' implies 'all'",
    ]
    assert tzk_core.load(run).find("b").implies == ("all",)


def test_without_any_knowledge_it_is_the_plain_flow(tmp_path: Path) -> None:
    run = saved(tmp_path / "run", made())
    assert remove_knowledge(run, list(TYPES)).warnings == ()
    model = tzk_core.load(run)
    assert not model.knowledge and torch.equal(model.log_prob(T), made().log_prob(T))
    assert list_knowledge(run) == []


@pytest.mark.parametrize("change", ["import", "remove"])
def test_a_new_checkpoint_leaves_the_old_one_untouched(tmp_path: Path, change: str) -> None:
    run = saved(tmp_path / "run", made(), {"step": 3})
    (file,) = export_knowledge(run, "b", tmp_path)
    before = contents(run)
    out = tmp_path / "new"
    apply: dict[str, Callable[[], Changed]] = {
        "import": lambda: import_knowledge(run, file, "c", out=out),
        "remove": lambda: remove_knowledge(run, "b", out),
    }
    assert "left out" in apply[change]().warnings[0]
    assert contents(run) == before
    names = {"import": [*TYPES, "c"], "remove": ["all", "a é"]}[change]
    assert [name for name, _ in tzk_core.load(out).named_knowledge()] == names
    with pytest.raises(TzkError, match="new is there already, and nothing is overwritten"):
        apply[change]()


def test_the_state_of_a_training_that_no_longer_fits_is_left_out(tmp_path: Path) -> None:
    run = saved(tmp_path / "run", made(), {"step": 3})
    (warning,) = remove_knowledge(run, "b").warnings
    assert "left out" in warning
    with pytest.raises(TzkError, match="without the state of its training"):
        load_trainer(run / "checkpoint")


# what is refused; nothing is written then


def refused(run: Path, pattern: str, change: Callable[[], Any]) -> str:
    before = contents(run)
    with pytest.raises(TzkError, match=pattern) as raised:
        change()
    assert contents(run) == before and [path.name for path in run.iterdir()] == ["checkpoint"]
    return str(raised.value)


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


def flipped(content: bytes, at: int) -> bytes:
    changed = bytearray(content)
    changed[at] ^= 1
    return bytes(changed)


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


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
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


# plugins and parts that are not there


def test_knowledge_without_its_plugin_is_listed_exported_and_removed_but_not_imported(
    tmp_path: Path, offered: list[Any]
) -> None:
    model = made(("all",))
    for name in ("x", "y"):
        model.add(name, build_knowledge("versioned", (4,), name=name, hidden=2, layers=2))
    run, other = saved(tmp_path / "run", model), saved(tmp_path / "other", made(("all",)))
    (with_plugin,) = export_knowledge(run, "x", tmp_path / "with")
    found = list(offered)
    offered.clear()
    (file,) = export_knowledge(run, "x", tmp_path / "without")
    assert file.read_bytes() == with_plugin.read_bytes()
    message = refused(other, "cannot be imported: .*needs tzk-plugin-extra 1.5", lambda: import_knowledge(other, file))
    assert str(file) in message
    listed = {each["name"]: each for each in list_knowledge(run)}
    assert listed["x"]["state"] == "opaque" and "needs tzk-plugin-extra 1.5" in listed["x"]["reason"]
    assert (listed["x"]["type"], listed["x"]["plugin"]) == ("versioned", "extra")
    remove_knowledge(run, "y")
    assert list(tzk_core.load(run).opaque) == ["x"]
    remove_knowledge(run, "all")
    offered[:] = found
    import_knowledge(other, file)
    assert_says_the_same(model, tzk_core.load(other), "x")
    assert_says_the_same(model, tzk_core.load(run), "x")


def test_knowledge_of_another_core_within_a_run_is_listed_as_opaque(tmp_path: Path) -> None:
    one, other = saved(tmp_path / "one", made()), saved(tmp_path / "other", made(seed=1))
    name = "checkpoint/knowledge/b.safetensors"
    shutil.copy(other / name, one / name)
    manifests = [json.loads((run / "checkpoint/manifest.json").read_text()) for run in (one, other)]
    theirs = manifests[1]["knowledge"]["b"]
    rewritten(one / "checkpoint", lambda manifest: manifest["knowledge"].update(b=theirs), headers=False)
    listed = {each["name"]: each for each in list_knowledge(one)}
    assert listed["b"]["state"] == "opaque" and "another shared flow" in listed["b"]["reason"]
    assert listed["b"]["core"] == manifests[1]["core"]["hash"] != listed["all"]["core"]
    remove_knowledge(other, "b")
    import_knowledge(other, export_knowledge(one, "b", tmp_path))  # taken back to where it belongs
    assert_says_the_same(made(seed=1), tzk_core.load(other), "b")


def test_what_was_built_in_python_is_not_exported(tmp_path: Path) -> None:
    def flow() -> SharedFlow:
        return SharedFlow((4,), Composite([Affine((4,))]), StandardGaussian((4,)))

    model = TzK(flow(), {"a": GaussianKnowledge((4,), hidden=2)})
    model.add("b", build_knowledge("gaussian", (4,), hidden=2, layers=2))
    run = saved(tmp_path / "run", model)
    with pytest.raises(TzkError, match="'a' was built in Python.*register its class"):
        export_knowledge(run, ["b", "a"], tmp_path)
    (file,) = export_knowledge(run, "b", tmp_path)
    with pytest.raises(TzkError, match="pass it"):
        import_knowledge(run, file, "c")
    import_knowledge(run, file, "c", flow=flow())
    assert [each["state"] for each in list_knowledge(run, flow())] == ["opaque", "ok", "ok"]


# listing


def test_what_is_listed_is_what_the_model_has(tmp_path: Path) -> None:
    model = made()
    run = saved(tmp_path / "run", model)
    listed = list_knowledge(run)
    assert [each["name"] for each in listed] == list(TYPES)
    core = json.loads((run / "checkpoint/manifest.json").read_text())["core"]["hash"]
    for each in listed:
        kind, file = model.find(each["name"]), run / f"checkpoint/knowledge/{each['name']}.safetensors"
        arguments = each.pop("arguments")
        assert arguments["hidden"] == 6 and arguments.get("characteristics", 2) == kind.characteristics
        assert each == {
            "name": each["name"],
            "type": TYPES[each["name"]]["type"],
            "plugin": "tzk",
            "distribution": "tzk-core",
            "version": kind.part.version,
            "parameters": sum(parameter.numel() for parameter in kind.parameters()),
            "characteristics": kind.characteristics,
            "presence_prior": pytest.approx(1 / (1 + torch.e ** len(each["name"])), rel=1e-5),
            "implies": list(kind.implies),
            "core": core,
            "bytes": file.stat().st_size,
            "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
            "state": "ok",
            "reason": "",
        }


# kills


@pytest.mark.parametrize("best", [False, True])
@pytest.mark.parametrize("change", ["import", "remove"])
def test_a_kill_at_any_moment_leaves_the_knowledge_of_before_or_of_after(
    tmp_path: Path, change: str, best: bool
) -> None:
    """With `best`, an old one is set aside besides, as a kill of the training leaves it."""
    names = ("all", "b") if change == "import" else tuple(TYPES)
    start = saved(tmp_path / "start", made(names), {"step": 1})
    for name in ("best", f".best.{2**22 + 1}-00000000.aside") if best else ():
        shutil.copytree(start / "checkpoint", start / name)
    (file,) = export_knowledge(saved(tmp_path / "other", made()), "a é", tmp_path)
    states = {names: 0, (*(name for name in names if name != "a é"), *(["a é"] if change == "import" else [])): 0}
    moment, finished = 0, False
    while not finished:
        run = shutil.copytree(start, tmp_path / f"{moment}")
        with pytest.MonkeyPatch.context() as monkeypatch:
            killing(monkeypatch, moment)
            try:
                import_knowledge(run, file) if change == "import" else remove_knowledge(run, "a é")
                finished = True
            except Killed:
                pass
        model = tzk_core.load(run)  # which puts back what a kill between two renames left
        states[tuple(name for name, _ in model.named_knowledge())] += 1
        assert_says_the_same(made(), model, "b")
        moment += 1
    assert len(states) == 2 and all(states.values())
    assert os.listdir(run) == ["checkpoint"]
