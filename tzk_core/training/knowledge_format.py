"""The file of one knowledge type on its way between runs: safetensors that say what they are, hashed to the last byte.

Its tensors are the checkpoint's, byte for byte. Beside what a checkpoint's file says of itself ("tzk": name, part,
implies, core), the header has one more entry, "tzk-knowledge": the format, and the sha256 of the file as it is without
this entry, which is how the checkpoint has it that it comes from and that it goes to. A hash finds damage; it does not
say who made a file. Nothing in it is ever run.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tzk_core.errors import TzkError
from tzk_core.parts import Part

FORMAT = 1
_SAID, _SEALED = "tzk", "tzk-knowledge"
_PICKLES = (b"PK\x03\x04", b"\x80")


@dataclass(frozen=True)
class KnowledgeFile:
    """A knowledge type outside of any model: its name, what a checkpoint's manifest says of it (part, implies, core),
    and its file as a checkpoint has it."""

    name: str
    entry: Mapping[str, Any]
    content: bytes

    def called(self, name: str) -> KnowledgeFile:
        """The same by another name; its tensors stay as they are."""
        header, data = _parted(self.content)
        return KnowledgeFile(name, self.entry, _joined(_saying(header, name, self.entry), data))

    def sealed(self) -> bytes:
        """The file as it leaves a run."""
        header, data = _parted(self.content)
        header = _saying(header, self.name, self.entry)
        seal = {"format": FORMAT, "sha256": _sha256(_joined(header, data))}
        header["__metadata__"] = header["__metadata__"] | {_SEALED: json.dumps(seal)}
        return _joined(header, data)


def opened(content: bytes, where: Path) -> KnowledgeFile:
    """What `sealed` wrote. Raises `TzkError`, calling the file `where`, if it is anything else or was altered."""
    if content.startswith(_PICKLES) and content[8:9] != b"{":  # safetensors begin with any length, then a "{"
        raise TzkError(
            f"{where} is a pickle, as torch.save writes them, and opening one would run whatever it holds: expected "
            "a .safetensors file that `tzk knowledge export` wrote"
        )
    seal: Any
    said: Any
    try:
        header, data = _parted(content)
        metadata = header.get("__metadata__", {})
        seal, said = (json.loads(metadata[key]) if key in metadata else None for key in (_SEALED, _SAID))
        plain = _joined(header | {"__metadata__": {key: metadata[key] for key in metadata if key != _SEALED}}, data)
        canonical = _joined(header, data) == content
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise TzkError(
            f"{where} is not a safetensors file, or its beginning is damaged: expected one that `tzk knowledge "
            "export` wrote"
        ) from None
    if not isinstance(seal, dict):
        advice = (
            "it is a checkpoint's own, which says nothing that could be checked outside of its run: `tzk knowledge "
            "export RUN NAME` writes one"
            if said
            else "its tensors do not say which knowledge they are"
        )
        raise TzkError(f"{where} is not a file that `tzk knowledge export` wrote: {advice}")
    if seal.get("format") != FORMAT:
        raise TzkError(f"{where} has format {seal.get('format')!r}; this version of TzK reads format {FORMAT}")
    if not canonical or _sha256(plain) != seal.get("sha256"):
        raise TzkError(
            f"{where} was cut off or altered after it was exported: the sha256 of what it holds is not the one that "
            "it was given then. Nothing was taken from it; get it again, or export it again"
        )
    try:
        entry = {key: said[key] for key in ("part", "implies", "core")}
        part = Part.from_json(entry["part"])
        texts = [said["name"], entry["core"], part.name, part.plugin, part.distribution, part.version]
        sound = isinstance(entry["implies"], list) and all(isinstance(text, str) for text in texts + entry["implies"])
        sound &= isinstance(part.state_version, int)
    except (KeyError, TypeError, AttributeError):
        sound = False
    if not sound:
        raise TzkError(f"{where} is damaged: it does not say its name, part, implies and core as an export does")
    return KnowledgeFile(said["name"], entry, plain)


def _saying(header: Mapping[str, Any], name: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    """The header of a file that says of itself what a checkpoint writes."""
    said = {"name": name} | {key: entry[key] for key in ("part", "implies", "core")}
    return {"__metadata__": {_SAID: json.dumps(said)}} | {
        key: value for key, value in header.items() if key != "__metadata__"
    }


def _parted(content: bytes) -> tuple[dict[str, Any], bytes]:
    """Header and data of safetensors: 8 bytes of little-endian length, so much JSON, and the rest."""
    start = 8 + int.from_bytes(content[:8], "little")
    return json.loads(content[8:start]), content[start:]


def _joined(header: Mapping[str, Any], data: bytes) -> bytes:
    """As the safetensors library writes it: compact JSON, filled up with spaces so that data begins at a multiple
    of 8."""
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
