"""When the power fails, what was not waited for may be lost; what stands is still the old or the new, whole.

A simulated disk: of a file it has what it had at its last fsync. Of a folder it has the listing of its last fsync, or
any later one, whatever other folders have. At every operation of a writer, each such state is laid out and read.
"""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tzk_core.storage import atomic

OLD, NEW = {"a": "old"}, {"a": "new", "sub/b": "more"}
Listing = dict[str, int]


class Disk:
    """A folder whose writes are watched; files by their inode. Nothing is removed, so that no inode comes twice."""

    def __init__(self, root: Path, graves: Path) -> None:
        self.root, self.graves = root, graves
        graves.mkdir()
        self.content: dict[int, str] = {}
        self.listings: dict[int, list[Listing]] = {}
        self.states: list[list[dict[str, str]]] = []

    def watch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """From now on note every operation; what is there is on the disk."""
        for path in (self.root, *self.root.rglob("*")):
            self._reached(path)
        fsync = self._noted(lambda handle: self._reached(Path(os.readlink(f"/proc/self/fd/{handle}"))))
        monkeypatch.setattr(os, "fsync", fsync)
        for name in ("rename", "replace", "mkdir"):
            monkeypatch.setattr(Path, name, self._noted(getattr(Path, name)))
        monkeypatch.setattr(Path, "unlink", self._noted(self._bury))
        monkeypatch.setattr(shutil, "rmtree", self._noted(lambda path, **_: self._bury(path)))

    def _noted(self, operation: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            self.note()
            result = operation(*arguments, **named)
            self.note()
            return result

        return call

    def _bury(self, path: Path) -> None:
        os.rename(path, self.graves / str(len(list(self.graves.iterdir()))))

    def _reached(self, path: Path) -> None:
        """A file or folder, as it is now, is on the disk."""
        if path.is_dir():
            self.listings[path.stat().st_ino] = [_listing(path)]
        else:
            self.content[path.stat().st_ino] = path.read_text()

    def note(self) -> None:
        """Note the listings of now, and all that a failure of the power could leave."""
        for folder in (self.root, *(path for path in self.root.rglob("*") if path.is_dir())):
            listings = self.listings.setdefault(folder.stat().st_ino, [{}])
            if listings[-1] != _listing(folder):
                listings.append(_listing(folder))
        self.states.append(list(self.after_failing()))

    def after_failing(self) -> Iterator[dict[str, str]]:
        """What is there after the power has failed now, in each case: the text of files by their paths."""
        folders = list(self.listings)
        for chosen in itertools.product(*(self.listings[folder] for folder in folders)):
            of_folder = dict(zip(folders, chosen, strict=True))
            yield dict(self._files(of_folder, self.root.stat().st_ino, Path()))

    def _files(self, of_folder: dict[int, Listing], folder: int, path: Path) -> Iterator[tuple[str, str]]:
        for name, inode in of_folder[folder].items():
            if inode in of_folder:
                yield str(path / name) + "/", ""
                yield from self._files(of_folder, inode, path / name)
            else:
                yield str(path / name), self.content.get(inode, "")  # empty where nobody waited for it


def _listing(folder: Path) -> Listing:
    return {entry.name: entry.inode() for entry in os.scandir(folder)}


def laid_out(state: dict[str, str], place: Path) -> Path:
    """A state of the disk as files."""
    place.mkdir()
    for name, text in state.items():
        (place / name).mkdir() if name.endswith("/") else (place / name).write_text(text)
    return place


def read(path: Path) -> dict[str, str]:
    return {str(file.relative_to(path)): file.read_text() for file in path.rglob("*") if file.is_file()}


def read_folder(path: Path) -> dict[str, str] | None:
    return atomic.reading(path, read) if atomic.is_there(path) else None


def read_file(path: Path) -> dict[str, str] | None:
    return {"a": path.read_text()} if path.exists() else None


def write_folder(path: Path, writer: Callable[[Path], Any]) -> None:
    with writer(path) as fresh:
        (fresh / "sub").mkdir()
        for name, text in NEW.items():
            (fresh / name).write_text(text)


def write_file(path: Path) -> None:
    atomic.write(path, NEW["a"])


WRITERS: dict[str, tuple[Callable[[Path], None], bool, bool]] = {
    "a replaced folder": (lambda path: write_folder(path, atomic.replaced_folder), True, True),
    "a folder that was not there": (lambda path: write_folder(path, atomic.replaced_folder), True, False),
    "a new folder": (lambda path: write_folder(path, atomic.new_folder), True, False),
    "a replaced file": (write_file, False, True),
    "a new file": (write_file, False, False),
}
"""What writes, whether it writes a folder, and whether there is an old one."""


def after_failures(tmp_path: Path, name: str, *, below: str = "") -> list[tuple[bool, dict[str, str] | None]]:
    """What is read after each failure of the power, and whether the writer had returned by then."""
    write, folder, there = WRITERS[name]
    root = tmp_path / "disk"
    path = root / below / "it"
    root.mkdir()
    if there and folder:
        path.mkdir(parents=True)
        (path / "a").write_text(OLD["a"])
    elif there:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(OLD["a"])
    disk = Disk(root, tmp_path / "graves")
    with pytest.MonkeyPatch.context() as monkeypatch:
        disk.watch(monkeypatch)
        write(path)
        disk.note()
    found = []
    for moment, states in enumerate(disk.states):
        for state in states:
            place = laid_out(state, tmp_path / f"state-{len(found)}") / below / "it"
            found.append((moment == len(disk.states) - 1, (read_folder if folder else read_file)(place)))
    return found


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="which file is waited for is read from /proc")
@pytest.mark.parametrize("below", ["", "above/it"])
@pytest.mark.parametrize("name", WRITERS)
def test_a_power_failure_leaves_the_old_or_the_new_and_the_new_once_it_is_written(
    tmp_path: Path, name: str, below: str
) -> None:
    _, folder, there = WRITERS[name]
    new = NEW if folder else {"a": NEW["a"]}
    found = after_failures(tmp_path, name, below=below)
    assert len(found) > 5 and (there or any(state is None for _, state in found))
    for returned, state in found:
        assert state == new if returned else state in ((OLD if there else None), new)


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="as above")
@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("step", ["_wait_for", "_wait_for_listing"])
def test_the_simulated_disk_loses_what_nobody_waits_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, name: str
) -> None:
    monkeypatch.setattr(atomic, step, lambda *arguments: None)
    _, folder, there = WRITERS[name]
    new = NEW if folder else {"a": NEW["a"]}
    found = after_failures(tmp_path, name)
    assert any(state != new if returned else state not in ((OLD if there else None), new) for returned, state in found)
