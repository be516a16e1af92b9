"""A kill in the place of any operation that changes the disk."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest


class Killed(BaseException):
    """A kill, seen from inside: nothing catches it and no later line runs."""


def killing(monkeypatch: pytest.MonkeyPatch, moment: int) -> None:
    """Raise `Killed` in the place of the `moment`-th operation that changes the disk."""
    done: list[str] = []

    def wrapped(name: str, original: Any) -> Any:
        def call(*arguments: Any, **named: Any) -> Any:
            if len(done) == moment:
                raise Killed
            done.append(name)
            return original(*arguments, **named)

        return call

    def rmtree(folder: Path, *, ignore_errors: bool = False) -> None:
        """Remove file by file, so that a kill can come in between."""
        for path in sorted(Path(folder).rglob("*"), reverse=True):
            (path.rmdir if path.is_dir() else path.unlink)()
        if Path(folder).exists():
            Path(folder).rmdir()

    for name in ("rename", "replace", "mkdir", "unlink", "rmdir"):
        monkeypatch.setattr(Path, name, wrapped(name, getattr(Path, name)))
    monkeypatch.setattr(os, "fsync", wrapped("fsync", lambda file: None))
    monkeypatch.setattr(shutil, "rmtree", rmtree)
