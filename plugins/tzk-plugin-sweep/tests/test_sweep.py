"""Runs of a sweep are those of `tzk run`, what is missing is done, and one table has means and errors."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from tzk_plugin_sweep import sweep
from tzk_plugin_sweep.processes import Job

from tzk_core.cli import main
from tzk_core.runs.folder import RunFolder
from tzk_core.testing import check_plugin

GRID = ("training.steps=2,3",)
PROGRAM = "from tzk_plugin_sweep.sweep import command; from tzk_core.cli import main; main.add_command(command); main()"


def call(config: Path, out: Path, *words: str, status: int = 0) -> Result:
    result = CliRunner().invoke(sweep.command, [str(config), *words, "--out", str(out)])
    assert result.exit_code == status, (result.output, result.exception)
    return result


def table(out: Path) -> dict[str, Any]:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not strict JSON")

    found: dict[str, Any] = json.loads((out / "sweep.json").read_text(), parse_constant=refuse)
    return found


@pytest.fixture(scope="module")
def swept(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished sweep: two values, two seeds."""
    out = tmp_path_factory.mktemp("sweep") / "out"
    call(config, out, *GRID, "--seeds", "2", "--jobs", "2")
    return out


def test_the_plugin_keeps_the_contract() -> None:
    check_plugin("tzk_plugin_sweep")


@pytest.mark.slow
def test_the_table_has_means_and_standard_errors_over_seeds(swept: Path) -> None:
    found = table(swept)
    assert len(found["runs"]) == 4 and {run["status"] for run in found["runs"]} == {"finished"}
    assert found["keys"] == ["training.steps"]
    by_steps: dict[str, list[float]] = {}
    for run in found["runs"]:
        results = json.loads((swept / run["run"] / "results.json").read_text())
        value = next(row["bits_per_dim"] for row in results["rows"] if row["kind"] == "prior")
        by_steps.setdefault(run["values"]["training.steps"], []).append(value)
        record = json.loads((swept / run["run"] / "run.json").read_text())
        assert record["threads"] == 1 and record["seed"] == run["seed"]
    for row in found["rows"]:
        if row["kind"] == "prior":
            one, other = by_steps[row["values"]["training.steps"]]
            assert one != other and row["seeds"] == [0, 1]
            assert row["bits_per_dim"]["mean"] == pytest.approx((one + other) / 2, abs=1e-12)
            assert row["bits_per_dim"]["standard_error"] == pytest.approx(abs(one - other) / 2, abs=1e-12)
            assert row["bits_per_pixel"] is None and row["log_prob_nats"] is not None
    text = (swept / "sweep.md").read_text()
    assert "log p (nats)" in text and "bits/pixel" not in text and "±" in text


@pytest.mark.slow
def test_a_second_call_does_what_is_missing_and_no_more(
    swept: Path, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = shutil.copytree(swept, tmp_path / "out")
    before = table(out)
    gone, kept = before["runs"][0]["run"], before["runs"][1]["run"]
    shutil.rmtree(out / gone)
    stamp = (out / kept / "run.json").stat().st_mtime_ns
    started: list[str] = []
    start = Job.start
    monkeypatch.setattr(Job, "start", lambda job: (started.append(job.folder.name), start(job))[1])
    call(config, out, *GRID, "--seeds", "2")
    assert started == [gone] and (out / kept / "run.json").stat().st_mtime_ns == stamp
    assert table(out)["rows"] == before["rows"], "the same run has the same figures"
    started.clear()
    call(config, out, *GRID, "--seeds", "2")
    assert started == []
    other = tmp_path / "other.toml"
    other.write_text(config.read_text().replace("hidden = 4", "hidden = 5"))
    assert "runs of another config" in str(call(other, out, *GRID, "--seeds", "2", status=1).exception)


@pytest.mark.slow
def test_a_run_that_fails_is_named_and_ends_no_other(config: Path, tmp_path: Path) -> None:
    key = "evaluation.partitions.all"
    result = call(config, tmp_path / "out", f'{key}=["moon-*", "moon-*"],["moon-*", "none-*"]', "--jobs", "1", status=1)
    good, bad = table(tmp_path / "out")["runs"]
    assert good["status"] == "finished" and bad["status"] == "failed" and "none-*" in bad["error"]
    assert bad["run"] in result.output and bad["error"] in result.output
    assert {row["values"][key] for row in table(tmp_path / "out")["rows"]} == {'["moon-*", "moon-*"]'}
    assert bad["run"] in (tmp_path / "out/sweep.md").read_text()


def test_a_single_seed_has_no_standard_error(config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = {"dataset": "d", "split": "test", "kind": "prior", "name": "p(T)", "knowledge": None}

    def made(job: Job) -> Any:
        folder = RunFolder(job.folder)
        folder.path.mkdir(parents=True)
        (folder.path / "config.toml").write_text("")
        value = math.nan if "3" in job.folder.name.partition("-")[0] else 2.0
        folder.write_json(folder.results, {"rows": [row | {"bits_per_dim": value}]})
        folder.write_json(folder.record, {"format": 1, "name": "x", "status": "finished"})
        return subprocess.Popen([sys.executable, "-c", ""], process_group=0)

    monkeypatch.setattr(Job, "start", made)
    call(config, tmp_path / "out", *GRID)
    two, three = table(tmp_path / "out")["rows"]
    assert two["bits_per_dim"] == {"mean": 2.0, "standard_error": None}
    assert three["bits_per_dim"] is None, "nan is null in results.json, and no figure here"


def test_mistakes_are_found_before_anything_runs(config: Path, tmp_path: Path) -> None:
    for words, expected in [
        (("training.stepz=1,2",), "stepz"),
        (("training.steps=1,-1",), "steps"),
        (("training.steps=[1,2",), "not closed"),
        (("--launcher", "submitit", "--slurm", "x"), "expected as KEY=VALUE"),
    ]:
        assert expected in str(call(config, tmp_path / "out", *words, status=1).exception)
    assert "no such file" in str(call(tmp_path / "none.toml", tmp_path / "out", status=1).exception)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_all_runs_with_a_checkpoint(config: Path, tmp_path: Path, number: signal.Signals) -> None:
    out = tmp_path / "out"
    words = ["sweep", str(config), "training.steps=100000,200000", "--jobs", "2", "--out", str(out)]
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, *words], stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 900
    while len(list(out.glob("*/checkpoint/manifest.json"))) < 2:
        assert process.poll() is None and time.monotonic() < end, process.communicate()
        time.sleep(0.05)
    process.send_signal(number)
    _, said = process.communicate(timeout=900)
    assert process.returncode == 128 + number and "interrupted" in said
    for run in table(out)["runs"]:
        assert run["status"] == "interrupted"
    assert not [each for each in os.listdir("/proc") if each.isdecimal() and _is_of(each, str(out))]


def _is_of(process: str, words: str) -> bool:
    try:
        return words in Path(f"/proc/{process}/cmdline").read_text()
    except OSError:
        return False


@pytest.mark.slow
def test_submitit_does_the_same_runs(swept: Path, config: Path, tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    out = tmp_path / "out"
    call(
        config, out, *GRID, "--seeds", "2", "--launcher", "submitit", "--cluster", "local", "--slurm", "timeout_min=10"
    )
    assert table(out)["rows"] == table(swept)["rows"]


def test_without_submitit_it_says_what_to_install(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "submitit", None)
    result = CliRunner().invoke(sweep.command, [str(config), "--launcher", "submitit", "--out", str(tmp_path / "out")])
    assert "pip install 'tzk-plugin-sweep[submitit]'" in str(result.exception)
    assert main is not None
