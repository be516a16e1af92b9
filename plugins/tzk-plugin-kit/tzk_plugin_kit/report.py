"""Checks of a report: it adds its file to a run and changes no other."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tzk_core.plugins.isolation import worded
from tzk_core.testing.expectations import NotConforming, expect

Write = Callable[..., Any]


def check_report(write: Write, folder: Path, experiment: Any = None) -> str:
    """Check that a report writes its file, and nothing else, into a run's folder, twice.

    In a run a raised exception would be a warning, and the run complete; here it fails the check.

    Args:
        write: the function, called as `write(folder=..., experiment=...)` with copies of `folder`.
        folder: of a finished run, or of as much of one as the report reads. It stays as it is.
        experiment: passed on; reports are also called without one.

    Returns:
        The name of the file.

    Raises:
        NotConforming: with what was expected and what it got.
    """
    name = getattr(write, "__name__", repr(write))
    with TemporaryDirectory() as parent:
        run = Path(parent) / "run"
        shutil.copytree(folder, run)
        before = _contents(run)
        first = _written(write, run, experiment, name=name)
        again = _written(write, run, None, name=name)
        after = _contents(run)
    expect(first == again, f"{name} should write the same file in the same folder; it wrote {first}, then {again}")
    lost = sorted(file for file, content in before.items() if file != first and after.get(file) != content)
    expect(not lost, f"{name} should leave the other files of the run as they are; it changed {', '.join(lost)}")
    return first


def _written(write: Write, run: Path, experiment: Any, *, name: str) -> str:
    """Call it once; the name of its file in the folder."""
    try:
        file = write(folder=run, experiment=experiment)
    except Exception as error:
        raise NotConforming(f"{name} should raise nothing; it raised {worded(error)}") from error
    expect(isinstance(file, Path), f"{name} should return the Path of its file; got {type(file).__name__}")
    expect(file.is_relative_to(run), f"{name} should write into the folder of the run, {run}; got {file}")
    expect(file.is_file() and file.stat().st_size > 0, f"{name} should have written {file}; there is no such file")
    return file.relative_to(run).as_posix()


def _contents(run: Path) -> dict[str, bytes]:
    return {path.relative_to(run).as_posix(): path.read_bytes() for path in run.rglob("*") if path.is_file()}
