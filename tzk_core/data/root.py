"""Where data files are looked for, and where copies of them may be written."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path

from tzk_core.errors import TzkError
from tzk_core.files import shown_path


def data_root(root: str | Path | None = None) -> Path:
    """The folder that data is read from: the argument, else `TZK_DATA`, else the platform's cache folder.

    It may be read-only, and need not exist.
    """
    chosen = root or os.environ.get("TZK_DATA")
    return expanded(chosen) if chosen else _platform_cache()


def cache_root() -> Path:
    """A writable folder for decompressed and processed copies: `TZK_CACHE`, else the platform's cache folder.

    It is created if need be; TzkError if it cannot be written. Everything in it can be deleted at any time.
    """
    folder = _cache()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        writable = os.access(folder, os.W_OK | os.X_OK)
    except OSError as error:
        raise TzkError(
            f"cannot create the cache folder {folder} ({error.strerror}): "
            "set TZK_CACHE to a folder you can write"
        ) from error
    if not writable:
        raise TzkError(f"cannot write to the cache folder {folder}: set TZK_CACHE to a folder you can write")
    return folder


def places(root: str | Path | None = None) -> list[Path]:
    """The folders where data files may lie, in the order they are looked at: the data root, then the cache.

    Neither need exist: what can be read where it lies asks for no cache (see `cache_root`). What is downloaded goes to
    the first of them that can be written.
    """
    first, second = data_root(root), _cache()
    return [first] if first == second else [first, second]


def existing(path: str | Path | None, what: str) -> Path:
    """An existing path: as written, else below the data root; TzkError, saying where was looked."""
    if path is None:
        raise TzkError(f"{what}: `path` is missing: give the file or folder that has the data")
    looked = [expanded(path).absolute()]
    with suppress(TzkError):  # no home folder, and TZK_DATA not set: there is one place only
        looked.append(data_root() / path)
    for candidate in looked:
        if _is_there(candidate, what):
            return candidate
    places = f"neither {looked[0]} nor {looked[1]}" if len(looked) > 1 else f"no {looked[0]}"
    raise TzkError(f"{what}: there is {places}: correct `path`")


def expanded(path: str | Path) -> Path:
    """A path with `~` replaced; TzkError where nobody knows the home folder."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise TzkError(f"{path}: there is no home folder here (HOME is not set): write the path without '~'") from None


def _is_there(path: Path, what: str) -> bool:
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise TzkError(f"{what}: {shown_path(path)} cannot be read: {reason}: correct `path`") from None
    return True


def _cache() -> Path:
    chosen = os.environ.get("TZK_CACHE")
    return expanded(chosen) if chosen else _platform_cache()


def _platform_cache() -> Path:
    """The user's cache folder; TzkError where there is no home folder to have it in."""
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
