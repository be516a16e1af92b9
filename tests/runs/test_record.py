"""run.json is not believed: whatever one value in it is, it is refused by name, or what reads it goes on."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tzk_core import TzK, TzkError, build_flow, build_knowledge
from tzk_core.config import config_from
from tzk_core.runs.folder import RunFolder
from tzk_core.runs.lineage import extended
from tzk_core.runs.opened import usable_config
from tzk_core.runs.record import add_seconds, begin_session
from tzk_core.storage.checkpoint import save_checkpoint

TABLES: dict[str, Any] = {
    "name": "small",
    "flow": {"layers": [{"type": "affine"}]},
    "datasets": [{"name": "moons", "type": "two-moons", "train": 6, "validation": 2, "test": 2}],
    "knowledge": [{"name": "a", "type": "gaussian", "present": {"dataset": "moons"}}],
    "training": {"steps": 1},
}
RECORD: dict[str, Any] = {
    "format": 1,
    "name": "small",
    "status": "finished",
    "command": "tzk run small.toml",
    "observations": {"shape": [2], "levels": None},
    "plugins": [{"name": "tzk", "distribution": "tzk-core", "version": "0.2"}],
    "timings": {"setup_seconds": 0.5},
    "sessions": [{"command": "tzk run small.toml"}],
    "resumes": [{"step": 1}],
    "lineage": [{"run": "first", "action": "import", "knowledge": ["a"], "pending": True}],
}
WRONG: list[Any] = [None, True, -1, 1.5, 10**400, float("nan"), "", "x", [], [1], {}, {"x": 1}]


def altered(value: Any) -> Iterator[Any]:
    """All copies of a value of which one part, at any depth, is missing or another."""
    if not isinstance(value, dict | list):
        return
    for key in list(value) if isinstance(value, dict) else range(len(value)):
        for wrong in WRONG:
            copied = copy.copy(value)
            copied[key] = wrong
            yield copied
        copied = copy.copy(value)
        del copied[key]
        yield copied
        for inner in altered(value[key]):
            copied = copy.copy(value)
            copied[key] = inner
            yield copied


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    model = TzK(build_flow((2,), layers=[{"type": "affine"}]))
    model.add("a", build_knowledge("gaussian", (2,), 0, name="a", hidden=2, layers=2))
    save_checkpoint(model, tmp_path / "checkpoint")
    folder = RunFolder(tmp_path)
    folder.config.write_text(config_from(TABLES).to_toml())
    return folder


def used(run: RunFolder) -> None:
    """What commands do with a record."""
    record = run.read_record()
    usable_config(run.path)
    extended(run, "import", ["a"], core="", command="")
    begin_session(record, "tzk run")
    add_seconds(record, "setup", 1.0)
    run.write_json(run.path / "written.json", record | {"status": "finished"})


def test_a_record_of_this_version_is_read(run: RunFolder) -> None:
    run.write_json(run.record, RECORD)
    used(run)
    assert run.read_record() == RECORD


@pytest.mark.parametrize("key", RECORD)
def test_one_wrong_value_is_refused_by_name_or_does_no_harm(run: RunFolder, key: str) -> None:
    refused = 0
    for wrong in altered({key: RECORD[key]}):
        others = {name: value for name, value in RECORD.items() if name != key}
        run.record.write_text(json.dumps(others | wrong))
        try:
            used(run)
        except TzkError as error:
            assert "run.json is damaged" in str(error) and key in str(error)
            refused += 1
    assert refused or key == "format"
