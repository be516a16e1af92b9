"""The manifest of a checkpoint: its files, their sha256, and what they hold.

What is known of each file is known without reading it.

It has fixed names for files, and a sha256 of itself. One without that was written by an older version.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

from tzk_core.errors import TzkError
from tzk_core.files import check_regular
from tzk_core.storage.knowledge_format import said_of, without_file
from tzk_core.storage.schema import (
    CORE,
    FORMAT,
    TOGETHER_FILE,
    TOGETHER_FORMAT,
    TRAINER,
    file_of,
    manifest_problem,
)

__all__ = ["CORE", "MANIFEST", "TRAINER", "file_of", "read_file", "read_knowledge", "read_manifest"]

MANIFEST = "manifest.json"
_ITSELF = "sha256"

TOGETHER_FROM = 257
"""From so many knowledge types on, all are in one file: a disk takes much longer for as many small ones."""


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a checkpoint, without its hash of itself.

    Raises:
        TzkError: if it is damaged or not there.
    """
    path = Path(folder) / MANIFEST
    try:
        check_regular(path)
        manifest = json.loads(path.read_bytes().decode("utf-8"), object_hook=sharing())
    except FileNotFoundError:
        raise TzkError(f"no checkpoint in {folder}: {path.name} is not there") from None
    except (ValueError, RecursionError) as error:
        raise TzkError(f"{path} is damaged ({error})") from None
    check_format(manifest, path)
    if wrong := manifest_problem(manifest):
        raise nameless(path, wrong)
    check_hash(manifest.pop(_ITSELF, None), manifest, path)
    return manifest


def nameless(path: Path, wrong: str) -> TzkError:
    """The error for a manifest of another structure, with what is wrong first."""
    return TzkError(f"{path} is damaged: it does not name the files of the model and their hashes ({wrong})")


def check_format(manifest: Any, path: Path) -> None:
    """Raises `TzkError` for a manifest of a format that this version does not read."""
    written = manifest.get("format") if isinstance(manifest, dict) else None
    if type(written) is not int or written not in (FORMAT, TOGETHER_FORMAT):
        raise TzkError(
            f"{path} has format {written!r:.40}; this version of TzK reads formats {FORMAT} and {TOGETHER_FORMAT}"
        )


def check_hash(said: str | None, manifest: Mapping[str, Any], path: Path) -> None:
    """Raises `TzkError` unless a manifest has the hash that it said, if it did."""
    if said is not None and said != _canonical_sha256(manifest):
        raise TzkError(f"{path} was altered after it was written: its sha256 is not the one that it names")


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write the manifest of a checkpoint with its hash of itself."""
    sealed = {**manifest, _ITSELF: _canonical_sha256(manifest)}
    write_file(folder, MANIFEST, json.dumps(sealed, indent=1, allow_nan=False).encode())


def read_file(folder: Path, entry: Mapping[str, Any]) -> bytes:
    """The file that an entry of the manifest names.

    Raises:
        TzkError: if it is missing, truncated or altered.
    """
    path = folder / entry["file"]
    with _opened(path) as file:
        return _checked(path, file.read(), entry["sha256"])


def read_knowledge(folder: Path, entries: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, bytes]]:
    """Names and files of knowledge types, by their entries of the manifest.

    A file that holds many is opened once.

    Raises:
        TzkError: as `read_file`, and if a file says another thing of itself than the manifest.
    """
    with ExitStack() as held:
        together: dict[str, BinaryIO] = {}
        for name, entry in entries.items():
            file, offset, size = entry["file"], entry.get("offset"), entry.get("size")
            path = folder / file
            if offset is None or size is None:
                content = read_file(folder, entry)
            else:
                if file not in together:
                    together[file] = held.enter_context(_opened(path))
                content = _checked(path, _part(together[file], offset, size), entry["sha256"], place=(offset, size))
            _check_said(content, name, entry, folder=folder)
            yield name, content


def _check_said(content: bytes, name: str, entry: Mapping[str, Any], *, folder: Path) -> None:
    """Raise `TzkError` where a knowledge file says another thing of itself than its entry."""
    said = said_of(content, folder / entry["file"])
    of_manifest = {"name": name} | without_file(entry)
    differ = [key for key, value in of_manifest.items() if said is not None and said.get(key) != value]
    if differ:
        raise TzkError(
            f"{folder / MANIFEST} was altered: of knowledge type {name!r} it says another {differ[0]} than "
            f"{entry['file']} says of itself"
        )


def _opened(path: Path) -> BinaryIO:
    try:
        check_regular(path)
        return path.open("rb")
    except FileNotFoundError:
        raise TzkError(f"{path} is missing from the checkpoint") from None


def _part(file: BinaryIO, offset: int, size: int) -> bytes:
    file.seek(offset)
    return file.read(min(size, os.fstat(file.fileno()).st_size))  # a size is not believed


def _checked(path: Path, content: bytes, sha256: str, *, place: tuple[int, int] | None = None) -> bytes:
    """Content of a file, or of a place in it, whose sha256 is as said.

    Raises:
        TzkError: if it is not.
    """
    if _sha256(content) != sha256:
        within = "" if place is None else f", in the {place[1]} bytes from {place[0]}"
        raise TzkError(f"{path} is truncated or altered{within}: its sha256 is not that of the manifest")
    return content


def check_together(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Check that the file of all knowledge types is as long as the manifest says.

    Raises:
        TzkError: if it is not.
    """
    if manifest["format"] != TOGETHER_FORMAT:
        return
    said, path = sum(entry["size"] for entry in manifest["knowledge"].values()), folder / TOGETHER_FILE
    if path.is_file() and (found := path.stat().st_size) != said:
        raise TzkError(f"{path} is truncated or altered: it has {found:,} bytes, and by the manifest {said:,}")


