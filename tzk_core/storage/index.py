"""What a manifest says of many knowledge types, in a tenth of the memory."""

from __future__ import annotations

import json
from array import array
from collections.abc import Hashable, Iterator, Mapping
from typing import Any

from tzk_core.storage.schema import TOGETHER_FILE, file_of

_ALONE = -1
"""In the place of an offset, of a type with a file of its own."""


class Index:
    """The entries of knowledge types in a manifest, by name, in its order.

    Equal parts are one object: of a hundred thousand types there are few. All else is in columns of numbers.

    core: the hash of the shared flow.
    """

    def __init__(self, manifest: Mapping[str, Any]) -> None:
        self.core: str = manifest["core"]["hash"]
        self._rows: dict[str, int] = {}
        self._parts, self._implied, self._cores = _Distinct(), _Distinct(), _Distinct()
        self._hashes = bytearray()
        self._numbers = [array("q") for _ in range(5)]
        for name, entry in manifest["knowledge"].items():
            self.add(name, entry)

    def add(self, name: str, entry: Mapping[str, Any]) -> None:
        """Add the entry of one more knowledge type."""
        offset, size = entry.get("offset"), entry.get("size")
        self._rows[name] = len(self._rows)
        self._hashes += bytes.fromhex(entry["sha256"])
        implies = tuple(entry["implies"])
        values = (
            self._parts.number(json.dumps(entry["part"], sort_keys=True), entry["part"]),
            self._implied.number(implies, implies),
            self._cores.number(entry["core"], entry["core"]),
            _ALONE if offset is None else offset,
            _ALONE if size is None else size,
        )
        for column, value in zip(self._numbers, values, strict=True):
            column.append(value)

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __contains__(self, name: object) -> bool:
        return name in self._rows

    def entry(self, name: str) -> dict[str, Any]:
        """The entry of the manifest."""
        row = self._rows[name]
        part, implies, core, offset, size = (column[row] for column in self._numbers)
        said = {
            "part": self._parts.values[part],
            "implies": list(self._implied.values[implies]),
            "core": self._cores.values[core],
            "file": file_of(name) if offset == _ALONE else TOGETHER_FILE,
            "sha256": bytes(self._hashes[32 * row : 32 * row + 32]).hex(),
        }
        return said if offset == _ALONE else said | {"offset": offset, "size": size}

    def number(self, name: str) -> int:
        """Equal for knowledge types of one part with the same arguments."""
        return self._numbers[0][self._rows[name]]

    def implies(self, name: str) -> tuple[str, ...]:
        found: tuple[str, ...] = self._implied.values[self._numbers[1][self._rows[name]]]
        return found

    def alike(self) -> Iterator[list[str]]:
        """Names of each part, parts in the order in which they came."""
        names: list[list[str]] = [[] for _ in self._parts.values]
        for name, row in self._rows.items():
            names[self._numbers[0][row]].append(name)
        yield from names


class _Distinct:
    """Values of which there are few, by number."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self._numbers: dict[Hashable, int] = {}

    def number(self, key: Hashable, value: Any) -> int:
        number = self._numbers.setdefault(key, len(self.values))
        if number == len(self.values):
            self.values.append(value)
        return number
