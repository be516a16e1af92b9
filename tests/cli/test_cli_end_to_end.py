"""A whole tiny run from the command line: what it leaves, that it resumes exactly, and what reads it."""

from __future__ import annotations

import csv
import json
import signal
from pathlib import Path
from typing import Any

import pytest
from commands import tzk
from PIL import Image

from tzk_core.config import load_config
from tzk_core.report import pictures
from tzk_core.runs.experiment import Experiment

CONFIG = """
name = "glyphs"

[flow]
steps = 2
tile = 4

[[datasets]]
name = "digits"
type = "glyph-digits"
train = 300
validation = 20
test = 60

[[datasets]]
name = "letters"
type = "glyph-letters"
train = 200
validation = 20
test = 40

[[knowledge]]
name = "digits"
type = "gaussian"
present = { dataset = "digits" }

[[knowledge]]
name = "digit-{label}"
type = "gaussian"
hidden = 8
present = { dataset = "digits", label = "each" }
implies = "digits"

[training]
steps = 6
batch_size = 32
log_every = 2
initialisation = 64

[evaluation]
importance_samples = 4
partitions = { digits = ["digit-*"] }
means = { "mean digit" = ["digit-*"] }
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    (folder / "glyphs.toml").write_text(CONFIG)
    return folder


@pytest.fixture(scope="module")
def run(folder: Path) -> Path:
    """A finished run."""
    result = tzk("run", folder / "glyphs.toml", "seed=1", "--out", folder / "whole")
    assert result.exit_code == 0, result.output
    return folder / "whole"


def results(run: Path) -> dict[str, Any]:
    return json.loads((run / "results.json").read_text())


def test_the_run_folder_is_whole(run: Path):
    names = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
    pictures = {name for name in names if name.startswith("samples/")}
    knowledge = {
        f"{checkpoint}/knowledge/{name}.safetensors"
        for checkpoint in ("checkpoint", "best")
        for name in ["digits", *(f"digit-{i}" for i in range(10))]
    }
    assert names - pictures - knowledge - {"report.html"} == {  # which tzk-plugin-report writes
        "config.toml",
        "run.json",
        "metrics.csv",
        "results.json",
        "results.md",
        ".lock",
        "checkpoint/manifest.json",
        "checkpoint/core.safetensors",
        "checkpoint/trainer.pt",
        "best/manifest.json",
        "best/core.safetensors",
        "best/trainer.pt",
    }
    assert knowledge <= names
    assert {"samples/samples-prior.png", "samples/training-curves.png"} <= pictures
    assert json.loads((run / "run.json").read_text())["status"] == "finished"
    assert len(metrics(run)) == 3


def test_the_results_have_every_row_type(run: Path):
    rows = results(run)["rows"]
    assert {row["kind"] for row in rows} == {"prior", "knowledge", "mixture", "baseline"}
    assert {row["dataset"] for row in rows if row["kind"] == "prior"} == {"digits", "letters"}
    assert all(row["bits_per_dim"] > 0 for row in rows)


def test_an_existing_folder_is_refused(run: Path, folder: Path):
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    result = tzk("run", folder / "glyphs.toml", "--out", run)
    assert result.exit_code == 2
    assert "is there already" in result.stderr
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


def metrics(run: Path) -> list[dict[str, str]]:
    """The rows of the log without what depends on the clock."""
    with (run / "metrics.csv").open(newline="") as file:
        return [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]


@pytest.mark.parametrize("step", [3, 4])
def test_a_resumed_run_is_the_uninterrupted_one(run: Path, folder: Path, step: int, monkeypatch: pytest.MonkeyPatch):
    def lines_until_interrupt(*_: Any, **__: Any) -> Any:
        def show(progress: Any) -> None:
            if progress.step == step:
                signal.raise_signal(signal.SIGINT)

        return show

    parts = folder / f"in-parts-{step}"
    with monkeypatch.context() as patch:
        patch.setattr("tzk_core.training.progress.lines", lines_until_interrupt)
        result = tzk("run", folder / "glyphs.toml", "seed=1", "pictures.draw=[]", "--out", parts)
    assert result.exit_code == 130, result.output
    assert f"tzk run {parts} --resume" in result.stdout
    assert not (parts / "results.json").exists()

    result = tzk("run", parts, "--resume")
    assert result.exit_code == 0, result.output
    assert results(parts) == results(run)
    assert metrics(parts) == metrics(run)
    for file in (run / "checkpoint").rglob("*.safetensors"):
        assert (parts / "checkpoint" / file.relative_to(run / "checkpoint")).read_bytes() == file.read_bytes(), file


def test_the_same_numbers_are_evaluated_from_the_folder_alone(run: Path):
    assert json.loads(tzk("eval", run, "--json").stdout) == results(run)
    table = tzk("eval", run, "--split", "validation", "--limit", 10)
    assert table.exit_code == 0
    assert "bits/dim" in table.stdout


def test_samples_from_the_prior_and_given_knowledge(run: Path, tmp_path: Path):
    first, second, third = (tmp_path / f"{i}.png" for i in range(3))
    assert tzk("sample", run, "-n", 4, "-o", first).exit_code == 0
    given = ["sample", run, "--knowledge", "digit-7", "-n", 4, "--characteristics", "1.5,-0.3", "-o"]
    assert tzk(*given, second).exit_code == 0
    assert tzk(*given, third).exit_code == 0
    assert Image.open(first).size == Image.open(second).size
    assert second.read_bytes() == third.read_bytes() != first.read_bytes()
    result = tzk("sample", run, "--knowledge", "digit-11")
    assert result.exit_code == 2
    assert "did you mean 'digit-1'" in result.stderr


def test_what_knowledge_was_removed_is_left_out_of_the_table_and_named(run: Path, tmp_path: Path):
    assert tzk("knowledge", "remove", run, "digit-3", "--out", tmp_path / "less").exit_code == 0
    reduced, whole = json.loads(tzk("eval", tmp_path / "less", "--json").stdout), results(run)
    rows_of = [{(row["name"], row["kind"]) for row in table["rows"]} for table in (whole, reduced)]
    gone = {("digit-3", "knowledge"), ("mean digit", "knowledge"), ("digits", "mixture")}
    assert rows_of[0] - rows_of[1] == gone and rows_of[1] < rows_of[0]
    listed = [{each["name"] for each in table["knowledge"]} for table in (whole, reduced)]
    assert listed[0] - listed[1] == {"digit-3"}
    assert reduced["classification"] == [] != whole["classification"]
    for name in ("prior", "digits"):
        rows = [
            [row for row in table["rows"] if row["name"] == name and row["kind"] != "mixture"]
            for table in (whole, reduced)
        ]
        assert rows[0] == rows[1] != []
    printed = " ".join(tzk("eval", tmp_path / "less").stdout.split())
    assert "this model does not have any more: digit-3." in printed
    assert "The mixture 'digits' is left out: the config has it over 10 knowledge types" in printed
    assert "The mean 'mean digit' is left out" in printed
    result = tzk("sample", tmp_path / "less", "--knowledge", "digit-3", "-o", tmp_path / "3.png")
    assert result.exit_code == 2 and "no knowledge type 'digit-3'" in result.stderr


def test_what_comes_back_is_evaluated_as_if_it_had_never_gone(run: Path, tmp_path: Path):
    """And what comes by a name that the config does not know takes no part in the table, which says so."""
    less, file = tmp_path / "less", tmp_path / "digit-3.safetensors"
    assert tzk("knowledge", "export", run, "digit-3", "-o", file).exit_code == 0
    assert tzk("knowledge", "remove", run, "digit-3", "--out", less).exit_code == 0
    assert tzk("knowledge", "import", less, file).exit_code == 0
    evaluated = [json.loads(tzk("eval", less, "--json").stdout)]
    assert tzk("knowledge", "import", less, file, "--as", "three").exit_code == 0
    evaluated.append(json.loads(tzk("eval", less, "--json").stdout))
    expected = results(run)
    assert evaluated[0]["notes"] == expected["notes"]
    (note,) = (each for each in evaluated[1]["notes"] if each not in expected["notes"])
    assert note.endswith(": three.") and "not evaluated" in note
    for each in expected["knowledge"]:
        each["multiplier"] = None  # the state of the training, which holds it, does not come along
    expected["rows"].sort(key=str)
    for each in evaluated:
        each["rows"].sort(key=str)  # it is the last in its model
        assert each["rows"] == expected["rows"]
        assert {entry["name"]: entry for entry in each["knowledge"]} == {
            entry["name"]: entry for entry in expected["knowledge"]
        }
    for folder in (run, less):
        drawn = tmp_path / f"{folder.name}.png"
        assert tzk("sample", folder, "--knowledge", "digit-3", "-n", 4, "-o", drawn).exit_code == 0
    assert (tmp_path / "less.png").read_bytes() == (tmp_path / f"{run.name}.png").read_bytes()
    assert tzk("sample", less, "--knowledge", "three", "-n", 4, "-o", tmp_path / "three.png").exit_code == 0


def test_pictures_are_of_the_knowledge_that_is_left(run: Path, tmp_path: Path):
    digits = [f"digit-{i}" for i in range(10)]
    assert tzk("knowledge", "remove", run, *digits, "--out", tmp_path / "less").exit_code == 0
    experiment = Experiment(load_config(tmp_path / "less/config.toml"))
    experiment.load(tmp_path / "less")
    assert experiment.groups == {} and experiment.knowledge_names == ("digits",)
    pictures.draw(experiment, tmp_path / "less", {})
    drawn = {path.name for path in (tmp_path / "less/samples").iterdir()}
    assert "samples-digits.png" in drawn and not any("digit-" in name for name in drawn)


def test_samples_given_several_knowledge_types(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    given = ["sample", run, "--knowledge", "digits", "--knowledge", "digit-7", "-n", 4]
    nested = tzk(*given, "--without", "digit-3", "--characteristics", "digit-7=1.5,-0.3", "--particles", 64)
    assert nested.exit_code == 0, nested.output
    assert "digit-7 and not digit-3" in nested.stdout
    told = ("effective sample size", "of 64 particles", "tempering", "ancestors", "acceptance", "log normaliser")
    for word in (*told, "on digit-7", "on not digit-3"):
        assert word in nested.stdout
    assert nested.stdout.endswith("digits-and-digit-7-not-digit-3.png\n")
    assert Image.open("digits-and-digit-7-not-digit-3.png").size[0] > 16

    alone = tzk(*given)
    assert "digit-7 is all that counts: it implies the rest" in alone.stdout
    assert tzk("sample", run, "--knowledge", "digit-7", "-n", 4).exit_code == 0
    assert Path("digits-and-digit-7.png").read_bytes() == Path("digit-7.png").read_bytes()

    among = [f"--among=digit-{i}" for i in range(2)]
    mixed = tzk("sample", run, "--knowledge", "digits", *among, "--particles", 64, "-n", 4, "-o", "mixed.png")
    assert mixed.exit_code == 0 and "on digits" in mixed.stdout, mixed.output
    assert Path("mixed.png").read_bytes() != Path("digit-7.png").read_bytes()
    refused = tzk("sample", run, "--knowledge", "digits", among[0], "-o", "none.png")
    assert refused.exit_code == 2 and "got 'digit-0' alone" in refused.stderr

    weighed = tzk("sample", run, "--without", "digit-3", "--side", "encoder", "--particles", 64, "-n", 4)
    assert weighed.stdout.endswith("prior-not-digit-3.png\n"), weighed.output
    refused = tzk("sample", run, "--knowledge", "digit-7", "--without", "digits", "-o", "none.png")
    assert refused.exit_code == 2 and "'digit-7' implies 'digits'" in refused.stderr
    assert not Path("none.png").exists()
