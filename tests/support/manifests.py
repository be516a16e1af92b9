"""Manifests as an older version, or a fault of the disk, leaves them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tzk_core.storage.knowledge_format import split_header


def rewritten(folder: Path, change: Callable[[dict[str, Any]], None], *, headers: bool = True) -> None:
    """Changes the manifest of a checkpoint as an older version may have written it: without a hash of itself.

    headers: knowledge files then say the same of themselves.
    """
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest.pop("sha256", None)
    change(manifest)
    for name, entry in manifest["knowledge"].items() if headers else ():
        file = folder / entry["file"]
        header, data = split_header(file.read_bytes())
        metadata = {"name": name} | {key: entry[key] for key in ("part", "implies", "core")}
        text = json.dumps(header | {"__metadata__": {"tzk": json.dumps(metadata)}}).encode()
        text += b" " * (-len(text) % 8)
        file.write_bytes(len(text).to_bytes(8, "little") + text + data)
        entry["sha256"] = hashlib.sha256(file.read_bytes()).hexdigest()
    path.write_text(json.dumps(manifest))
