"""Run folders: found by name, and made whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tzk_core.errors import TzkError
from tzk_core.runs.folder import RunFolder
from tzk_core.runs.lineage import new_folder


def made(path: Path) -> RunFolder:
    path.mkdir()
    folder = RunFolder(path)
    folder.write(folder.config, 'name = "x"\n')
    return folder


def test_runs_to_choose_from_are_those_that_are_whole(tmp_path: Path) -> None:
    made(tmp_path / "one")
    made(tmp_path / f".two.{os.getpid()}-00000000.partial")  # as a command that was killed leaves it
    with pytest.raises(TzkError, match=r"there is no such folder \(runs: [^,]*/one\)"):
        RunFolder.open(tmp_path / "three")


def test_a_command_goes_on_where_one_was_killed(tmp_path: Path) -> None:
    left = made(tmp_path / f".run.{os.getpid()}-00000000.partial")
    with new_folder(tmp_path / "run") as folder:
        folder.write(folder.config, "new")
    assert not left.path.exists() and os.listdir(tmp_path) == ["run"]
    assert (tmp_path / "run" / "config.toml").read_text() == "new"


def test_a_folder_that_appears_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    for meanwhile in (False, True):
        path = tmp_path / f"{meanwhile}"
        if not meanwhile:
            made(path)
        with pytest.raises(TzkError, match="never overwrites one: to go on with that run"), new_folder(path) as folder:
            folder.write(folder.config, "new")
            if meanwhile:
                made(path)
        assert RunFolder(path).config.read_text() == 'name = "x"\n' and len(list(path.iterdir())) == 1


def test_a_file_of_a_run_is_written_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = made(tmp_path / "run")
    folder.write_json(folder.record, {"status": "finished"})

    def full(self: Path, content: bytes) -> int:
        with self.open("wb") as file:
            file.write(content[: len(content) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        folder.write_json(folder.record, {"status": "failed"})
    assert folder.read_record() == {"status": "finished"}
    assert sorted(os.listdir(folder.path)) == ["config.toml", "run.json"]
