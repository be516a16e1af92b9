"""The run folder, as the commands see it: made once, never overwritten, opened by name."""

from __future__ import annotations

import json
import time
from itertools import count
from pathlib import Path
from typing import Any

from tzk_core.errors import TzkError
from tzk_core.files import check_regular
from tzk_core.storage import atomic
from tzk_core.storage.atomic import is_there
from tzk_core.storage.places import BEST, LAST
from tzk_core.strict_json import json_text

RUNS = Path("runs")


class RunFolder:
    """config.toml, run.json, metrics.csv, results.json, results.md, samples/, checkpoint/ and best/ in one place."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.toml"
        self.record = path / "run.json"
        self.results = path / "results.json"
        self.table = path / "results.md"

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """The folder of an earlier run; TzkError if this is none."""
        folder = cls(path)
        if path.exists() and not path.is_dir():
            raise TzkError(f"{path} is not a run folder: it is a file{_known_runs(path)}")
        if not path.is_dir():
            raise TzkError(f"{path} is not a run folder: there is no such folder{_known_runs(path)}")
        if not folder.config.is_file():
            raise TzkError(f"{path} is not a run folder: expected a config.toml in it{_known_runs(path)}")
        return folder

    @property
    def finished(self) -> bool:
        """Whether the run got to its end."""
        return self.read_record().get("status") == "finished"

    @property
    def has_checkpoint(self) -> bool:
        """Whether there is a last checkpoint, to go on from."""
        return is_there(self.path / LAST)

    @property
    def has_model(self) -> bool:
        """Whether there is a checkpoint to use."""
        return any(is_there(self.path / name) for name in (BEST, LAST))

    def read_record(self) -> dict[str, Any]:
        """The contents of run.json; empty if there is none yet.

        Raises:
            TzkError: if it cannot be read, or has another structure.
        """
        from tzk_core.runs.record_schema import Record  # pydantic, which most commands come here without
        from tzk_core.storage.schema import first_problem

        try:
            check_regular(self.record)
            record = json.loads(self.record.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, RecursionError) as error:
            raise TzkError(f"{self.record} cannot be read: {error}") from None
        if wrong := first_problem(Record, record):
            raise TzkError(f"{self.record} is damaged ({wrong}): take it from a copy, or delete it")
        return record

    def write(self, file: Path, text: str) -> None:
        """Writes a file of the folder whole or not at all."""
        atomic.write(file, text)

    def write_json(self, file: Path, value: Any) -> None:
        self.write(file, json_text(value) + "\n")


def already_there(path: Path, *, option: bool = True) -> str:
    """The message for a run folder that cannot be made because its name is taken.

    Args:
        option: whether its name came by --out.
    """
    if not option:
        advice = "name another folder"
    elif (path / "config.toml").is_file():
        advice = f"to go on with that run: tzk run {path} --resume; for a new one, name another folder with --out"
    else:
        advice = "name another folder with --out"
    return f"the run folder {path} is there already, and a run never overwrites one: {advice}"


def fresh_path(name: str) -> Path:
    """runs/NAME-YYYYMMDD-HHMMSS, with a number behind it if another run began in the same second."""
    stamped = RUNS / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    candidates = (stamped if i == 1 else stamped.with_name(f"{stamped.name}-{i}") for i in count(1))
    return next(path for path in candidates if not path.exists())


def _known_runs(path: Path) -> str:
    """The newest run folders beside `path`, to choose from."""
    beside = path.parent if path.parent != Path() else RUNS
    whole = [file for file in beside.glob("*/config.toml") if not atomic.is_temporary(file.parent)]
    runs = sorted(whole, key=lambda file: file.stat().st_mtime)
    newest = ", ".join(str(file.parent) for file in runs[:-4:-1])
    return f" (runs: {newest})" if newest else ""
