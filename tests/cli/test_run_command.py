"""`tzk run`: what it leaves, how it is interrupted and resumed, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from commands import refused, tzk
from fake_experiment import FakeExperiment
from folders import contents


def test_run_leaves_a_run_folder(here: Path, experiment: type[FakeExperiment]):
    result = tzk("run", "small.toml", "seed=3", "--out", "out")
    assert result.exit_code == 0, result.output
    for message in (
        "1,000 train, 200 test",
        "shared flow: 1,234",
        "4 steps of 256",
        "run folder  out",
        "bits/dim moons 1.5",
    ):
        assert message in result.stdout
    assert "moons, prior: 1.250 bits/dim" in result.stdout
    record = json.loads((here / "out/run.json").read_text())
    assert record["status"] == "finished"
    assert record["seed"] == 3
    assert record["command"] == "tzk run small.toml seed=3 --out out"
    assert record["threads"] >= 1
    assert {"torch", "nflows", "python", "tzk-core"} <= set(record["versions"])
    assert {"setup_seconds", "training_seconds", "evaluation_seconds", "pictures_seconds"} == set(record["timings"])
    assert {"git", "hardware", "plugins", "device"} <= set(record)
    assert json.loads((here / "out/results.json").read_text())["rows"][0]["bits_per_dim"] == 1.25
    assert "tzk run small.toml seed=3 --out out" in (here / "out/results.md").read_text()
    assert tzk("check", "out/config.toml").exit_code == 0
    assert not list(here.glob("out/*.partial"))


def test_the_default_folder_is_named_and_dated(here: Path, experiment: type[FakeExperiment]):
    for _ in range(2):
        assert tzk("run", "small.toml").exit_code == 0
    folders = sorted((here / "runs").iterdir())
    assert len(folders) == 2
    assert all(folder.name.startswith("small-2") for folder in folders)


def test_an_existing_folder_is_never_overwritten(here: Path, experiment: type[FakeExperiment]):
    assert tzk("run", "small.toml", "--out", "out").exit_code == 0
    before = contents(here / "out")
    message = refused("run", "small.toml", "--out", "out")
    assert "the run folder out is there already" in message
    assert "tzk run out --resume" in message
    assert contents(here / "out") == before
    (here / "other").mkdir()
    assert "name another folder with --out" in refused("run", "small.toml", "--out", "other")


def test_a_dry_run_leaves_nothing(here: Path, experiment: type[FakeExperiment]):
    result = tzk("run", "small.toml", "--dry-run")
    assert result.exit_code == 0
    assert "parameters  shared flow: 1,234" in result.stdout
    assert "1 knowledge type: 56" in result.stdout
    assert [path.name for path in here.iterdir()] == ["small.toml"]
    assert experiment.calls == []


def test_the_plan_says_how_many_samples_keep_their_label_and_their_c(
    here: Path, experiment: type[FakeExperiment], monkeypatch: pytest.MonkeyPatch
):
    described = experiment.describe

    def describe(self: FakeExperiment) -> dict[str, Any]:
        tables = {"digit-{label}": (1000, 55000, 250, 55000), "even": (1, 1, 0, 0)}
        keys = ("labelled", "labels", "characterised", "characteristics")
        return described(self) | {
            "kept": {table: dict(zip(keys, numbers, strict=True)) for table, numbers in tables.items()}
        }

    monkeypatch.setattr(experiment, "describe", describe)
    result = tzk("run", "small.toml", "--dry-run")
    assert "labels      digit-{label}: kept in 1,000 of 55,000 training samples" in result.stdout
    assert "C           digit-{label}: kept in 250 of 55,000 training samples" in result.stdout
    assert "labels      even: kept in 1 of 1 training sample\n" in result.stdout
    assert result.stdout.count("  C  ") == 1


def test_check_says_what_is_kept(here: Path):
    result = tzk("check", "small.toml", "knowledge.moons.labelled=1000")
    assert "moons (gaussian), C in R^2, labels kept in 1,000\n" in result.stdout
    result = tzk("check", "small.toml", "knowledge.moons.labelled=0.125")
    assert "labels kept in 12.5 %" in result.stdout


def test_a_faulty_config_leaves_nothing(here: Path, experiment: type[FakeExperiment]):
    assert "unknown key" in refused("run", "small.toml", "training.stepz=4")
    assert not (here / "runs").exists()


def test_an_interrupted_run_says_how_to_go_on(here: Path, experiment: type[FakeExperiment]):
    experiment.interrupt_at = 2
    result = tzk("run", "small.toml", "--out", "out")
    assert result.exit_code == 130
    assert result.stdout.rstrip().endswith("tzk run out --resume")
    assert json.loads((here / "out/run.json").read_text())["status"] == "interrupted"
    result = tzk("run", "out", "--resume")
    assert result.exit_code == 0, result.output
    record = json.loads((here / "out/run.json").read_text())
    assert record["status"] == "finished"
    assert record["command"] == "tzk run small.toml --out out"
    assert [session["command"] for session in record["sessions"]][1] == "tzk run out --resume"
    assert experiment.calls == [("train", False), ("train", True)]


def test_a_finished_run_says_so(here: Path, experiment: type[FakeExperiment]):
    tzk("run", "small.toml", "--out", "out")
    for words in (["out"], ["small.toml", "--out", "out"], ["out/config.toml"]):
        result = tzk("run", *words, "--resume")
        assert result.exit_code == 0
        assert "out is finished: there is nothing to resume" in result.stdout
    assert experiment.calls == [("train", False)]


def test_resuming_a_finished_run_clears_what_a_kill_left(here: Path, experiment: type[FakeExperiment]):
    """As while its report was written, after all else was there."""
    tzk("run", "small.toml", "--out", "out")
    left = here / "out" / ".report.html.999999999-0123abcd.partial"
    left.write_text("half of it")
    tzk("run", "out", "--resume", "--dry-run")
    assert left.exists()
    tzk("run", "out", "--resume")
    assert not left.exists() and (here / "out" / "results.json").exists()


def test_a_run_goes_on_with_its_own_config_only(here: Path, experiment: type[FakeExperiment]):
    experiment.interrupt_at = 2
    tzk("run", "small.toml", "--out", "out")
    message = refused("run", "small.toml", "training.batch_size=9", "--out", "out", "--resume")
    assert "training.batch_size was 256 and is 9" in message
    assert tzk("run", "small.toml", "evaluation.limit=9", "--out", "out", "--resume").exit_code == 0
    assert "limit = 9" in (here / "out/config.toml").read_text()


def test_what_cannot_be_resumed(here: Path, experiment: type[FakeExperiment]):
    assert "which run to --resume: tzk run RUN --resume" in refused("run", "small.toml", "--resume")
    assert "nowhere is not a run folder" in refused("run", "nowhere", "--out", "nowhere", "--resume")
    (here / "out").mkdir()
    assert "expected a config.toml in it" in refused("run", "out", "--resume")
    assert "a folder without a config.toml" in refused("run", "out")
    (here / "out" / "config.toml").write_text("")
    assert "tzk run out --resume" in refused("run", "out")
    (here / "out" / "config.toml").unlink()


def test_a_failure_is_recorded(here: Path, experiment: type[FakeExperiment], monkeypatch: pytest.MonkeyPatch):
    from tzk_core.errors import TzkError

    def fail(*_: object, **__: object) -> None:
        raise TzkError("the objective is nan")

    monkeypatch.setattr(experiment, "train", fail)
    result = tzk("run", "small.toml", "--out", "out")
    assert (result.exit_code, result.stderr) == (2, "error: the objective is nan\n")
    assert json.loads((here / "out/run.json").read_text())["status"] == "failed"