def write_file(folder: Path, name: str, content: bytes) -> dict[str, Any]:
    """Write a file of a checkpoint; what the manifest says of it."""
    (folder / name).write_bytes(content)
    return {"file": name, "sha256": _sha256(content)}


def write_knowledge(
    folder: Path, files: Iterable[tuple[str, Mapping[str, Any], bytes]], count: int
) -> tuple[int, dict[str, Any]]:
    """Write the files of `count` knowledge types.

    Args:
        files: of each its name, what the manifest says of it, and its file.

    Returns:
        The format of the manifest, and its entries of knowledge.
    """
    if count < TOGETHER_FROM:
        (folder / "knowledge").mkdir(exist_ok=True)
        alone = {name: without_file(entry) | write_file(folder, file_of(name), file) for name, entry, file in files}
        return FORMAT, alone
    together, offset = {}, 0
    with (folder / TOGETHER_FILE).open("wb") as all_files:
        for name, entry, file in files:
            all_files.write(file)
            place = {"file": TOGETHER_FILE, "sha256": _sha256(file), "offset": offset, "size": len(file)}
            together[name] = without_file(entry) | place
            offset += len(file)
    return TOGETHER_FORMAT, together


def _canonical_sha256(manifest: Mapping[str, Any]) -> str:
    """The sha256 of `json.dumps(manifest, sort_keys=True)`.

    It is the same once the manifest was written and read again. It is taken entry by entry: the whole text is larger
    than what is read of it.
    """
    whole = hashlib.sha256(b"{")
    for number, key in enumerate(sorted(manifest)):
        whole.update((", " * (number > 0) + json.dumps(key) + ": ").encode())
        if key != "knowledge" or not isinstance(manifest[key], Mapping):
            whole.update(_canonical(manifest[key]))
            continue
        whole.update(b"{")
        for place, name in enumerate(sorted(manifest[key])):
            whole.update((", " * (place > 0) + json.dumps(name) + ": ").encode() + _canonical(manifest[key][name]))
        whole.update(b"}")
    whole.update(b"}")
    return whole.hexdigest()


def _canonical(value: Any) -> bytes:
    """The same bytes for a value that was written and read again."""
    return json.dumps(json.loads(json.dumps(value, allow_nan=False)), sort_keys=True).encode()


def sharing() -> Callable[[dict[str, Any]], dict[str, Any]]:
    """A hook for `json` that gives equal parts as one object: there are few."""
    seen: dict[str, dict[str, Any]] = {}

    def shared(value: dict[str, Any]) -> dict[str, Any]:
        return seen.setdefault(repr(value), value) if "distribution" in value else value

    return shared


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
