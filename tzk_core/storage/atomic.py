"""Files and folders that are written whole or not at all: an interrupted write leaves what was there.

All is written under a temporary name beside its place, waited for until it is on the disk, then renamed. A file system
replaces a file in one step. For a folder it takes two renames: the old one is set aside, the new one takes its place.
`repair` puts the old one back after a kill between the two.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tzk_core.errors import TzkError

LONGEST = 200
"""So many bytes of a name at most are part of its temporary one, as file systems take 255."""

_writing: set[str] = set()


class AlreadyThere(FileExistsError):
    """There is something at the place of a new folder."""


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write to; the file takes the place of `path` once the block is through.

    Two processes that do this at once each write a whole file, and the last one stays. Raises `OSError`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _temporary(path) as fresh:
        yield fresh
        _wait_for(fresh)
        fresh.replace(path)
        _wait_for_names(path.parent)


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
    missing = [folder for folder in path.parents if not folder.exists()]
    try:
        with _temporary(path) as fresh:
            _make(fresh, path)
            yield fresh
            if os.path.lexists(path):
                raise AlreadyThere(str(path))
            _wait_for(fresh)
            fresh.rename(path)
            _wait_for_names(path.parent)
    except BaseException:
        for folder in missing:
            with suppress(OSError):  # something else may have been put there meanwhile
                folder.rmdir()
        raise


@contextmanager
def replaced_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder to fill, which takes the place of `path`, if there is one, once the block is through."""
    repair(path)
    with _temporary(path) as fresh:
        _make(fresh, path)
        yield fresh
        _wait_for(fresh)
        old = _aside(path)
        shutil.rmtree(old, ignore_errors=True)
        if path.exists():
            path.rename(old)
        fresh.rename(path)
        _wait_for_names(path.parent)
        shutil.rmtree(old, ignore_errors=True)


def repair(path: Path) -> None:
    """Put back the old folder where a kill came between the two renames of `replaced_folder`."""
    if not path.exists() and _aside(path).exists():
        _aside(path).rename(path)


def is_there(path: Path) -> bool:
    """Whether there is a folder, or an old one that `repair` would put back."""
    return path.is_dir() or _aside(path).is_dir()


def is_temporary(path: Path) -> bool:
    """Whether a path is one under which something is being written, or was when its process was killed."""
    return _TEMPORARY.fullmatch(path.name) is not None


_TEMPORARY = re.compile(r"\.(?P<name>.+)\.(?P<process>\d+)-[0-9a-f]{8}\.partial", re.DOTALL)


def _aside(path: Path) -> Path:
    return path.with_name(path.name + ".old")


def _make(fresh: Path, path: Path) -> None:
    try:
        fresh.mkdir(parents=True)
    except OSError as error:
        raise TzkError(f"the folder {path} cannot be made: {error.strerror}") from None


@contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    """A name for what will be at `path`, which no other process has; what is still there at the end is removed."""
    _remove_left(path)
    fresh = path.with_name(f".{_short(path.name)}.{os.getpid()}-{secrets.token_hex(4)}.partial")
    _writing.add(fresh.name)
    try:
        yield fresh
    except BaseException:
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
        if match is None or match["name"] != _short(path.name) or left.name in _writing:
            continue
        if not _runs(int(match["process"])):
            _remove(left)


def _remove(path: Path) -> None:
    if path.is_dir():
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
    """Wait until a file, or a folder with all that is in it, is on the disk.

    The files of a folder are waited for at its end: a thousand are written sooner so than each by itself.
    """
    inside = list(path.rglob("*")) if path.is_dir() else []
    for each in [*inside, path]:
        if each.is_dir():
            _wait_for_names(each)
        else:
            with each.open("rb+") as file:
                os.fsync(file.fileno())


def _wait_for_names(folder: Path) -> None:
    """Wait until what a folder lists is on the disk, where the system can say so of folders."""
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
