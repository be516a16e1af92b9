"""Knowledge travels between runs bit for bit or not at all, and what does not travel is not touched."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from folders import contents
from kills import Killed, killing
from knowledge_runs import TYPES, T, assert_says_the_same, made, refused, saved
from manifests import rewritten
from safetensors.torch import load as load_tensors

import tzk_core
from tzk_core.build import build_knowledge
from tzk_core.distributions.standard import StandardGaussian
from tzk_core.errors import TzkError
from tzk_core.knowledge.gaussian import GaussianKnowledge
from tzk_core.model import SharedFlow, TzK
from tzk_core.storage.checkpoint import load_trainer
from tzk_core.storage.knowledge_files import (
    Changed,
    export_knowledge,
    import_knowledge,
    list_knowledge,
    remove_knowledge,
)
from tzk_core.storage.knowledge_format import parse_export
from tzk_core.transforms.affine import Affine
from tzk_core.transforms.composite import Composite

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
    for name in ("all", "b"):
        assert_says_the_same(before, after, name)
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


# plugins and parts that are not there


def test_knowledge_without_its_plugin_is_listed_exported_and_removed_but_not_imported(
    tmp_path: Path, offered: list[Any]
) -> None:
    model = made(("all",))
    for name in ("x", "y"):
        model.add(name, build_knowledge("versioned", (4,), name=name, hidden=2, layers=2))
    run, other = saved(tmp_path / "run", model), saved(tmp_path / "other", made(("all",)))
    (with_plugin,) = export_knowledge(run, "x", tmp_path / "with")
    specs = list(offered)
    offered.clear()
    (file,) = export_knowledge(run, "x", tmp_path / "without")
    assert file.read_bytes() == with_plugin.read_bytes()
    message = refused(other, "cannot be imported: .*needs tzk-plugin-extra 1.5", lambda: import_knowledge(other, file))
    assert str(file) in message
    listed = {entry["name"]: entry for entry in list_knowledge(run)}
    assert listed["x"]["state"] == "opaque" and "needs tzk-plugin-extra 1.5" in listed["x"]["reason"]
    assert (listed["x"]["type"], listed["x"]["plugin"]) == ("versioned", "extra")
    remove_knowledge(run, "y")
    assert list(tzk_core.load(run).opaque) == ["x"]
    remove_knowledge(run, "all")
    offered[:] = specs
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
    listed = {entry["name"]: entry for entry in list_knowledge(one)}
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
    assert [entry["state"] for entry in list_knowledge(run, flow())] == ["opaque", "ok", "ok"]


# listing


def test_what_is_listed_is_what_the_model_has(tmp_path: Path) -> None:
    model = made()
    run = saved(tmp_path / "run", model)
    listed = list_knowledge(run)
    assert [entry["name"] for entry in listed] == list(TYPES)
    core = json.loads((run / "checkpoint/manifest.json").read_text())["core"]["hash"]
    for entry in listed:
        knowledge, file = model.find(entry["name"]), run / f"checkpoint/knowledge/{entry['name']}.safetensors"
        arguments = entry.pop("arguments")
        assert arguments["hidden"] == 6 and arguments.get("characteristics", 2) == knowledge.characteristics
        assert entry == {
            "name": entry["name"],
            "type": TYPES[entry["name"]]["type"],
            "plugin": "tzk",
            "distribution": "tzk-core",
            "version": knowledge.part.version,
            "parameters": sum(parameter.numel() for parameter in knowledge.parameters()),
            "characteristics": knowledge.characteristics,
            "presence_prior": pytest.approx(1 / (1 + torch.e ** len(entry["name"])), rel=1e-5),
            "implies": list(knowledge.implies),
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
