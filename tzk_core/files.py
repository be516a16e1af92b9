"""Files that others made: regular ones alone are opened, as a pipe may never end."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tzk_core.errors import TzkError

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


class NotRegular(TzkError):
    """What is at a path is no regular file, but `kind`."""

    def __init__(self, path: Path, kind: str) -> None:
        super().__init__(f"{path} is expected to be a file; it is {kind}")
        self.kind = kind


def check_regular(path: Path) -> None:
    """Raise `NotRegular` unless the path, links followed, is a regular file.

    Raises:
        OSError: where nothing is there.
    """
    mode = os.stat(path).st_mode
    for is_type, kind in _KINDS:
        if is_type(mode):
            raise NotRegular(path, kind)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Name the path in errors of the system that have none."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            error.filename = str(path)
        raise


def shown_path(path: Path | str, most: int = 200) -> str:
    """A path as an error shows it, its middle left out where it is long."""
    text = str(path)
    return text if len(text) <= most else f"{text[: most // 2]}...{text[-most // 2 :]}"
