"""Several at once: readers get one whole state and change nothing, and one command at a time writes to a run."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import threading
from pathlib import Path

import pytest
import torch

import tzk_core
from tzk_core import TzK, build_flow, build_knowledge
from tzk_core.errors import TzkError
from tzk_core.storage import atomic
from tzk_core.storage.checkpoint import save_checkpoint
from tzk_core.storage.locks import writing
from tzk_core.storage.places import checkpoint_in
from tzk_core.storage.stored import read_stored, step_of


def tiny(seed: int) -> TzK:
    model = TzK(build_flow((2,), layers=[{"type": "lu-linear", "identity_init": False}], seed=seed))
    model.add("a", build_knowledge("gaussian", (2,), seed, hidden=2, layers=2))
    return model


def listed(folder: Path) -> list[tuple[str, int]]:
    return sorted((str(each.relative_to(folder)), each.stat().st_mtime_ns) for each in folder.rglob("*"))


def test_readers_of_a_run_that_is_being_written_always_find_one_whole_state(tmp_path: Path) -> None:
    """Every file of a state names its step: a mixture would show."""
    models = [tiny(seed) for seed in (0, 1)]
    save_checkpoint(models[0], tmp_path / "checkpoint", {"step": 0})
    stop, failed = threading.Event(), []

    def write() -> None:
        try:
            for step in range(1, 61):
                save_checkpoint(models[step % 2], tmp_path / "checkpoint", {"step": step})
        except BaseException as error:
            failed.append(error)
        finally:
            stop.set()

    writer = threading.Thread(target=write)
    writer.start()
    turns = 0
    while not stop.is_set() or turns == 0:
        stored = read_stored(checkpoint_in(tmp_path), trainer=True)
        assert stored.trainer()["step"] == stored.step
        expected = models[(stored.step or 0) % 2].state_dict()
        loaded = tzk_core.load(tmp_path)  # may be of a later step
        assert set(loaded.state_dict()) == set(expected) and atomic.is_there(tmp_path / "checkpoint")
        assert step_of(tmp_path / "checkpoint") is not None
        turns += 1
    writer.join()
    assert not failed and [each.name for each in tmp_path.iterdir()] == ["checkpoint"]


def test_writers_of_one_place_each_write_a_whole_folder_and_the_last_stays(tmp_path: Path) -> None:
    model, failed = tiny(0), []

    def write(first: int) -> None:
        try:
            for step in range(first, first + 20):
                save_checkpoint(model, tmp_path / "it", {"step": step})
        except BaseException as error:
            failed.append(error)

    writers = [threading.Thread(target=write, args=(first,)) for first in (0, 100, 200)]
    for each in writers:
        each.start()
    for each in writers:
        each.join()
    assert not failed and read_stored(tmp_path / "it", trainer=True).step in (19, 119, 219)
    assert [each.name for each in tmp_path.iterdir()] == ["it"]


@pytest.mark.parametrize("name", [f".checkpoint.{2**22 + 1}-00000000.aside", "checkpoint.old"])
def test_what_a_kill_left_aside_is_read_where_it_is_and_the_next_writer_puts_it_right(
    tmp_path: Path, name: str
) -> None:
    """No process has a number of 2^22 or more on Linux; older versions called the folder checkpoint.old."""
    save_checkpoint(tiny(0), tmp_path / "checkpoint", {"step": 3})
    (tmp_path / "checkpoint").rename(tmp_path / name)
    before = listed(tmp_path)
    assert tzk_core.load(tmp_path).knowledge and step_of(checkpoint_in(tmp_path)) == 3
    assert listed(tmp_path) == before
    save_checkpoint(tiny(1), tmp_path / "checkpoint", {"step": 4})
    assert [each.name for each in tmp_path.iterdir()] == ["checkpoint"] and step_of(tmp_path / "checkpoint") == 4


def test_a_folder_that_cannot_be_written_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_checkpoint(tiny(0), tmp_path / "checkpoint")
    (tmp_path / "checkpoint").rename(tmp_path / "checkpoint.old")

    def refuse(*arguments: object, **named: object) -> None:
        raise PermissionError(13, "Permission denied")

    for owner, name in ((Path, "rename"), (Path, "mkdir"), (os, "mkdir"), (shutil, "rmtree"), (Path, "unlink")):
        monkeypatch.setattr(owner, name, refuse)
    assert torch.equal(tzk_core.load(tmp_path).log_prob(torch.zeros(1, 2)), tiny(0).log_prob(torch.zeros(1, 2)))


def test_what_was_the_best_checkpoint_is_read_as_the_last_once_it_is_gone(tmp_path: Path) -> None:
    """Changing knowledge removes it: a reader may have chosen it just before."""
    save_checkpoint(tiny(0), tmp_path / "checkpoint", {"step": 7})
    gone = tmp_path / "best"
    assert read_stored(gone).step == 7 and step_of(gone) == 7
    with pytest.raises(TzkError, match="elsewhere"):
        read_stored(tmp_path / "elsewhere")


def test_whoever_may_write_tidies_what_killed_ones_left(tmp_path: Path) -> None:
    dead, alive = 2**22 + 1, os.getppid()  # beyond the largest number of a process
    for name in (
        "best",
        f".best.{dead}-0000000a.aside",
        f".last.{dead}-0000000b.aside",
        f".best.{alive}-0000000c.partial",
    ):
        (tmp_path / name).mkdir()
    (tmp_path / f".run.json.{dead}-0000000d.partial").touch()
    (tmp_path / f".run.json.{alive}-0000000e.partial").touch()
    with writing(tmp_path):
        found = {each.name for each in tmp_path.iterdir()}
    assert found == {".lock", "best", "last", f".best.{alive}-0000000c.partial", f".run.json.{alive}-0000000e.partial"}


def test_what_is_damaged_is_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_checkpoint(tiny(0), tmp_path / "checkpoint")
    (tmp_path / "checkpoint/core.safetensors").write_bytes(b"x")
    monkeypatch.setattr(atomic.time, "sleep", lambda seconds: pytest.fail("waited for nothing"))
    with pytest.raises(TzkError, match="truncated or altered"):
        tzk_core.load(tmp_path)


def _hold(folder: Path, held: object, released: object) -> None:
    with writing(folder):
        held.set()  # type: ignore[attr-defined]
        released.wait(60)  # type: ignore[attr-defined]


def test_a_second_writer_is_refused_until_the_first_is_through_or_killed(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    for kill in (False, True):
        held, released = spawn.Event(), spawn.Event()
        other = spawn.Process(target=_hold, args=(tmp_path, held, released))
        other.start()
        assert held.wait(60)
        with pytest.raises(TzkError, match="another command is writing to .*: wait until"), writing(tmp_path):
            raise AssertionError
        other.kill() if kill else released.set()
        other.join()
        with writing(tmp_path):
            pass
