"""`tzk add` leaves a whole new run folder, and the old one as it was."""

from __future__ import annotations

import hashlib
import json
import tomllib
from pathlib import Path

import pytest
from additions import SIGNS, SPEC, added_to, results
from commands import tzk
from folders import contents
from installed import install, python

import tzk_core
from tzk_core.config import load_config
from tzk_core.storage.manifest import read_manifest


def test_the_new_run_folder_is_whole_and_the_old_files_in_it_are_copies(run: Path, added: tuple[Path, str]):
    old, new = contents(run / "best"), contents(added[0] / "checkpoint")
    kept = {name for name in old if name.startswith("knowledge/")} | {"core.safetensors"}
    assert len(kept) == 12
    assert {name: new[name] for name in kept} == {name: old[name] for name in kept}
    assert set(new) - kept == {"manifest.json", *(f"knowledge/{name}.safetensors" for name in ["signs", *SIGNS])}
    names = set(contents(added[0]))
    for name in ("config.toml", "addition.toml", "run.json", "metrics.csv", "results.json", "results.md"):
        assert name in names
    assert {"samples/samples-signs.png", "samples/samples-sign-all.png", "samples/training-curves.png"} <= names
    assert len((added[0] / "metrics.csv").read_text().splitlines()) == 3


def test_the_old_run_folder_is_untouched(run: Path, folder: Path):
    before = {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in run.rglob("*")}
    assert added_to(run, folder / "again", SPEC).exit_code == 0
    assert {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in run.rglob("*")} == before


def test_the_same_spec_and_seed_give_the_same_knowledge(folder: Path, added: tuple[Path, str]):
    assert contents(folder / "again" / "checkpoint") == contents(added[0] / "checkpoint")


def test_what_is_frozen_and_trained_is_printed_and_everything_older_compared(run: Path, added: tuple[Path, str]):
    model, new = tzk_core.load(run), tzk_core.load(added[0])
    flow = sum(p.numel() for p in model.flow.parameters())
    signs = sum(p.numel() for p in new.find("signs").parameters())
    for words in (
        f"frozen      shared flow: {flow:,} parameters",
        "11 knowledge types:",
        f"trained     signs: {signs:,} parameters",
        "step 4 of 4, 0:00 left, ",
        ", nats over the prior: signs ",
        "all 12 are bit-identical",
    ):
        assert words in added[1], added[1]
    table = added[1][added[1].index("before and after") :]
    for name in model.knowledge:
        digest = hashlib.sha256((run / "checkpoint/knowledge" / f"{name}.safetensors").read_bytes()).hexdigest()
        (line,) = [line for line in table.splitlines() if line.split()[0] == name]
        assert line.count(digest[:12]) == 2


def test_results_are_of_the_new_data_and_knowledge(added: tuple[Path, str]):
    reported = results(added[0])
    rows = {(row["kind"], row["name"]) for row in reported["rows"]}
    assert {row["dataset"] for row in reported["rows"]} == {"signs"}
    assert rows == {
        ("prior", "prior"),
        ("mixture", "mixture of signs"),
        ("baseline", "per-pixel histogram"),
        *(("knowledge", name) for name in ["signs", *SIGNS]),
    }
    for entry in reported["knowledge"]:
        assert entry["inconsistency_nats"] > 0 and entry["gap_nats"] is not None and entry["multiplier"] == 0
    (note,) = reported["notes"]
    assert note.startswith("The constraint of Eq. 5 was off") and note in (added[0] / "results.md").read_text()
    half = {entry["name"]: entry["presence_prior"] for entry in reported["knowledge"]}
    assert half["signs"] == pytest.approx(0.5, abs=1e-6)
    assert half["sign-sun"] == pytest.approx(0.1, abs=1e-6)


def test_the_lineage_is_recorded(run: Path, added: tuple[Path, str]):
    (entry,) = json.loads((added[0] / "run.json").read_text())["lineage"]
    assert (entry["run"], entry["action"], entry["knowledge"]) == ("old", "add", ["signs", *SIGNS])
    assert entry["core"] == read_manifest(run / "best")["core"]["hash"]
    assert entry["command"].startswith("tzk add ") and entry["date"]


def test_the_new_folder_evaluates_samples_and_trains_jointly(added: tuple[Path, str], tmp_path: Path):
    reported = json.loads(tzk("eval", added[0], "--json").stdout)
    assert {row["dataset"] for row in reported["rows"]} == {"digits", "signs"}
    ours = {row["name"]: row["bits_per_image"] for row in reported["rows"] if row["dataset"] == "signs"}
    for row in results(added[0])["rows"]:
        assert ours[row["name"]] == row["bits_per_image"], row["name"]
    assert tzk("sample", added[0], "--knowledge", "sign-sun", "-n", 4, "-o", tmp_path / "s.png").exit_code == 0
    joint = tzk("run", added[0] / "config.toml", "training.steps=1", "pictures.draw=[]", "--out", tmp_path / "joint")
    assert joint.exit_code == 0, joint.output
    assert set(tzk_core.load(tmp_path / "joint").knowledge) == set(tzk_core.load(added[0]).knowledge)


