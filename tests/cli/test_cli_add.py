"""`tzk add` leaves a whole new run folder or nothing, the old one as it was, and says all that is wrong with a spec."""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import Result
from commands import tzk
from installed import install, python

import tzk_core
from tzk_core import TzkError
from tzk_core.cli import before_after, progress
from tzk_core.config import load_config
from tzk_core.runs.lineage import new_folder
from tzk_core.storage.checkpoint import load_checkpoint, save_checkpoint
from tzk_core.storage.knowledge_files import extend_checkpoint
from tzk_core.storage.manifest import read_manifest

CONFIG = """
name = "glyphs"

[flow]
steps = 2
tile = 4

[[datasets]]
name = "digits"
type = "glyph-digits"
train = 200
validation = 10
test = 40

[[knowledge]]
name = "digits"
type = "gaussian"
hidden = 8
present = { dataset = "digits" }

[[knowledge]]
name = "digit-{label}"
type = "gaussian"
hidden = 8
present = { dataset = "digits", label = "each" }
implies = "digits"

[training]
steps = 3
batch_size = 32
initialisation = 64

[evaluation]
importance_samples = 2
"""

SPEC = """
name = "with-signs"

[[datasets]]
name = "signs"
type = "glyph-signs"
train = 100
validation = 10
test = 30

[[knowledge]]
name = "signs"
type = "gaussian"
hidden = 8
observed = ["slant"]
present = { dataset = "signs" }

[[knowledge]]
name = "sign-{label}"
type = "gaussian"
hidden = 8
present = { dataset = "signs", label = "each" }
implies = "signs"

[training]
steps = 4
batch_size = 32
log_every = 2
own_samples = 64
own_types = 2

[evaluation]
importance_samples = 2
partitions = { "mixture of signs" = ["sign-*"] }
"""

EACH_SIGN = SPEC[SPEC.index('[[knowledge]]\nname = "sign-') : SPEC.index("[training]")]
MIXTURE = SPEC[SPEC.index("partitions") :]
SIGNS = ["sign-arrow", "sign-hash", "sign-plus", "sign-sun", "sign-times"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def run(folder: Path) -> Path:
    """A finished run on digits."""
    (folder / "glyphs.toml").write_text(CONFIG)
    result = tzk("run", folder / "glyphs.toml", "--out", folder / "old")
    assert result.exit_code == 0, result.output
    return folder / "old"


@pytest.fixture(scope="module")
def added(run: Path, folder: Path) -> tuple[Path, str]:
    """What adding signs to it left, and what was printed."""
    result = added_to(run, folder / "new", SPEC)
    assert result.exit_code == 0, result.output
    return folder / "new", result.stdout


def added_to(run: Path, out: Path, spec: str, *overrides: str) -> Result:
    path = out.with_name(f"{out.name}.toml")
    path.write_text(spec)
    return tzk("add", run, path, *overrides, "--out", out)


def contents(folder: Path) -> dict[str, str]:
    """sha256 by file, below a folder."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def results(run: Path) -> dict[str, Any]:
    return json.loads((run / "results.json").read_text())


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


def test_what_is_frozen_and_trained_is_said_and_everything_older_compared(run: Path, added: tuple[Path, str]):
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
    found = results(added[0])
    rows = {(row["kind"], row["name"]) for row in found["rows"]}
    assert {row["dataset"] for row in found["rows"]} == {"signs"}
    assert rows == {
        ("prior", "prior"),
        ("mixture", "mixture of signs"),
        ("baseline", "per-pixel histogram"),
        *(("knowledge", name) for name in ["signs", *SIGNS]),
    }
    for entry in found["knowledge"]:
        assert entry["inconsistency_nats"] > 0 and entry["gap_nats"] is not None and entry["multiplier"] == 0
    (note,) = found["notes"]
    assert note.startswith("The constraint of Eq. 5 was off") and note in (added[0] / "results.md").read_text()
    half = {entry["name"]: entry["presence_prior"] for entry in found["knowledge"]}
    assert half["signs"] == pytest.approx(0.5, abs=1e-6)
    assert half["sign-sun"] == pytest.approx(0.1, abs=1e-6)


def test_the_lineage_is_told(run: Path, added: tuple[Path, str]):
    (entry,) = json.loads((added[0] / "run.json").read_text())["lineage"]
    assert (entry["run"], entry["action"], entry["knowledge"]) == ("old", "add", ["signs", *SIGNS])
    assert entry["core"] == read_manifest(run / "best")["core"]["hash"]
    assert entry["command"].startswith("tzk add ") and entry["date"]


def test_the_new_folder_evaluates_samples_and_trains_jointly(added: tuple[Path, str], tmp_path: Path):
    found = json.loads(tzk("eval", added[0], "--json").stdout)
    assert {row["dataset"] for row in found["rows"]} == {"digits", "signs"}
    ours = {row["name"]: row["bits_per_image"] for row in found["rows"] if row["dataset"] == "signs"}
    for row in results(added[0])["rows"]:
        assert ours[row["name"]] == row["bits_per_image"], row["name"]
    assert tzk("sample", added[0], "--knowledge", "sign-sun", "-n", 4, "-o", tmp_path / "s.png").exit_code == 0
    joint = tzk("run", added[0] / "config.toml", "training.steps=1", "--out", tmp_path / "joint")
    assert joint.exit_code == 0, joint.output
    assert set(tzk_core.load(tmp_path / "joint").knowledge) == set(tzk_core.load(added[0]).knowledge)


def test_data_and_knowledge_of_the_run_are_named_in_a_further_addition(added: tuple[Path, str], folder: Path):
    spec = """
name = "again-more"
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


# what fails leaves nothing


def fails(run: Path, out: Path, spec: str, *overrides: str) -> str:
    """What a spec that cannot be added is told; nothing is left, and the run is as it was."""
    before = contents(run)
    result = added_to(run, out, spec, *overrides)
    assert result.exit_code == 2, result.output
    assert "step 1" not in result.output
    assert {path.name for path in out.parent.iterdir() if path.name.startswith(out.name)} == {f"{out.name}.toml"}
    assert contents(run) == before
    return result.stderr


def edited(*pairs: tuple[str, str]) -> str:
    spec = SPEC
    for old, new in pairs:
        assert old in spec
        spec = spec.replace(old, new, 1)
    return spec


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (edited(('name = "signs"\ntype = "gaussian"', 'name = "digits"\ntype = "gaussian"')),
         ["[[knowledge]] \"digits\" name: the run has a knowledge type 'digits' already: choose another name"]),
        (edited(('implies = "signs"', 'implies = "digitz"')),
         ["[[knowledge]] \"sign-{label}\" implies: no knowledge type is called 'digitz'; did you mean 'digits'"]),
        (edited(('dataset = "signs", label', 'dataset = "digts", label')),
         ["present.dataset: no data set is called 'digts'; did you mean 'digits'"]),
        (edited(('name = "signs"\ntype = "glyph-signs"', 'name = "digits"\ntype = "glyph-digits"'),
                ('{ dataset = "signs" }', '{ dataset = "digits" }'), ('dataset = "signs", l', 'dataset = "digits", l')),
         ["the run has a data set 'digits' with train = 200, got 100: give it another name"]),
        (edited(("steps = 4", "stesp = 4\nmultiplier = 0.1"), ("own_types = 2", "own_types = -1")) + "[flow]",
         ["5 problems", "[training] stesp: unknown key; did you mean 'steps'", "[training] steps: is required",
          "[training] own_types: expected a number of at least 0, got -1", "[training] multiplier: unknown key",
          "[flow]: is no part of a spec, which says what is added"]),
        (edited(("train = 100", "size = 20\ntrain = 100")),
         ["shape (1, 20, 20)", "one of (1, 16, 16): give it the same size"]),
        (edited(('type = "glyph-signs"\ntrain = 100\nvalidation = 10\ntest = 30', 'type = "two-moons"'),
                (EACH_SIGN, ""), ('observed = ["slant"]\n', ""), (MIXTURE, "")),
         ["shape (2,)"]),
        (edited(('name = "sign-{label}"', 'name = "digit-{label}"'), ('dataset = "signs", l', 'dataset = "digits", l'),
                (MIXTURE, "")),
         ["the run has a knowledge type 'digit-{label}' already"]),
        (edited(("test = 30", "test = 0")), ["the test split of data set 'signs' is empty"]),
        (edited(("own_samples = 64", "own_samples = 0")), ["nothing to tell signs, sign-arrow"]),
    ],
    ids=lambda value: value[0][:40] if isinstance(value, list) else "",
)  # fmt: skip
def test_what_cannot_be_added(run: Path, tmp_path: Path, spec: str, words: list[str]):
    said = fails(run, tmp_path / "none", spec)
    for each in words:
        assert each in said, said


