"""The lineage of a model in run.json, and run folders made from others."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tzk_core.errors import TzkError
from tzk_core.runs.folder import RunFolder, already_there
from tzk_core.storage import atomic
from tzk_core.storage.places import checkpoint_in


def extended(
    parent: RunFolder, action: str, knowledge: Sequence[str], *, core: str, command: str
) -> list[dict[str, Any]]:
    """The lineage of `parent`, oldest first, with an entry for what is done now.

    An entry is {"run": the parent's name, "action": "add", "import", "remove" or "pack", "knowledge": names,
    "core": the hash of the shared flow, "command", "date"}. "parent_command" made the parent, where that is known.
    """
    record = parent.read_record()
    entry = {
        "run": parent.path.resolve().name,
        "action": action,
        "knowledge": list(knowledge),
        "core": core,
        **({"parent_command": record["command"]} if record.get("command") else {}),
        "command": command,
        "date": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }
    return [*settled(record.get("lineage", []), parent), entry]


def settled(lineage: Sequence[Mapping[str, Any]], folder: RunFolder) -> list[dict[str, Any]]:
    """The lineage without doubt about entries that a kill left pending.

    The checkpoint shows whether each of these happened; those that did not are left out.
    """
    from tzk_core.storage.stored import manifest_of  # torch

    certain = []
    for entry in map(dict, lineage):
        if entry.pop("pending", False):
            has = set(manifest_of(checkpoint_in(folder.path))["knowledge"])
            names = set(entry["knowledge"])
            if names & has if entry["action"] == "remove" else not names <= has:
                continue
        certain.append(entry)
    return certain


@contextmanager
def changing(folder: RunFolder, action: str, knowledge: Sequence[str], *, core: str, command: str) -> Iterator[None]:
    """Note a change of a model in the record of `folder`.

    It is noted before and after the block, which makes the change.

    A kill in between leaves it noted as pending, so that nothing that was done is lost, and `settled` tells. A block
    that fails leaves the lineage as it was.
    """
    record = folder.read_record()
    before = settled(record.get("lineage", []), folder)
    *_, entry = extended(folder, action, knowledge, core=core, command=command)
    folder.write_json(folder.record, record | {"lineage": [*before, entry | {"pending": True}]})
    try:
        yield
    except Exception:
        folder.write_json(folder.record, record | {"lineage": before} if before else record)
        raise
    folder.write_json(folder.record, record | {"lineage": [*before, entry]})


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
