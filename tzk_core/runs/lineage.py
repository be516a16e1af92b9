"""What became of a trained model since: the lineage in run.json, and run folders that come of others."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tzk_core.errors import TzkError
from tzk_core.runs.folder import RunFolder, already_there
from tzk_core.storage import atomic


def extended(
    parent: RunFolder, action: str, knowledge: Sequence[str], *, core: str, command: str
) -> list[dict[str, Any]]:
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
def new_folder(path: Path, *, option: bool = True) -> Iterator[RunFolder]:
    """Yield a run folder to fill, which is at `path` once the block is through: whole or not at all.

    Raises `TzkError` if there is something of this name, whatever is in it. `option`: whether the name came by --out.
    """
    try:
        with atomic.new_folder(path) as fresh:
            yield RunFolder(fresh)
    except atomic.AlreadyThere:
        raise TzkError(already_there(path, option=option)) from None
