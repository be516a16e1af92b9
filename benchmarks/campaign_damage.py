"""Damage to files at every class of byte, and hostile files.

Hostile files were sealed after they were altered.
"""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from campaign_world import LONGER, LOST, SILENT, Tries, Works, World, contents, figures, in_children, tzk

from tzk_core import TzkError
from tzk_core.storage.checkpoint import load_trainer
from tzk_core.storage.knowledge_files import import_knowledge
from tzk_core.storage.knowledge_format import KnowledgeFile, parse_export, split_header
from tzk_core.storage.manifest import write_manifest

VALUES: list[Any] = [None, True, -1, 0, 7, 1.5, 10**9, 10**30, float("nan"), "", "x", "gaussian", [], [1], {}, {"x": 1}]
UNREAD = (".png", "results.md", "results.json", "results-4.json")
"""Ends of the names of files that are for people: no command reads them."""

# where

Places = Callable[[bytes], range | list[int]]


def _where(belongs: Callable[[int], bool]) -> Places:
    return lambda content: [place for place, byte in enumerate(content[:4096]) if belongs(byte)]


CLASSES: dict[str, Places] = {
    "the first byte": lambda content: range(1),
    "the length of a header": lambda content: range(1, 8),
    "the beginning": lambda content: range(8, 200),
    "a digit": _where(lambda byte: 48 <= byte < 58),
    "a letter": _where(lambda byte: byte < 128 and chr(byte).isalpha()),
    "a mark": _where(lambda byte: 32 < byte < 127 and not chr(byte).isalnum()),
    "a space": _where(lambda byte: byte in b" \n\r\t"),
    "a byte that is no text": _where(lambda byte: byte < 9 or byte > 126),
    "the middle": lambda content: range(len(content) // 3, 2 * len(content) // 3),
    "the end": lambda content: range(max(0, len(content) - 200), len(content)),
    "the last byte": lambda content: range(len(content) - 1, len(content)),
}
"""Classes of bytes, as the places of them in a file."""


# how


def _flipped(content: bytes, place: int, source: random.Random) -> bytes:
    return _with(content, place, content[place] ^ (1 << source.randrange(8)))


def _alike(content: bytes, place: int, source: random.Random) -> bytes:
    """A digit for a digit, a letter for a letter: what stays readable."""
    letter = chr(content[place])
    other = "0123456789" if letter.isdigit() else "abcxyzABC" if letter.isalpha() else '"{}[],:.-'
    return _with(content, place, ord(source.choice(other)))


def _with(content: bytes, place: int, byte: int) -> bytes:
    return content[:place] + bytes([byte]) + content[place + 1 :]


WAYS: dict[str, Callable[..., bytes]] = {
    "a bit flipped": _flipped,
    "another alike": _alike,
    "cut there": lambda content, place, source: content[:place],
    "zeros from there": lambda content, place, source: content[:place] + bytes(len(content) - place),
    "a byte more": lambda content, place, source: content[:place] + source.randbytes(1) + content[place:],
    "a byte less": lambda content, place, source: content[:place] + content[place + 1 :],
    "its beginning again": lambda content, place, source: content + content[: place + 1],
}


def altered(content: bytes, source: random.Random, where: str, *, how: str) -> bytes | None:
    """A file with one class of its bytes damaged in one way.

    None where it has no such bytes.
    """
    places = [place for place in CLASSES[where](content) if place < len(content)]
    return WAYS[how](content, source.choice(places), source=source) if places else None


def damage(world: World, source: random.Random) -> Tries:
    """Every file in every way at every class of bytes; then at other places."""
    return in_children(_damages(world, source))


def _damages(world: World, source: random.Random) -> Works:
    files = [(world.run, name) for name in world.files] + [(world.packed, name) for name in contents(world.packed)]
    files = [(folder, name) for folder, name in files if not name.endswith(UNREAD)]
    files.append((world.export.parent, world.export.name))
    while True:
        tries = [(*file, where, how) for file in files for where in CLASSES for how in WAYS]
        source.shuffle(tries)
        for folder, name, where, how in tries:
            content = altered((folder / name).read_bytes(), source, where, how=how)
            if content is not None and content != (folder / name).read_bytes():
                work = partial(_damaged, world, folder, name, content=content)
                yield f"{folder.name}/{name}, {where}, {how}", work


def _damaged(world: World, folder: Path, name: str, *, content: bytes) -> str:
    if folder == world.export.parent:
        return _imported(world, content)
    run = world.copy("victim", folder)
    (run / name).write_bytes(content)
    checkpoint = Path(name).parts[0]
    if checkpoint not in ("checkpoint", "best"):
        return _used(run, folder)
    if name.endswith("trainer.pt"):
        load_trainer(run / checkpoint)
        return SILENT  # what it holds is not what was written
    return "" if figures(run / checkpoint, whole=True) == figures(folder / checkpoint, whole=True) else SILENT


def _used(run: Path, sound: Path) -> str:
    """Run the commands that read config.toml, run.json and metrics.csv.

    The model has to stay what it is.
    """
    for words in (("eval", run), ("knowledge", "list", run), ("run", run, "--resume", LONGER)):
        try:
            tzk(*words)
        except TzkError as error:
            refusal = error
            continue
        if words[0] == "run":
            return ""
    if figures(run) != figures(sound):
        return SILENT
    raise refusal


# hostile files


def hostile(world: World, source: random.Random) -> Tries:
    """Exports and manifests that were sealed after they were altered, and other files.

    The other files are something else than exports and manifests.
    """
    return in_children(_hostiles(world, source))


def _hostiles(world: World, source: random.Random) -> Works:
    makers = (_hostile_entry, _hostile_tensors, _hostile_header, _hostile_manifest, _something_else)
    while True:
        for make in makers:
            yield make(world, source)


def _hostile_entry(world: World, source: random.Random) -> tuple[str, Callable[[], str]]:
    sound = parse_export(world.export.read_bytes(), world.export)
    entry = json.loads(json.dumps(sound.entry))
    mutate(entry, source)
    name = source.choice(["new", "new", "new", "..", "a/b", "x" * 300, "con", "-rf", "", "A\u0301", "\u202ea", 7])
    what = f"an export called {name!r:.20}: {json.dumps(entry)[:300]}"
    try:
        content = KnowledgeFile(name, entry, sound.content).sealed()
    except (KeyError, TypeError):
        content = b""  # this cannot even be sealed
    return what, partial(_imported, world, content)


def _hostile_tensors(world: World, source: random.Random) -> tuple[str, Callable[[], str]]:
    """Numbers that are none, in the place of weights."""
    sound = parse_export(world.export.read_bytes(), world.export)
    header, data = split_header(sound.content)
    numbers = np.frombuffer(data, "<f4").copy()
    value = source.choice([np.nan, np.inf, -np.inf])
    numbers[source.randrange(len(numbers))] = value
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    content = len(text).to_bytes(8, "little") + text + numbers.tobytes()
    return f"weights with {value}", partial(_imported, world, KnowledgeFile("new", sound.entry, content).sealed())


def _hostile_header(world: World, source: random.Random) -> tuple[str, Callable[[], str]]:
    """Tensors of another type, shape or place than their bytes."""
    sound = parse_export(world.export.read_bytes(), world.export)
    header, data = split_header(sound.content)
    tensors = {key: value for key, value in header.items() if key != "__metadata__"}
    mutate(tensors, source)
    text = json.dumps({"__metadata__": header["__metadata__"], **tensors}, separators=(",", ":")).encode()
    content = len(text).to_bytes(8, "little") + text + data
    what = f"a header {json.dumps(tensors)[:300]}"
    return what, partial(_imported, world, KnowledgeFile("new", sound.entry, content).sealed())


def _hostile_manifest(world: World, source: random.Random) -> tuple[str, Callable[[], str]]:
    manifest = json.loads(world.files["checkpoint/manifest.json"])
    manifest.pop("sha256")
    mutate(manifest, source)
    return f"a manifest {json.dumps(manifest)[:300]}", partial(_opened, world, manifest)


def _opened(world: World, manifest: Any) -> str:
    run = world.copy("victim")
    try:
        write_manifest(run / "checkpoint", manifest)
    except ValueError:  # nan is no JSON
        return ""
    sound, found = figures(world.run / "checkpoint", whole=True), figures(run / "checkpoint", whole=True)
    dropped = {name for name in sound["densities"] if name not in manifest["knowledge"]}
    for part in ("densities", "parts"):
        sound[part] = {name: value for name, value in sound[part].items() if name not in dropped}
    same = all(found[part] == sound[part] for part in ("", "densities", "parts"))
    return "" if same and found["state"].items() <= sound["state"].items() else SILENT


def _something_else(world: World, source: random.Random) -> tuple[str, Callable[[], str]]:
    content = source.choice(
        [
            b"",
            b"PK\x03\x04" + source.randbytes(50),
            b"\x80\x04" + source.randbytes(50),
            (2 ** source.randrange(64)).to_bytes(8, "little") + b"{" + source.randbytes(50),
            (100_000).to_bytes(8, "little") + b"[" * 100_000,
            (100_008).to_bytes(8, "little") + b'{"a":' * 20_000 + b"        ",
            source.randbytes(source.randrange(300)),
            b"\x00" * 10_000,
            world.files["checkpoint/knowledge/moons.safetensors"],
            world.files["checkpoint/core.safetensors"],
            world.files["checkpoint/trainer.pt"],
        ]
    )
    return f"a file {content[:40]!r}", partial(_imported, world, content)


def _imported(world: World, content: bytes) -> str:
    """Import a file as new knowledge.

    It has to be refused, nothing changed, or be what it was.
    """
    run, file = world.copy("victim"), world.folder / "hostile.safetensors"
    file.write_bytes(content)
    before = contents(run)
    try:
        (name,) = import_knowledge(run, file, "new").knowledge
    except TzkError:
        if contents(run) != before:
            return LOST
        raise
    return "" if figures(run)["densities"][name] == world.renamed else SILENT


def mutate(value: Any, source: random.Random) -> None:
    """Alter one thing anywhere in nested tables and lists."""
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    if not keys:
        return
    key = source.choice(keys)
    if isinstance(value[key], dict | list) and value[key] and source.random() < 0.7:
        mutate(value[key], source)
    elif source.random() < 0.2:
        del value[key]
    else:
        value[key] = copy.deepcopy(source.choice(VALUES))