def test_data_and_knowledge_of_the_run_are_named_in_a_further_addition(added: tuple[Path, str], folder: Path):
    spec = """
name = "again-more"
pictures = { draw = [] }
[[knowledge]]
name = "round"
type = "gaussian"
hidden = 8
present = { dataset = "signs", label = "sun" }
implies = "sign-sun"
[training]
steps = 2
batch_size = 16
own_samples = 16
"""
    result = added_to(added[0], folder / "more", spec)
    assert result.exit_code == 0, result.output
    model = tzk_core.load(folder / "more")
    assert model.find("round").implies == ("sign-sun",) and len(model.knowledge) == 18
    config = load_config(folder / "more" / "config.toml")
    assert [table.name for table in config.datasets] == ["digits", "signs"]
    lineage = json.loads((folder / "more" / "run.json").read_text())["lineage"]
    assert [(entry["run"], entry["knowledge"]) for entry in lineage] == [
        ("old", ["signs", *SIGNS]),
        ("new", ["round"]),
    ]


def test_older_data_that_the_spec_repeats_are_negatives(run: Path, folder: Path):
    digits = '[[datasets]]\nname = "digits"\ntype = "glyph-digits"\ntrain = 200\nvalidation = 10\ntest = 40\n'
    spec = SPEC.replace("[[datasets]]", f"{digits}\n[[datasets]]", 1)
    result = added_to(run, folder / "negatives", spec, "training.own_samples=0")
    assert result.exit_code == 0, result.output
    columns = (folder / "negatives" / "metrics.csv").read_text().splitlines()[0].split(",")
    assert "bits_per_dim/digits" in " ".join(columns) and "own samples" not in " ".join(columns)
    assert len(load_config(folder / "negatives" / "config.toml").datasets) == 2
    assert {row["dataset"] for row in results(folder / "negatives")["rows"]} == {"digits", "signs"}


# plugins

PLUGIN = """
    from tzk_core.plugins import Dataset, KnowledgeType, hookimpl

    @hookimpl
    def tzk_datasets():
        return [Dataset("dots", "later_parts:Dots", "bright squares")]

    @hookimpl
    def tzk_knowledge_types():
        return [KnowledgeType("later", "later_parts:Later", "a Gaussian of a plugin")]
"""

PARTS = """
import torch
from tzk_core.data.protocol import Samples
from tzk_core.knowledge.gaussian import GaussianKnowledge

class Later(GaussianKnowledge):
    pass

class Dots:
    name, shape, levels, original_dims = "dots", (1, 16, 16), 256, 256

    def split(self, split):
        T = torch.zeros(30, 1, 16, 16, dtype=torch.uint8)
        T[:, :, 4:9, 4:9] = torch.arange(30, dtype=torch.uint8)[:, None, None, None] + 200
        return Samples(T)
"""

DOTS = """
name = "dots"
plugins = ["tzk-plugin-later"]
[[datasets]]
name = "dots"
[[knowledge]]
name = "dots"
type = "later"
hidden = 8
present = { dataset = "dots" }
[training]
steps = 2
batch_size = 16
own_samples = 16
[evaluation]
importance_samples = 2
"""


@pytest.mark.slow
def test_parts_of_a_plugin_that_came_after_the_training_and_may_go_again(run: Path, tmp_path: Path):
    site = tmp_path / "site"
    site.mkdir()
    install(site, "tzk-plugin-later", PLUGIN)
    (site / "later_parts.py").write_text(PARTS)
    (tmp_path / "dots.toml").write_text(DOTS)
    with_dots, both = tmp_path / "with-dots", tmp_path / "both"
    words = ["add", str(run), str(tmp_path / "dots.toml"), "--out", str(with_dots)]
    done = python(site, f"from tzk_core.cli import main; main({words!r})")
    assert done.returncode == 0, done.stderr
    assert "dots" in read_manifest(with_dots / "checkpoint")["knowledge"]

    # here the plugin is not installed: what it brought is carried over as it is
    result = added_to(with_dots, both, SPEC)
    assert result.exit_code == 0, result.output
    assert "carried over  1 knowledge type that cannot be used here: dots" in result.stdout
    file = "knowledge/dots.safetensors"
    assert contents(both / "checkpoint")[file] == contents(with_dots / "checkpoint")[file]
    assert tomllib.loads((both / "config.toml").read_text())["plugins"] == ["tzk-plugin-later"]
    words = ["eval", str(both), "--json"]
    done = python(site, f"from tzk_core.cli import main; main({words!r})")
    assert done.returncode == 0, done.stderr
    assert {row["dataset"] for row in json.loads(done.stdout)["rows"]} == {"digits", "dots", "signs"}
