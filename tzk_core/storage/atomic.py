"""Files and folders that are written whole or not at all.

An interrupted write leaves what was there.

All is written under a temporary name beside its place, waited for until it is on the disk, then renamed. A file system
replaces a file in one step. For a folder it takes two renames: the old one is set aside, the new one takes its place.
Whoever reads a folder goes by `reading`, which changes nothing. It takes the one set aside where a kill came between
the two renames, and reads again where the folder was replaced meanwhile. The next writer puts things right.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from tzk_core.errors import TzkError
from tzk_core.files import naming

LONGEST = 200
"""So many bytes of a name at most are part of its temporary one, as file systems take 255."""

TURNS = 200
"""So often a folder is read anew, or replaced anew, while others replace it."""

AT_ONCE = 32
"""So many files are waited for at once, where there are as many."""

PAUSE = 0.005
"""Seconds between two turns."""

T = TypeVar("T")

_writing: set[str] = set()


class AlreadyThere(FileExistsError):
    """There is something at the place of a new folder."""


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write to.

    The file takes the place of `path` once the block is through.

    Two processes that do this at once each write a whole file, and the last one stays. Raises `OSError`.
    """
    missing = _missing_above(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _temporary(path) as fresh:
        yield fresh
        _wait_for(fresh)
        fresh.replace(path)
        _wait_for_listing(path, missing)


def write(path: Path, content: bytes | str) -> None:
    """Write a file; text in UTF-8. Raises `OSError`."""
    with new_file(path) as fresh:
        fresh.write_bytes(content.encode() if isinstance(content, str) else content)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder to fill, which becomes `path` once the block is through.

    Raises `AlreadyThere` if there is something at `path`, before the block or after it, and `TzkError` if no folder can
    be made there. A block that fails leaves nothing, the folders above `path` that were made for it included.
    """
    if os.path.lexists(path):
        raise AlreadyThere(str(path))
    missing = _missing_above(path)
    try:
        with _temporary(path) as fresh:
            _make(fresh, path)
            yield fresh
            if os.path.lexists(path):
                raise AlreadyThere(str(path))
            _wait_for(fresh)
            fresh.rename(path)
            _wait_for_listing(path, missing)
    except BaseException:
        for folder in missing:
            with suppress(OSError):  # something else may have been put there meanwhile
                folder.rmdir()
        raise


@contextmanager
def replaced_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder to fill.

    It takes the place of `path`, if there is one, once the block is through.

    Of two processes that do this at once each writes a whole folder, and the last one stays.
    """
    missing = _missing_above(path)
    repair(path)
    with _temporary(path) as fresh:
        _make(fresh, path)
        yield fresh
        _wait_for(fresh)
        with _temporary(path, ASIDE) as old:
            _swap(path, fresh, old)
            _wait_for_listing(path, missing)
            _remove(old)


def _swap(path: Path, fresh: Path, old: Path) -> None:
    """Put `fresh` in the place of `path`, which is set aside as `old` meanwhile."""
    for _ in range(TURNS):
        with suppress(FileNotFoundError):  # there was none, or another process has set it aside
            path.rename(old)
        try:
            fresh.rename(path)
            break
        except OSError as error:  # another process was sooner: what it wrote is the old one now
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST) and not path.is_dir():
                raise
            _remove(old)
    else:
        raise TzkError(f"{path} is being replaced by another process all the time: stop one of them")


def repair(path: Path) -> None:
    """Put back the old folder where a kill came between the two renames.

    The renames are those of `replaced_folder`. Writers alone do this.
    """
    left = [each for each in _set_aside(path) if not _is_in_use(each)]
    if not path.exists() and left:
        with suppress(FileNotFoundError, FileExistsError):  # another writer did so
            left.pop(0).rename(path)
    for each in left:
        if path.exists():
            _remove(each)


def tidy(folder: Path) -> None:
    """Remove or put back what killed processes left in a folder.

    Nothing else may write there.
    """
    for left in folder.iterdir():
        match = _TEMPORARY.fullmatch(left.name)
        if match is None or _is_in_use(left):
            continue
        if match["what"] == ASIDE:
            repair(folder / match["name"])
        else:
            _remove(left)


def remove_folder(path: Path) -> None:
    """Remove a folder, whole or not at all.

    The old ones that `repair` would put back go with it. Raises `OSError`.
    """
    for each in _set_aside(path):  # before it goes, or they would stand in its place
        _remove(each)
    with _temporary(path) as gone:
        path.rename(gone)
        _wait_for_names(path.parent)
        _remove(gone)


def is_there(path: Path) -> bool:
    """Whether there is a folder, or an old one that `repair` would put back."""
    return _standing(path) is not None


