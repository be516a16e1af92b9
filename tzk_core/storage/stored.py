"""A checkpoint as it is on the disk at one moment.

Its folder may be replaced while it is read.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch

from tzk_core.errors import TzkError
from tzk_core.storage.atomic import is_there, reading
from tzk_core.storage.index import Index
from tzk_core.storage.long_manifest import read_index
from tzk_core.storage.manifest import check_together, read_file, read_knowledge, read_manifest
from tzk_core.storage.places import BEST, LAST

T = TypeVar("T")
Place = tuple[str, int | None]

UNREADABLE = (pickle.UnpicklingError, RuntimeError, ValueError, EOFError, LookupError, TypeError, AttributeError)
"""What torch raises of a file that it did not write."""


@dataclass(frozen=True)
class Stored:
    """A manifest and the files that it names, all of one state.

    files: by their names in the manifest, and the bytes where they begin. folder: what errors call it.
    """

    folder: Path
    manifest: Mapping[str, Any]
    files: Mapping[Place, bytes]

    def file(self, entry: Mapping[str, Any]) -> bytes:
        """The file that an entry of the manifest names."""
        return self.files[_place(entry)]

    @property
    def step(self) -> int | None:
        """How many steps it was trained for; None where that is not said."""
        return self.manifest.get("trainer", {}).get("step")

    def trainer(self) -> dict[str, Any]:
        """The state of the training. Raises `TzkError` if there is none, or it is damaged."""
        entry, where = self.manifest.get("trainer"), self.folder / "trainer.pt"
        if entry is None:
            raise TzkError(f"{self.folder} holds a model without the state of its training: it cannot be resumed")
        try:  # one written on a GPU opens without
            state = torch.load(io.BytesIO(self.file(entry)), map_location="cpu", weights_only=True)
        except UNREADABLE as error:
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise TzkError(f"{where} is no state of a training that can be read: {first:.200}") from None
        if not isinstance(state, dict):
            raise TzkError(f"{where} is expected to hold a table; it holds {type(state).__name__}")
        if "step" in entry and state.get("step", entry["step"]) != entry["step"]:
            raise TzkError(f"{where} is of step {state['step']}, and manifest.json says step {entry['step']}")
        return state


def read_stored(folder: Path, *, trainer: bool = False, without: Collection[str] = ()) -> Stored:
    """A checkpoint, without the knowledge types `without`.

    Args:
        trainer: whether the file of its training is read.

    Raises `TzkError` naming a file that is missing, truncated or altered.
    """
    folder = Path(folder)

    def read(place: Path) -> Stored:
        manifest = read_manifest(place)
        entries = [manifest["core"], *([manifest["trainer"]] if trainer and "trainer" in manifest else [])]
        files = {_place(entry): read_file(place, entry) for entry in entries}
        check_together(place, manifest)
        wanted = {name: entry for name, entry in manifest["knowledge"].items() if name not in without}
        files |= {_place(wanted[name]): file for name, file in read_knowledge(place, wanted)}
        return Stored(folder, manifest, files)

    return _reading(folder, read)


def read_core(folder: Path) -> tuple[Stored, Index]:
    """A checkpoint with its shared flow alone, and an index of its knowledge types.

    `read_stored` says more.
    """
    folder = Path(folder)

    def read(place: Path) -> tuple[Stored, Index]:
        manifest, index = read_index(place)
        return Stored(folder, manifest, {_place(manifest["core"]): read_file(place, manifest["core"])}), index

    return _reading(folder, read)


def knowledge_of(folder: Path, entries: Mapping[str, Mapping[str, Any]]) -> dict[str, bytes]:
    """The files of some knowledge types by name, as their entries of the manifest say."""
    return reading(folder, lambda place: dict(read_knowledge(place, entries)))


def manifest_of(folder: Path) -> dict[str, Any]:
    """The manifest of a checkpoint that may be replaced meanwhile."""
    return _reading(Path(folder), read_manifest)


def step_of(folder: Path) -> int | None:
    """The steps that a checkpoint was trained for, from its manifest.

    None where it does not say.
    """
    try:
        return manifest_of(folder).get("trainer", {}).get("step")
    except (OSError, TzkError):
        return None


def _reading(folder: Path, read: Callable[[Path], T]) -> T:
    """Read a checkpoint, or the last one where a best one went meanwhile.

    Changing knowledge lets it go.
    """
    try:
        return reading(folder, read)
    except (TzkError, OSError):
        last = folder.with_name(LAST)
        if folder.name != BEST or is_there(folder) or not is_there(last):
            raise
        return reading(last, read)


def trainer_of(folder: Path) -> Stored:
    """A checkpoint with the file of its training alone."""
    folder = Path(folder)

    def read(place: Path) -> Stored:
        manifest = read_manifest(place)
        entry = manifest.get("trainer")
        return Stored(folder, manifest, {_place(entry): read_file(place, entry)} if entry else {})

    return reading(folder, read)


def _place(entry: Mapping[str, Any]) -> Place:
    """Where a checkpoint has what an entry of its manifest is of."""
    return entry["file"], entry.get("offset")
