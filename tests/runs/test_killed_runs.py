"""A run that was killed anywhere goes on as if nothing had happened, and its record is right."""

from __future__ import annotations

import contextlib
import csv
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import tzk
from kills import Killed, killing

import tzk_core
from tzk_core import TzK, build_flow, build_knowledge
from tzk_core.cli import run as run_command
from tzk_core.config import config_from
from tzk_core.errors import TzkError
from tzk_core.observations import Observations
from tzk_core.runs.folder import RunFolder
from tzk_core.runs.lineage import settled
from tzk_core.storage.checkpoint import save_checkpoint
from tzk_core.training.metrics import keep_until, read_rows
from tzk_core.training.settings import Settings
from tzk_core.training.trainer import Trainer

TABLES: dict[str, Any] = {
    "name": "small",
    "flow": {"layers": [{"type": "affine"}]},
    "datasets": [{"name": "moons", "type": "two-moons", "train": 60, "validation": 20, "test": 20}],
    "training": {"steps": 4, "batch_size": 16, "initialisation": 32},
}


# the folder


def test_a_kill_at_the_start_leaves_nothing_or_what_can_be_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("small.toml").write_text(config_from(TABLES).to_toml())
    monkeypatch.setattr(run_command, "_train_and_report", lambda *arguments, **options: None)
    monkeypatch.setattr(run_command, "_say_end", lambda *arguments: None)
    moment, through, left = 0, False, []
    while not through:
        out = f"out-{moment}"
        with pytest.MonkeyPatch.context() as patched:
            killing(patched, moment)
            with contextlib.suppress(Killed):
                through = tzk("run", "small.toml", "--out", out).exit_code == 0
        left.append(Path(out).exists())
        words = ("run", out, "--resume") if left[-1] else ("run", "small.toml", "--out", out)
        assert tzk(*words).exit_code == 0
        assert json.loads(Path(out, "run.json").read_text())["status"] == "finished"
        moment += 1
    assert left == sorted(left) and not left[0] and left[-1] and moment > 8
    assert not [each for each in tmp_path.iterdir() if each.name.endswith(".partial")]


# the log


class InOrder:
    def batch(self, step: int) -> Observations:
        T = torch.randn(16, 2, generator=torch.Generator().manual_seed(step))
        return Observations(T, (T[:, :1] < 0).float(), ("left",))

    def sources(self, step: int) -> Mapping[str, slice]:
        return {"T": slice(0, 16)}


def trainer() -> Trainer:
    model = TzK(build_flow((2,), layers=[{"type": "affine"}]))
    model.add("left", build_knowledge("gaussian", (2,), 0, name="left", hidden=4, layers=2))
    return Trainer(model, InOrder(), Settings(steps=8, log_every=2, checkpoint_every=6), levels=None)


def logged(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]


