"""Files made from data once and kept, which several processes may make at once."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np

from tzk_core.data.packed import UNREADABLE, read_arrays
from tzk_core.data.root import cache_root, places
from tzk_core.errors import TzkError
from tzk_core.storage.atomic import new_file


def fingerprint(files: Iterable[Path], *parts: object) -> str:
    """16 hex digits that change with the path, size or time of any of these files, or with `parts`.

    For names in the cache: a copy made from another root, or from a file that has changed since, has another
    name.
    """
    digest = hashlib.sha256(repr(parts).encode())
    for file in files:
        status = file.stat()
        digest.update(repr((str(file.resolve()), status.st_size, status.st_mtime_ns)).encode())
    return digest.hexdigest()[:16]


def cached_arrays(path: Path, make: Callable[[], Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The arrays kept in the npz file `path`; made and written first if it is not there or cannot be read."""
    with contextlib.suppress(*UNREADABLE, TzkError):
        return read_arrays(path)
    arrays = dict(make())
    with new_file(path) as temporary, temporary.open("wb") as stream:
        np.savez(stream, **arrays)  # type: ignore[arg-type]
    return arrays


def download(fetch: Callable[[Path], object], what: str, put: str, root: str | Path | None = None) -> Path:
    """Have `fetch(folder)` download into an empty folder, then move what it got to the first writable place.

    what: the name of the data, put: which files a person would put where; both for the error.
    Returns the place (see `places`). Raises TzkError, saying where was looked and what to do, if it cannot be
    had.
    """
    looked = places(root)
    place = next(filter(_writable, looked), None) or cache_root()  # which says what to do where none can be written
    place.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place, prefix=".download-") as folder:
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                fetch(Path(folder))
        except (OSError, RuntimeError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise TzkError(
                f"{what} was not found in {' or '.join(map(str, looked))}, and could not be downloaded "
                f"({reason}). Put {put} there, or set TZK_DATA to the folder that has it"
            ) from error
        for file in sorted(path for path in Path(folder).rglob("*") if path.is_file()):
            target = place / file.relative_to(folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            file.replace(target)
    return place


def _writable(folder: Path) -> bool:
    """Whether files can be made in this folder, or the folder itself can be made."""
    while not folder.exists():
        folder = folder.parent
    return folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)
