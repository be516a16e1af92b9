"""The lineage of a model in run.json, and run folders made from others."""

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
    """The lineage of `parent`, oldest first, with an entry for what is done now.

    An entry is {"run": the parent's name, "action": "add", "import", "remove" or "pack", "knowledge": names,
    "core": the hash of the shared flow, "command", "date"}.
    """
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
    """Yield a run folder to fill; after the block it is at `path`, if complete.

    Args:
        option: whether the name came by --out.

    Raises `TzkError` if there is something of this name already.
    """
    try:
        with atomic.new_folder(path) as fresh:
            yield RunFolder(fresh)
    except atomic.AlreadyThere:
        raise TzkError(already_there(path, option=option)) from None
