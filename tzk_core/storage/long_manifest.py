"""A manifest that is read type by type.

All entries of a hundred thousand are never in memory at once.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from tzk_core import names as naming
from tzk_core.errors import TzkError
from tzk_core.files import check_regular
from tzk_core.storage.index import Index
from tzk_core.storage.manifest import MANIFEST, check_format, check_hash, nameless, read_manifest, sharing
from tzk_core.storage.schema import CHECKED_AT_ONCE, TOGETHER_FORMAT, Manifest, first_problem, gap, one_file

LONG = 2**22
"""A manifest of fewer bytes is read at once."""

READ = 2**18
"""So many letters are read at a time."""


def read_index(folder: Path) -> tuple[dict[str, Any], Index]:
    """The manifest of a checkpoint without its knowledge types, and these as an index.

    All that `read_manifest` checks is checked.

    Raises:
        TzkError: as `read_manifest`.
    """
    path = Path(folder) / MANIFEST
    if path.is_file() and path.stat().st_size >= LONG:
        check_regular(path)
        try:
            with path.open(encoding="utf-8", newline="") as file:
                return _read(folder, _Text(file))
        except (ValueError, RecursionError) as error:
            raise TzkError(f"{path} is damaged ({error})") from None
    manifest = read_manifest(folder)
    return {**manifest, "knowledge": {}}, Index(manifest)


def _read(folder: Path, text: _Text) -> tuple[dict[str, Any], Index]:
    path = folder / MANIFEST
    head: dict[str, Any] = {}
    index: Index | None = None
    for key in text.members():
        if key != "knowledge":
            head[key] = text.value()
            continue
        check_format(head, path)
        if index is not None or "core" not in head or _problem(head, {}):
            raise _damaged(path, "it does not begin with its format and the shared flow, as it was written")
        index = Index({**head, "knowledge": {}})
        filling = _Filling(index, head, path)
        for name in text.members():
            filling.add(name, text.value())
        filling.close()
    text.end()
    if index is None or _problem(head, {}):
        raise _damaged(path, "it does not name the files of the model and their hashes")
    check_hash(head.pop("sha256", None), {**head, "knowledge": _Entries(index)}, path)
    return {**head, "knowledge": {}}, index


def _problem(head: Mapping[str, Any], some: Mapping[str, Any]) -> str:
    return first_problem(Manifest, {**head, "knowledge": some})


def _damaged(path: Path, why: str) -> TzkError:
    return TzkError(f"{path} is damaged: {why}")


class _Filling:
    """Adds entries to an index, checked some at a time as `schema.manifest_problem` does."""

    def __init__(self, index: Index, head: Mapping[str, Any], path: Path) -> None:
        self._index, self._head, self._path = index, head, path
        self._some: dict[str, Any] = {}
        self._folded: dict[str, str] = {}  # names that are not as they are folded, by that
        self._end = 0

    def add(self, name: str, entry: Any) -> None:
        key = naming.key(name)
        if name in self._index or name in self._some or self._folded.get(key, name) != name:
            raise _damaged(self._path, f"{name!r} has the name of another knowledge type")
        if key != name:
            self._folded[key] = name
        self._some[name] = entry
        if len(self._some) == CHECKED_AT_ONCE:
            self._take()

    def close(self) -> None:
        self._take()
        for key, name in self._folded.items():
            if key in self._index:
                raise _damaged(self._path, one_file(key, name))

    def _take(self) -> None:
        form = self._head["format"]
        if wrong := _problem(self._head, self._some) or gap(self._some, self._end, form):
            raise nameless(self._path, wrong)
        for name, entry in self._some.items():
            self._index.add(name, entry)
            self._end += entry["size"] if form == TOGETHER_FORMAT else 0
        self._some = {}


class _Entries(Mapping[str, Mapping[str, Any]]):
    """The entries of an index, as of a manifest."""

    def __init__(self, index: Index) -> None:
        self._index = index

    def __getitem__(self, name: str) -> Mapping[str, Any]:
        return self._index.entry(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._index)

    def __len__(self) -> int:
        return len(self._index)


class _Text:
    """JSON that is read as far as it is needed."""

    def __init__(self, file: TextIO) -> None:
        self._file, self._text, self._place = file, "", 0
        self._decoder = json.JSONDecoder(object_hook=sharing())

    def members(self) -> Iterator[str]:
        """The keys of an object, the value of each being read before the next."""
        self._expect("{")
        if self._next() == "}":
            self._place += 1
            return
        while True:
            key = self.value()
            if not isinstance(key, str):
                raise ValueError(f"expected a name; got {key!r:.40}")
            self._expect(":")
            yield key
            if self._next() == "}":
                self._place += 1
                return
            self._expect(",")

    def value(self) -> Any:
        """The next value, whole."""
        self._next()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._place)
            except json.JSONDecodeError:
                if not self._more():
                    raise
                continue
            if end < len(self._text) or not self._more():  # a number may go on
                self._place = end
                return value

    def end(self) -> None:
        """Raise ValueError where something comes after the last value."""
        if rest := self._next():
            raise ValueError(f"expected the end; got {rest!r}")

    def _expect(self, letter: str) -> None:
        if (found := self._next()) != letter:
            raise ValueError(f"expected {letter!r}; got {found!r}")
        self._place += 1

    def _next(self) -> str:
        """The next letter that is no space, "" at the end."""
        while True:
            while self._place < len(self._text) and self._text[self._place] in " \t\n\r":
                self._place += 1
            if self._place < len(self._text) or not self._more():
                return self._text[self._place : self._place + 1]

    def _more(self) -> bool:
        more = self._file.read(READ)
        self._text, self._place = self._text[self._place :] + more, 0
        return bool(more)