def test_a_folder_that_is_there_and_one_that_is_no_run_are_refused(run: Path, tmp_path: Path, added: tuple[Path, str]):
    (tmp_path / "s.toml").write_text(SPEC)
    result = tzk("add", run, tmp_path / "s.toml", "--out", added[0])
    assert result.exit_code == 2 and "is there already" in result.stderr
    result = tzk("add", tmp_path, tmp_path / "s.toml")
    assert result.exit_code == 2 and "is not a run folder" in result.stderr


def test_an_interrupt_leaves_nothing(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def lines_until_interrupt(clock: Any, said: Any = None) -> Callable[[Any], None]:
        def show(reached: Any) -> None:
            if reached.step == 2:
                raise KeyboardInterrupt

        return show

    monkeypatch.setattr(progress, "lines", lines_until_interrupt)
    result = added_to(run, tmp_path / "none", SPEC)
    assert result.exit_code == 130
    assert "is as it was, and nothing else is left" in result.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["none.toml"]


def test_a_folder_is_new_folder(tmp_path: Path):
    with pytest.raises(RuntimeError), new_folder(tmp_path / "a" / "b" / "c") as folder:
        (folder.path / "x").write_text("x")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    with new_folder(tmp_path / "a" / "c") as folder:
        (folder.path / "x").write_text("x")
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["c"] and (tmp_path / "a/c/x").read_text() == "x"


def test_a_mismatch_on_disk_is_found(run: Path, added: tuple[Path, str], tmp_path: Path):
    probes = torch.rand(3, 1, 16, 16)
    assert "all 12 are bit-identical" in before_after.compare(run, added[0], probes, seed=0).text()
    model = load_checkpoint(added[0] / "checkpoint")
    with torch.no_grad():
        model.find("digit-3").log_odds.add_(1e-3)
    save_checkpoint(model, tmp_path / "checkpoint")
    with pytest.raises(TzkError, match="'digit-3' is not what it was.*parameters or buffers"):
        before_after.compare(run, tmp_path, probes, seed=0)


def test_a_comparison_that_fails_is_an_error_and_leaves_nothing(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def tampering(parent: Path, folder: Path, kinds: Any) -> None:
        extend_checkpoint(parent, folder, kinds)
        model = load_checkpoint(folder)
        with torch.no_grad():
            next(model.find("digit-5").parameters()).add_(1.0)
        save_checkpoint(model, folder)

    monkeypatch.setattr("tzk_core.storage.knowledge_files.extend_checkpoint", tampering)
    result = added_to(run, tmp_path / "none", SPEC)
    assert result.exit_code == 2 and "'digit-5' is not what it was" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["none.toml"]


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