def reading(path: Path, read: Callable[[Path], T]) -> T:
    """The result of `read` on one and the same state of a folder.

    The folder may be replaced meanwhile.

    `read` gets the folder, or where a kill left none the old one that was set aside. It is called again where it fails
    and the folder is another one by then. Nothing is changed.
    """
    for turn in range(TURNS):
        place = _standing(path) or path
        before = _identity(place)
        try:
            return read(place)
        except (TzkError, OSError):
            if turn == TURNS - 1 or (before == _identity(place) and place == (_standing(path) or path)):
                raise
        time.sleep(PAUSE)
    raise AssertionError("the last turn returns or raises")


def _standing(path: Path) -> Path | None:
    """The folder, or the newest one set aside in its place; None without either."""
    for _ in range(3):  # between two looks a writer may have put it back
        if path.is_dir():
            return path
        if aside := _set_aside(path):
            return aside[0]
    return None


def _set_aside(path: Path) -> list[Path]:
    """The old folders beside `path`, the newest first; versions before this one called them `path`.old."""
    found = []
    with suppress(OSError):
        for each in path.parent.iterdir():
            match = _TEMPORARY.fullmatch(each.name)
            own = match is not None and match["what"] == ASIDE and match["name"] == _short(path.name)
            if own or each.name == f"{path.name}.old":
                with suppress(OSError):  # removed meanwhile
                    found.append((each.stat().st_mtime_ns, each))
    return [each for _, each in sorted(found, reverse=True)]


def _identity(path: Path) -> tuple[int, int, int] | None:
    """What another folder at the same path differs in."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_mtime_ns


def is_temporary(path: Path) -> bool:
    """Whether something is being written under a path, or was when its process was killed."""
    return _TEMPORARY.fullmatch(path.name) is not None


PARTIAL, ASIDE = "partial", "aside"
_TEMPORARY = re.compile(rf"\.(?P<name>.+)\.(?P<process>\d+)-[0-9a-f]{{8}}\.(?P<what>{PARTIAL}|{ASIDE})", re.DOTALL)


def _make(fresh: Path, path: Path) -> None:
    try:
        fresh.mkdir(parents=True)
    except OSError as error:
        raise TzkError(f"the folder {path} cannot be made: {error.strerror}") from None


@contextmanager
def _temporary(path: Path, what: str = PARTIAL) -> Iterator[Path]:
    """A name that no other process has, for what will be at `path`, or was.

    What is still there at the end of a block that fails is removed, but for the old folder.
    """
    if what == PARTIAL:
        _remove_left(path)
    fresh = path.with_name(f".{_short(path.name)}.{os.getpid()}-{secrets.token_hex(4)}.{what}")
    _writing.add(fresh.name)
    try:
        with naming(path):
            yield fresh
    except BaseException:
        if what == PARTIAL:
            _remove(fresh)
        raise
    finally:
        _writing.discard(fresh.name)


def _remove_left(path: Path) -> None:
    """Remove what writes to `path` left whose processes were killed."""
    if not path.parent.is_dir():
        return
    for left in path.parent.iterdir():
        match = _TEMPORARY.fullmatch(left.name)
        if match and match["what"] == PARTIAL and match["name"] == _short(path.name) and not _is_in_use(left):
            _remove(left)


def _is_in_use(temporary: Path) -> bool:
    """Whether a temporary name is one of a process that is running."""
    match = _TEMPORARY.fullmatch(temporary.name)
    return match is not None and (temporary.name in _writing or _runs(int(match["process"])))


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):  # there may be none, or the disk may be gone
            path.unlink()


def _runs(process: int) -> bool:
    """Whether another process of this number is running, as far as can be known."""
    if process == os.getpid():
        return False
    if os.name != "posix":
        return True
    try:
        os.kill(process, 0)  # signal 0 only asks
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def _short(name: str) -> str:
    encoded = os.fsencode(name)
    return name if len(encoded) <= LONGEST else hashlib.sha256(encoded).hexdigest()


def _wait_for(path: Path) -> None:
    """Wait until a file, or a folder with all its contents, is on the disk.

    The files of a folder are waited for at its end, and many of them at once. A disk writes a thousand together
    ten times as soon as one after the other.
    """
    inside = [*path.rglob("*"), path] if path.is_dir() else [path]
    folders = [each for each in inside if each.is_dir()]
    files = [each for each in inside if not each.is_dir()]
    if len(files) < AT_ONCE:
        for each in files:
            _wait_for_content(each)
    else:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(_wait_for_content, files))  # which raises what any of them raises
    for each in folders:
        _wait_for_names(each)


def _wait_for_content(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _missing_above(path: Path) -> list[Path]:
    """The folders that have to be made for `path`, from the innermost."""
    return [folder for folder in path.parents if not folder.exists()]


def _wait_for_listing(path: Path, made: list[Path]) -> None:
    """Wait until `path` is listed by its folder on the disk.

    The folders `made` for it have to be listed by theirs, too.
    """
    for each in (path, *made):
        _wait_for_names(each.parent)


def _wait_for_names(folder: Path) -> None:
    """Wait until the listing of a folder is on the disk.

    Not every system can say so of folders.
    """
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # of some network file systems
            raise
    finally:
        os.close(handle)
