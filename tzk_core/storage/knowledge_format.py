"""The file of one knowledge type on its way between runs.

It is safetensors that say what they are, hashed to the last byte.

Its tensors are the checkpoint's, byte for byte. Beside what a checkpoint's file says of itself ("tzk": name, part,
implies, core), the header has one more entry, "tzk-knowledge". It has the format, and the sha256 of the file without
this entry. That is the file as the checkpoints have it that it comes from and goes to. A hash finds damage; it does not
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
    """A knowledge type outside of any model.

    entry: what a checkpoint's manifest says of it (part, implies, core). content: its file as a checkpoint has it.
    """

    name: str
    entry: Mapping[str, Any]
    content: bytes

    def renamed(self, name: str) -> KnowledgeFile:
        """The same by another name; its tensors stay as they are."""
        header, data = split_header(self.content)
        return KnowledgeFile(name, self.entry, _joined(with_metadata(header, name, self.entry), data))

    def sealed(self) -> bytes:
        """The file as it leaves a run."""
        header, data = split_header(self.content)
        header = with_metadata(header, self.name, self.entry)
        seal = {"format": FORMAT, "sha256": _sha256(_joined(header, data))}
        header["__metadata__"] = header["__metadata__"] | {_SEALED: json.dumps(seal)}
        return _joined(header, data)


def parse_export(content: bytes, where: Path) -> KnowledgeFile:
    """The knowledge type that `sealed` wrote.

    Args:
        where: what errors call the file.

    Raises:
        TzkError: if the content is anything else or was altered.
    """
    if content.startswith(_PICKLES) and content[8:9] != b"{":  # safetensors begin with any length, then a "{"
        raise TzkError(
            f"{where} is a pickle, as torch.save writes them, and opening one would run whatever it holds: expected "
            "a .safetensors file that `tzk knowledge export` wrote"
        )
    seal: Any
    said: Any
    try:
        header, data = split_header(content)
        metadata = header.get("__metadata__", {})
        seal, said = (json.loads(metadata[key]) if key in metadata else None for key in (_SEALED, _SAID))
        plain = _joined(header | {"__metadata__": {key: metadata[key] for key in metadata if key != _SEALED}}, data)
        canonical = _joined(header, data) == content
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise TzkError(
            f"{where} is not a safetensors file, or its beginning is damaged: expected one that `tzk knowledge "
            "export` wrote"
        ) from None
    _check_seal(seal, where, said=said, sha256=_sha256(plain) if canonical else None)
    if (entry := _entry(said)) is None:
        raise TzkError(f"{where} is damaged: it does not say its name, part, implies and core as an export does")
    return KnowledgeFile(said["name"], entry, plain)


def _check_seal(seal: Any, where: Path, *, said: Any, sha256: str | None) -> None:
    """Check that a file was sealed by an export, and is as it was then.

    Raises `TzkError` otherwise.

    said: what else the header has. sha256: of the file without its seal; None if it is not written as an export is.
    """
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
    if sha256 is None or sha256 != seal.get("sha256"):
        raise TzkError(
            f"{where} was cut off or altered after it was exported: the sha256 of what it holds is not the one that "
            "it was given then. Nothing was taken from it; get it again, or export it again"
        )


def _entry(said: Any) -> dict[str, Any] | None:
    """The manifest's entry of a knowledge type, from what its file says of itself.

    None where that is not as it should be.
    """
    try:
        entry = without_file(said)
        part = Part.from_json(entry["part"])
        texts = [said["name"], entry["core"], part.name, part.plugin, part.distribution, part.version]
        sound = isinstance(entry["implies"], list) and all(isinstance(text, str) for text in texts + entry["implies"])
        return entry if sound and isinstance(part.state_version, int) else None
    except (KeyError, TypeError, AttributeError):
        return None


def said_of(content: bytes, where: Path) -> dict[str, Any] | None:
    """What a checkpoint's knowledge file says of itself: name, part, implies and core.

    None if it says nothing.

    Raises `TzkError`, calling the file `where`, if it is no safetensors.
    """
    try:
        said = split_header(content)[0].get("__metadata__", {}).get(_SAID)
        said = None if said is None else json.loads(said)
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise TzkError(f"{where} is not a readable safetensors file: its header is damaged") from None
    if said is not None and not isinstance(said, dict):
        raise TzkError(f"{where} is damaged: it does not say its name, part, implies and core")
    return said


def without_file(entry: Mapping[str, Any]) -> dict[str, Any]:
    """What an entry of a manifest says of a knowledge type itself.

    It is part, implies and core, which the file says of itself too.
    """
    return {key: entry[key] for key in ("part", "implies", "core")}


def metadata_of(name: str, entry: Mapping[str, Any]) -> dict[str, str]:
    """The metadata by which a checkpoint's file says what it is."""
    return {_SAID: json.dumps({"name": name} | without_file(entry))}


def with_metadata(header: Mapping[str, Any], name: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    """The header of a file that says of itself what a checkpoint writes."""
    return {"__metadata__": metadata_of(name, entry)} | {
        key: value for key, value in header.items() if key != "__metadata__"
    }


def split_header(content: bytes) -> tuple[dict[str, Any], bytes]:
    """Header and data of safetensors.

    A file has 8 bytes of little-endian length, so much JSON, and the rest.
    """
    start = 8 + int.from_bytes(content[:8], "little")
    return json.loads(content[8:start]), content[start:]


def _joined(header: Mapping[str, Any], data: bytes) -> bytes:
    """Header and data as the safetensors library writes them.

    That is compact JSON, filled up with spaces so that data begins at a multiple of 8.
    """
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
