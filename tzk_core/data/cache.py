"""Cached arrays and downloads, safe where several processes make them at once."""

from __future__ import annotations

import atexit
import contextlib
import functools
import hashlib
import io
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np

from tzk_core.data.packed import UNREADABLE, read_arrays
from tzk_core.data.root import cache_folder, cache_root, places
from tzk_core.errors import Note, TzkError
from tzk_core.storage.atomic import new_file


def fingerprint(files: Iterable[Path], *parts: object) -> str:
    """16 hexadecimal digits that depend on the files' paths, sizes and times, and on `parts`.

    They are names in the cache, where a copy from another root or of a changed file has another name.
    """
    digest = hashlib.sha256(repr(parts).encode())
    for file in files:
        status = file.stat()
        digest.update(repr((str(file.resolve()), status.st_size, status.st_mtime_ns)).encode())
    return digest.hexdigest()[:16]


def copy_in_cache(name: str, *, complete: Callable[[Path], bool] = Path.exists) -> Path:
    """The place of a copy of data.

    It is where the copy is complete already, which may be read-only, or else where it can be written.

    If the cache cannot be written, that is in a temporary folder, which is gone with the process, and a note says so.
    """
    with contextlib.suppress(TzkError, OSError):
        if complete(kept := cache_folder() / name):
            return kept
    return writable_cache() / name


def writable_cache() -> Path:
    """The cache, or a temporary folder in its place."""
    try:
        return cache_root()
    except TzkError as error:
        return _temporary(str(error))


@functools.cache
def _temporary(reason: str) -> Path:
    folder = tempfile.mkdtemp(prefix="tzk-cache-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    warnings.warn(f"{reason}. Copies of data are kept for this program alone", Note, stacklevel=2)
    return Path(folder)


def cached_arrays(path: Path, make: Callable[[], Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Read arrays from an npz file, made first if it is missing or unreadable."""
    with contextlib.suppress(*UNREADABLE, TzkError):
        return read_arrays(path)
    arrays = dict(make())
    with new_file(path) as temporary, temporary.open("wb") as stream:
        np.savez(stream, **arrays)  # type: ignore[arg-type]
    return arrays


def download(fetch: Callable[[Path], object], *, what: str, put: str, root: str | Path | None = None) -> Path:
    """Download into an empty folder, then move the files to the first writable place.

    Args:
        fetch: downloads into the folder that it gets.
        what: the name of the data, for the message.
        put: the files that a person would put there, for the message.
        root: as of `places`.

    Returns:
        The place.

    Raises:
        TzkError: if the download fails, with the places that were searched and what to do.
    """
    searched = places(root)
    place = next(filter(_writable, searched), None) or cache_root()  # whose error says what to do if none is writable
    place.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place, prefix=".download-") as folder:
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                fetch(Path(folder))
        except (OSError, RuntimeError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise TzkError(
                f"{what} was not found in {' or '.join(map(str, searched))}, and could not be downloaded "
                f"({reason}). Put {put} there, or set TZK_DATA to the folder that has it"
            ) from error
        for file in sorted(path for path in Path(folder).rglob("*") if path.is_file()):
            target = place / file.relative_to(folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            file.replace(target)
    return place


def _writable(folder: Path) -> bool:
    """Whether files can be written to this folder, or the folder can be made."""
    while not folder.exists():
        folder = folder.parent
    return folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)
