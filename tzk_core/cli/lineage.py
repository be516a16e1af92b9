"""What became of a trained model since: the lineage in run.json, and run folders that come of others."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tzk_core.cli.run_folder import RunFolder, already_there
from tzk_core.errors import TzkError


def extended(parent: RunFolder, action: str, knowledge: Sequence[str], core: str, command: str) -> list[dict[str, Any]]:
    """The lineage of `parent`, oldest first, with what is done to it now: {"run": the parent's name, "action": "add",
    "import" or "remove", "knowledge": names, "core": the hash of the shared flow, "command", "date"}."""
    entry = {
        "run": parent.path.resolve().name,
        "action": action,
        "knowledge": list(knowledge),
        "core": core,
        "command": command,
        "date": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }
    return [*parent.read_record().get("lineage", []), entry]


@contextmanager
def new_folder(path: Path, option: bool = True) -> Iterator[RunFolder]:
    """A new run folder, filled under another name, which has its own once the block is through: it is there whole or
    not at all. Raises TzkError if there is one of this name, whatever is in it; `option`: whether it came by --out."""
    if path.exists():
        raise TzkError(already_there(path, option))
    unfinished = path.with_name(path.name + ".partial")
    if unfinished.exists():
        raise TzkError(f"{unfinished} is there, left by a command that was killed or at work right now: delete it")
    missing = [folder for folder in path.parents if not folder.exists()]
    partial = RunFolder.create(unfinished)
    try:
        yield partial
        if path.exists():
            raise TzkError(already_there(path, option))
        partial.path.rename(path)
    except BaseException:
        shutil.rmtree(partial.path, ignore_errors=True)
        for made in missing:
            with suppress(OSError):  # somebody else may have put something there meanwhile
                made.rmdir()
        raise
