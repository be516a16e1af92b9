"""What a manifest says of many knowledge types, in a tenth of the memory."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from sys import intern
from typing import Any, NamedTuple

from tzk_core.storage.schema import TOGETHER_FILE, file_of


class _Row(NamedTuple):
    part: int
    sha256: bytes
    implies: tuple[str, ...]
    core: str
    place: tuple[int, int] | None


class Index:
    """The entries of knowledge types in a manifest, by name, in its order.

    Equal parts are one object: of a hundred thousand types there are few.

    core: the hash of the shared flow.
    """

    def __init__(self, manifest: Mapping[str, Any]) -> None:
        self.core: str = intern(manifest["core"]["hash"])
        self._parts: list[Mapping[str, Any] | None] = []
        self._rows: dict[str, _Row] = {}
        numbers: dict[str, int] = {}
        for name, entry in manifest["knowledge"].items():
            number = numbers.setdefault(json.dumps(entry["part"], sort_keys=True), len(self._parts))
            if number == len(self._parts):
                self._parts.append(entry["part"])
            implies = tuple(map(intern, entry["implies"]))
            place = (entry["offset"], entry["size"]) if entry.get("offset") is not None else None
            self._rows[name] = _Row(number, bytes.fromhex(entry["sha256"]), implies, intern(entry["core"]), place)

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __contains__(self, name: object) -> bool:
        return name in self._rows

    def entry(self, name: str) -> dict[str, Any]:
        """The entry of the manifest."""
        row = self._rows[name]
        said = {"part": self._parts[row.part], "implies": list(row.implies), "core": row.core}
        if row.place is None:
            return said | {"file": file_of(name), "sha256": row.sha256.hex()}
        offset, size = row.place
        return said | {"file": TOGETHER_FILE, "sha256": row.sha256.hex(), "offset": offset, "size": size}

    def number(self, name: str) -> int:
        """Equal for knowledge types of one part with the same arguments."""
        return self._rows[name].part

    def implies(self, name: str) -> tuple[str, ...]:
        return self._rows[name].implies

    def alike(self) -> Iterator[list[str]]:
        """Names of each part, parts in the order in which they came."""
        names: list[list[str]] = [[] for _ in self._parts]
        for name, row in self._rows.items():
            names[row.part].append(name)
        yield from names
