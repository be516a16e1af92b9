"""Folders that data are read from, and that copies of them are written to."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path

from tzk_core.errors import TzkError
from tzk_core.files import shown_path


def data_root(root: str | Path | None = None) -> Path:
    """The folder of data: the argument, else `TZK_DATA`, else the platform's cache folder.

    It may be read-only, and need not exist.
    """
    chosen = root or os.environ.get("TZK_DATA")
    return expanded(chosen) if chosen else _platform_cache()


def cache_root() -> Path:
    """The folder of decompressed and processed copies: `TZK_CACHE`, else the platform's cache folder.

    It is made if need be. Everything in it can be deleted at any time.

    Raises:
        TzkError: if it cannot be written to.
    """
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        writable = os.access(folder, os.W_OK | os.X_OK)
    except OSError as error:
        raise TzkError(
            f"cannot create the cache folder {folder} ({error.strerror}): set TZK_CACHE to a folder you can write"
        ) from error
    if not writable:
        raise TzkError(f"cannot write to the cache folder {folder}: set TZK_CACHE to a folder you can write")
    return folder


def places(root: str | Path | None = None) -> list[Path]:
    """The folders that are searched for data: the data root, then the cache.

    Neither need exist. Data that can be read where they are need no cache (see `cache_root`). Downloads go to the first
    folder that is writable. Without a home folder those count that are named.

    Raises:
        TzkError: if there is none.
    """
    found: list[Path] = []
    unknown: TzkError | None = None
    for folder in (partial(data_root, root), cache_folder):
        try:
            found.append(folder())
        except TzkError as error:
            unknown = error
    if unknown is not None and not found:
        raise unknown
    return list(dict.fromkeys(found))


def existing(path: str | Path | None, what: str) -> Path:
    """An existing path, as written or else below the data root.

    Args:
        what: the beginning of messages.

    Raises:
        TzkError: if there is none, with the places that were searched.
    """
    if path is None:
        raise TzkError(f"{what}: `path` is missing: give the file or folder that has the data")
    searched = [expanded(path).absolute()]
    with suppress(TzkError):  # without a home folder and TZK_DATA there is one place only
        searched.append((data_root() / path).absolute())
    searched = list(dict.fromkeys(searched))
    for candidate in searched:
        if _is_there(candidate, what):
            return candidate
    places = f"neither {searched[0]} nor {searched[1]}" if len(searched) > 1 else f"no {searched[0]}"
    raise TzkError(f"{what}: there is {places}: correct `path`")


def expanded(path: str | Path) -> Path:
    """A path with `~` replaced.

    Raises:
        TzkError: if the home folder is not known.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        user = Path(path).parts[0][1:]
        reason = f"no user is called {user!r}" if user else "there is no home folder here (HOME is not set)"
        raise TzkError(f"{path}: {reason}: write the path without '~'") from None


def _is_there(path: Path, what: str) -> bool:
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise TzkError(f"{what}: {shown_path(path)} cannot be read: {reason}: correct `path`") from None
    return True


def cache_folder() -> Path:
    """The folder of `cache_root`, which need neither exist nor be writable."""
    chosen = os.environ.get("TZK_CACHE")
    return expanded(chosen) if chosen else _platform_cache()


def _platform_cache() -> Path:
    """The user's cache folder.

    Raises:
        TzkError: if it would be in the home folder, which is not known.
    """
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or "~/AppData/Local"
    elif sys.platform == "darwin":
        base = "~/Library/Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    try:
        return Path(base).expanduser() / "tzk"
    except RuntimeError:
        raise TzkError(
            "there is no home folder here for data and copies of them (HOME is not set): set TZK_CACHE to a folder "
            "you can write, and TZK_DATA to the one that has the data"
        ) from None
