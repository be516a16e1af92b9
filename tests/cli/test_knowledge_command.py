"""`tzk knowledge`: what it prints, what it leaves in the record of a run, what it refuses and how."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import commands
import pytest
import torch
from kills import Killed, killing
from models import LAYERS

import tzk_core
from tzk_core.build import build_flow, build_knowledge
from tzk_core.model import TzK
from tzk_core.storage.checkpoint import save_checkpoint
from tzk_core.storage.locks import LOCK
from tzk_core.storage.shared_flow import core_hash

CONFIG = 'name = "small"\n# a comment that stays\n[training]\nsteps = 3\n'


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def made(names: tuple[str, ...] = ("all", "a", "b"), seed: int = 0) -> TzK:
    model = TzK(build_flow((3,), layers=LAYERS))
    with torch.no_grad():
        for parameter in model.flow.parameters():
            parameter += 0.1 * seed
    for name in names:
        knowledge = build_knowledge("gaussian", (3,), 0, name=name, hidden=4, layers=2)
        knowledge.describe_as(implies=() if name == "all" else ("all",))
        model.add(name, knowledge)
    return model


def run_folder(name: str, model: TzK, **record: Any) -> Path:
    folder = Path(name)
    folder.mkdir()
    (folder / "config.toml").write_text(CONFIG)
    (folder / "run.json").write_text(json.dumps({"format": 1, "name": "small", "status": "finished"} | record))
    (folder / "results.md").write_text("from before")
    save_checkpoint(model, folder / "checkpoint", {"step": 3})
    return folder


def done(*words: object) -> str:
    result = commands.tzk("knowledge", *words)
    assert result.exit_code == 0, result.output
    return result.stdout


def refused(*words: object) -> str:
    """The message of a command that ends with one error and changes no file."""
    before = snapshot()
    message = commands.refused("knowledge", *words)
    assert snapshot() == before
    return message


def snapshot() -> dict[str, bytes]:
    files = [path for path in Path().rglob("*") if path.name != LOCK]  # holds nothing, and frees itself
    return {str(path): path.read_bytes() if path.is_file() else b"" for path in files}


def names(folder: str | Path) -> list[str]:
    return [name for name, _ in tzk_core.load(folder).named_knowledge()]


def test_list_says_all_of_it_in_a_table_and_in_json(here: Path) -> None:
    model = made()
    run = run_folder("run", model)
    listed = json.loads(done("list", run, "--json"))
    assert listed == tzk_core.list_knowledge(run)
    header, *lines = done("list", run).splitlines()
    columns = ["NAME", "TYPE", "FROM", "PARAMETERS", "C", "PRIOR", "IMPLIES", "CORE", "BYTES", "SHA256", "STATE"]
    assert header.split() == columns
    core = core_hash(model.flow)[:12]
    for line, entry in zip(lines, listed, strict=True):
        cells = line.split()
        assert cells[0] == entry["name"] and cells[1] == "tzk/gaussian" and cells[-1] == "ok"
        assert cells[-4:-2] == [core, f"{entry['bytes']:,}"] and cells[-2] == entry["sha256"][:12]
    done("remove", run, "all", "a", "b")
    assert done("list", run) == "run has no knowledge types: its model is the shared flow alone\n"
    assert json.loads(done("list", run, "--json")) == []


def test_list_gives_the_reason_below_where_knowledge_is_opaque(here: Path, offered: list[Any]) -> None:
    model = made(("all",))
    model.add("x", build_knowledge("versioned", (3,), hidden=2, layers=2))
    run = run_folder("run", model)
    offered.clear()
    table, _, reasons = done("list", run).partition("\n\n")
    assert table.splitlines()[-1].split()[-1] == "opaque"
    assert reasons.startswith("x: knowledge type 'x' needs tzk-plugin-extra 1.5")


def test_export_import_and_remove_in_place(here: Path) -> None:
    model = made()
    one, other = run_folder("one", model), run_folder("other", made(("all",)), lineage=[{"run": "first"}])
    assert done("export", one, "a", "b").splitlines() == ["a.safetensors", "b.safetensors"]
    assert done("export", one, "a", "-o", "c.safetensors") == "c.safetensors\n"
    assert Path("c.safetensors").read_bytes() == Path("a.safetensors").read_bytes()
    result = commands.tzk("knowledge", "import", other, "a.safetensors", "b.safetensors")
    assert result.stdout.startswith("a, b imported into other\n") and "tzk eval other" in result.stdout
    assert "warning: the state of the training" in result.stderr
    assert done("import", other, "a.safetensors", "--as", "my a").startswith("my a imported into other\n")
    assert done("remove", other, "b", "my a").startswith("b, my a removed from other\n")
    assert names(other) == ["all", "a"]
    record = json.loads((other / "run.json").read_text())
    assert record["status"] == "finished" and record["name"] == "small"
    first, *lineage = record["lineage"]
    assert first == {"run": "first"}
    for entry in lineage:
        assert entry.pop("date").startswith("20") and entry.pop("core") == core_hash(model.flow)
    assert lineage == [
        {
            "run": "other",
            "action": "import",
            "knowledge": ["a", "b"],
            "command": "tzk knowledge import other a.safetensors b.safetensors",
        },
        {
            "run": "other",
            "action": "import",
            "knowledge": ["my a"],
            "command": "tzk knowledge import other a.safetensors --as 'my a'",
        },
        {
            "run": "other",
            "action": "remove",
            "knowledge": ["b", "my a"],
            "command": "tzk knowledge remove other b 'my a'",
        },
    ]
    assert (other / "config.toml").read_text() == CONFIG and (other / "results.md").read_text() == "from before"


def test_a_new_run_folder_has_its_lineage_and_the_old_one_is_untouched(here: Path) -> None:
    run = run_folder("run", made(), status="interrupted", seed=7)
    before = snapshot()
    done("remove", run, "b", "--out", "runs/less")
    assert {path: content for path, content in snapshot().items() if not path.startswith("runs")} == before
    assert {path.name for path in Path("runs/less").iterdir()} == {"config.toml", "run.json", "checkpoint"}
    assert names("runs/less") == ["all", "a"] and Path("runs/less/config.toml").read_text() == CONFIG
    done("export", run, "b")
    done("import", "runs/less", "b.safetensors", "--out", "again")
    assert names("again") == ["all", "a", "b"]
    record = json.loads(Path("again/run.json").read_text())
    assert (record["status"], record["seed"]) == ("finished", 7)
    assert [(entry["run"], entry["action"], entry["knowledge"]) for entry in record["lineage"]] == [
        ("run", "remove", ["b"]),
        ("less", "import", ["b"]),
    ]
    assert "again is there already, and a run never overwrites one" in refused("remove", run, "a", "--out", "again")
    assert [path.name for path in Path().iterdir() if "partial" in path.name] == []


def test_a_run_that_is_not_finished_is_not_changed(here: Path) -> None:
    run = run_folder("run", made(), status="interrupted")
    message = refused("remove", run, "b")
    assert "run is not finished (it is interrupted)" in message and "tzk run run --resume" in message
    assert "tzk knowledge remove run b --out DIR" in message


def test_what_is_wrong_is_refused_in_one_line(here: Path) -> None:
    run, other = run_folder("run", made()), run_folder("other", made(("all",), seed=1))
    done("export", run, "a")
    assert "did you mean 'all'" in refused("remove", run, "al")
    assert "'a' already: give it another name with --as" in refused("import", run, "a.safetensors")
    assert "a.safetensors is there already" in refused("export", run, "a")
    assert "a.safetensors does not fit other" in refused("import", other, "a.safetensors", "--out", "new")
    assert "a name is for one file" in refused("import", run, "a.safetensors", "a.safetensors", "--as", "x")
    assert "nowhere is not a run folder" in refused("list", "nowhere")
    shutil.rmtree("other/checkpoint")
    for words in (["list"], ["export", "a"], ["import", "a.safetensors"], ["remove", "a"]):
        assert "no checkpoint in other" in refused(words[0], "other", *words[1:])


def test_implied_knowledge_that_is_gone_is_a_warning(here: Path) -> None:
    run = run_folder("run", made())
    result = commands.tzk("knowledge", "remove", run, "all")
    assert "warning: 'a' implies 'all', which is gone" in result.stderr and result.exit_code == 0


def test_a_kill_at_any_moment_leaves_no_half_of_a_new_run(here: Path) -> None:
    run_folder("start", made())
    moment, finished = 0, False
    while not finished:
        folder = Path(f"{moment}")
        folder.mkdir()
        with pytest.MonkeyPatch.context() as monkeypatch:
            killing(monkeypatch, moment)
            try:
                done("remove", "start", "b", "--out", folder / "new")
                finished = True
            except Killed:
                pass
        assert names("start") == ["all", "a", "b"]
        if (folder / "new").exists():
            assert names(folder / "new") == ["all", "a"] and (folder / "new/run.json").is_file()
        moment += 1
    assert finished and moment > 5
