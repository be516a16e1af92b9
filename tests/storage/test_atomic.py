"""A file or folder is there whole or not at all, whatever interrupts its writing, and nothing temporary stays."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
from kills import Killed, killing

from tzk_core.errors import TzkError
from tzk_core.storage import atomic

CONTENT = {"a": "new", "sub/b": "more"}


def fill(path: Path, *, folder: bool) -> None:
    """Writes `CONTENT` into a folder, or its first part as a file."""
    if not folder:
        path.write_text(CONTENT["a"])
        return
    (path / "sub").mkdir()
    for name, text in CONTENT.items():
        (path / name).write_text(text)


def read(path: Path) -> dict[str, str] | str | None:
    if path.is_dir():
        return {str(each.relative_to(path)): each.read_text() for each in path.rglob("*") if each.is_file()}
    return path.read_text() if path.exists() else None


WRITERS = {"file": (atomic.new_file, False), "folder": (atomic.replaced_folder, True)}


@pytest.fixture(params=WRITERS)
def writer(request: pytest.FixtureRequest) -> tuple[Callable[[Path], Iterator[Path]], bool]:
    return WRITERS[request.param]


def old(path: Path, *, folder: bool) -> None:
    if folder:
        path.mkdir(parents=True)
    (path / "old" if folder else path).write_text("old")


@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_a_block_that_fails_leaves_what_was_there(tmp_path, writer, there: bool, error: type) -> None:
    write, folder = writer
    path = tmp_path / "it"
    if there:
        old(path, folder=folder)
    before = read(path)
    with pytest.raises(error), write(path) as fresh:
        fill(fresh, folder=folder)
        raise error
    assert read(path) == before and [each.name for each in tmp_path.iterdir()] == (["it"] if there else [])


@pytest.mark.parametrize("there", [False, True])
def test_a_kill_at_any_moment_leaves_the_old_or_the_new(tmp_path, writer, there: bool) -> None:
    write, folder = writer
    moment, through, states = 0, False, []
    while not through:
        path = tmp_path / f"{moment}" / "it"
        path.parent.mkdir()
        if there:
            old(path, folder=folder)
        before = read(path)
        with pytest.MonkeyPatch.context() as monkeypatch:
            killing(monkeypatch, moment)
            try:
                with write(path) as fresh:
                    fill(fresh, folder=folder)
                through = True
            except Killed:
                pass
        if folder:
            standing = atomic.reading(path, read)  # which changes nothing
            assert standing == read(path) if path.exists() else atomic.is_there(path) == (standing is not None)
            assert standing in (before, CONTENT)
            atomic.repair(path)
        states.append(read(path) == before)
        assert read(path) in (before, CONTENT if folder else CONTENT["a"])
        with write(path) as fresh:  # the next one removes what the kill left
            fill(fresh, folder=folder)
        assert [each.name for each in path.parent.iterdir()] == ["it"]
        moment += 1
    assert states == sorted(states, reverse=True) and states[0] and not states[-1]


def test_files_and_the_folders_that_list_them_are_waited_for_before_and_after_the_rename(tmp_path, monkeypatch) -> None:
    waited: list[tuple[str, bool]] = []

    def fsync(handle: int) -> None:
        status = os.fstat(handle)
        name = next(
            str(each.relative_to(tmp_path.parent))
            for each in [tmp_path, *tmp_path.rglob("*")]
            if os.path.samestat(status, each.stat())
        )
        waited.append((name.removeprefix(tmp_path.name).split("/")[-1], (tmp_path / "it").exists()))

    monkeypatch.setattr(os, "fsync", fsync)
    with atomic.new_folder(tmp_path / "it") as fresh:
        fill(fresh, folder=True)
    assert set(waited[:-1]) == {("a", False), ("b", False), ("sub", False), (fresh.name, False)}
    assert waited[-1] == ("", True)  # the folder that now has the name
    waited.clear()
    atomic.write(tmp_path / "file", "text")
    assert len(waited) == 2 and waited[0][0].startswith(".file.") and waited[1][0] == ""


def test_every_one_of_many_files_is_waited_for_and_a_disk_that_fails_is_an_error(tmp_path, monkeypatch) -> None:
    waited, names = set(), {f"{i}" for i in range(100)}

    def fsync(handle: int) -> None:
        waited.add(os.fstat(handle).st_ino)
        if len(waited) == failing:
            raise OSError(5, "the disk failed")

    monkeypatch.setattr(os, "fsync", fsync)
    for failing in (0, 60):
        waited.clear()
        expected = pytest.raises(OSError, match="the disk failed") if failing else nullcontext()
        with expected, atomic.new_folder(tmp_path / f"it-{failing}") as fresh:
            for name in names:
                (fresh / name).write_text(name)
        assert (tmp_path / f"it-{failing}").exists() == (not failing)
        assert failing or {each.stat().st_ino for each in (tmp_path / "it-0").iterdir()} <= waited


def test_two_that_write_at_once_have_names_of_their_own(tmp_path) -> None:
    with atomic.new_file(tmp_path / "it") as one, atomic.new_file(tmp_path / "it") as other:
        assert one != other and atomic.is_temporary(one) and not atomic.is_temporary(tmp_path / "it")
        one.write_text("one")
        other.write_text("other")
    assert (tmp_path / "it").read_text() == "one"  # whose block was through last


def test_what_another_process_is_writing_stays_and_what_a_dead_one_left_goes(tmp_path) -> None:
    ended = multiprocessing.get_context("spawn").Process(target=len, args=((),))
    ended.start()
    ended.join()
    theirs = tmp_path / f".it.{os.getppid()}-00000000.partial"
    left = tmp_path / f".it.{ended.pid}-00000000.partial"
    other = tmp_path / f".its.{ended.pid}-00000000.partial"
    for path in (theirs, left, other):
        path.mkdir()
    atomic.write(tmp_path / "it", b"x")
    assert sorted(each.name for each in tmp_path.iterdir()) == sorted([theirs.name, other.name, "it"])


def test_a_new_folder_is_made_where_there_is_nothing(tmp_path) -> None:
    (tmp_path / "it").mkdir()
    with pytest.raises(atomic.AlreadyThere), atomic.new_folder(tmp_path / "it"):
        raise AssertionError
    with pytest.raises(atomic.AlreadyThere), atomic.new_folder(tmp_path / "new") as fresh:
        fill(fresh, folder=True)
        (tmp_path / "new").mkdir()  # by somebody else meanwhile
    (tmp_path / "file").write_text("x")
    with pytest.raises(TzkError, match="cannot be made: Not a directory"), atomic.new_folder(tmp_path / "file" / "new"):
        raise AssertionError
    assert sorted(each.name for each in tmp_path.iterdir()) == ["file", "it", "new"]


def test_the_longest_name_of_a_file_can_be_written(tmp_path) -> None:
    name = "n" * 255
    atomic.write(tmp_path / name, "x")
    assert [each.name for each in tmp_path.iterdir()] == [name]