@pytest.mark.parametrize("at", [3, 5, 7], ids="killed after {}".format)
@pytest.mark.parametrize("cut", [0, 1, 7], ids="{} bytes lost".format)
def test_the_log_of_a_run_that_was_killed_is_that_of_one_that_was_not(tmp_path: Path, at: int, cut: int) -> None:
    """Before the first checkpoint too, where it begins anew."""

    def kill(progress: Any) -> None:
        if progress.step == at:
            raise Killed

    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    trainer().run(tmp_path / "whole")
    with pytest.raises(Killed):
        trainer().run(tmp_path / "killed", kill)
    log = tmp_path / "killed/metrics.csv"
    log.write_bytes(log.read_bytes()[: len(log.read_bytes()) - cut])
    again = trainer()
    if (tmp_path / "killed/checkpoint").exists():
        again.resume(tmp_path / "killed")
    again.run(tmp_path / "killed")
    whole, found = logged(tmp_path / "whole"), logged(tmp_path / "killed")
    lost = [row for row in whole if row not in found]
    assert [row for row in whole if row in found] == found
    assert not lost or (cut and at > 6 and [row["step"] for row in lost] == ["6"])  # cut off behind a checkpoint


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"step,a\n1,2\n3\n4,5\n", "damaged in line 3"),
        (b"step,a\n1,2\nx,2\n4,5\n", "damaged in line 3"),
        (b"step,a\n" + b"9" * 5000 + b",2\n4,5\n", "damaged in line 2"),
        (b"a,b\n1,2\n", "expected a column 'step' first; got a, b"),
        (b"step,a\n\xff\xfe,1\n", "is damaged"),
        (b"step,a\n" + b"1" * 200_000 + b"\n", "is damaged"),
    ],
)
def test_a_damaged_log_is_named(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "metrics.csv"
    path.write_bytes(content)
    with pytest.raises(TzkError, match=words):
        keep_until(path, 3)
    assert path.read_bytes() == content


def test_a_row_that_was_cut_off_is_none(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_bytes(b"step,a\r\n1,2\r\n12,3")
    assert read_rows(path) == (["step", "a"], [["1", "2"]], True)
    keep_until(path, 20)
    assert path.read_bytes() == b"step,a\r\n1,2\r\n"


# the record


def finished(folder: Path, names: tuple[str, ...]) -> Path:
    model = TzK(build_flow((2,), layers=[{"type": "affine"}]))
    for name in names:
        model.add(name, build_knowledge("gaussian", (2,), 0, name=name, hidden=2, layers=2))
    folder.mkdir()
    (folder / "config.toml").write_text('name = "small"\n')
    (folder / "run.json").write_text(json.dumps({"status": "finished", "lineage": [{"run": "first"}]}))
    save_checkpoint(model, folder / "checkpoint")
    return folder


@pytest.mark.parametrize("action", ["import", "remove"])
def test_a_kill_at_any_moment_leaves_a_lineage_that_is_true(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, action: str
) -> None:
    monkeypatch.chdir(tmp_path)
    start = finished(Path("start"), ("a",))
    file = tzk_core.export_knowledge(finished(Path("other"), ("b",)), "b")[0]
    words = {"import": [file], "remove": ["a"]}[action]
    moment, through, states = 0, False, []
    while not through:
        run = shutil.copytree(start, f"{moment}")
        with pytest.MonkeyPatch.context() as patched:
            killing(patched, moment)
            with contextlib.suppress(Killed):
                through = tzk("knowledge", action, run, *words).exit_code == 0
        done = set(tzk_core.load(run).knowledge) != {"a"}
        states.append(done)
        folder = RunFolder(Path(run))
        lineage = settled(folder.read_record()["lineage"], folder)
        assert [each.get("action") for each in lineage] == [None, *([action] if done else [])]
        if not done:
            assert tzk("knowledge", action, run, *words).exit_code == 0
        kept = json.loads(folder.record.read_text())["lineage"]
        assert done or [each.get("action") for each in kept] == [None, action] and "pending" not in kept[-1]
        moment += 1
    assert states == sorted(states) and not states[0] and states[-1] and moment > 8


def test_what_fails_is_not_in_the_lineage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = finished(Path("run"), ("a",))
    before = (run / "run.json").read_bytes()

    def full(*arguments: object, **named: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tzk_core.storage.knowledge_files.copy_checkpoint", full)
    assert tzk("knowledge", "remove", run, "a").exit_code == 2
    assert json.loads((run / "run.json").read_bytes()) == json.loads(before)


@pytest.mark.parametrize(
    "record",
    ["[]", "3", "null", '{"status": 3}', '{"lineage": {}}', '{"lineage": [3]}', '{"sessions": "x"}', "{", "[" * 10**5]
    + ['{"timings": {"a": "b"}}', '{"config": []}', '{"resumes": [[]]}', '{"lineage": [{"run": 1}]}'],
    ids=range(13),
)
def test_another_structure_of_the_record_is_a_sentence(tmp_path: Path, record: str) -> None:
    run = finished(tmp_path / "run", ("a",))
    (run / "run.json").write_text(record)
    result = tzk("knowledge", "remove", run, "a")
    assert result.exit_code == 2 and "run.json" in result.stderr and "should not happen" not in result.stderr
