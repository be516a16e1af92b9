"""The manifest of a checkpoint: which files it has, their sha256, and what is known of each without reading it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tzk_core import names as naming
from tzk_core.errors import TzkError
from tzk_core.storage.atomic import repair

FORMAT = 1
CORE = "core.safetensors"


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a checkpoint, after repairing an interrupted replacement."""
    folder = Path(folder)
    repair(folder)
    path = folder / "manifest.json"
    try:
        manifest = json.loads(path.read_text())
    except FileNotFoundError:
        raise TzkError(f"no checkpoint in {folder}: {path.name} is not there") from None
    except ValueError as error:
        raise TzkError(f"{path} is damaged ({error})") from None
    written = manifest.get("format") if isinstance(manifest, dict) else None
    if written != FORMAT:
        raise TzkError(f"{path} has format {written}; this version of TzK reads format {FORMAT}")
    try:
        knowledge = manifest["knowledge"].items()
        damaged = not {"file", "sha256", "hash", "parts"} <= set(manifest["core"])
        damaged |= any(not {"file", "sha256", "core", "part", "implies"} <= set(entry) for _, entry in knowledge)
        damaged = damaged or any(naming.problem(name) or entry["file"] != file_of(name) for name, entry in knowledge)
    except (KeyError, TypeError, AttributeError):
        damaged = True
    if damaged:
        raise TzkError(f"{path} is damaged: it does not name the files of the model and their hashes")
    return manifest


def read_file(folder: Path, entry: Mapping[str, Any]) -> bytes:
    """The file that an entry of the manifest names. Raises `TzkError` if it is missing, truncated or altered."""
    return checked(folder / entry["file"], entry["sha256"])


def checked(path: Path, sha256: str) -> bytes:
    """The content of a file whose sha256 is known. Raises `TzkError` as `read_file` does."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise TzkError(f"{path} is missing from the checkpoint") from None
    if _sha256(content) != sha256:
        raise TzkError(f"{path} is truncated or altered: its sha256 is not that of the manifest")
    return content


def write_file(folder: Path, name: str, content: bytes) -> dict[str, Any]:
    """Write a file of a checkpoint; what the manifest says of it."""
    (folder / name).write_bytes(content)
    return {"file": name, "sha256": _sha256(content)}


def file_of(name: str) -> str:
    """The file of a knowledge type."""
    return f"knowledge/{name}.safetensors"


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
