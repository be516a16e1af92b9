"""Knowledge types of a run: listed, exported as files, imported into another run, and removed.

The other run has the same shared flow.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tzk_core.errors import TzkError, nearest
from tzk_core.files import check_regular
from tzk_core.knowledge import Knowledge
from tzk_core.model import SharedFlow, TzK
from tzk_core.moved import home_of
from tzk_core.names import key
from tzk_core.storage import atomic
from tzk_core.storage.checkpoint import (
    OpaqueKnowledge,
    copy_checkpoint,
    knowledge_file,
    load_knowledge,
    model_of,
)
from tzk_core.storage.knowledge_format import KnowledgeFile, parse_export
from tzk_core.storage.places import BEST, LAST, checkpoint_in
from tzk_core.storage.stored import manifest_of, read_stored

SUFFIX = ".safetensors"
SHORT = 12
"""So many digits of a hash tell two apart for a person."""


@dataclass(frozen=True)
class Changed:
    """A change of the knowledge of a checkpoint.

    knowledge: the types that came or went. core: the hash of the shared flow. warnings: what a person should know of
    it.
    """

    knowledge: tuple[str, ...]
    core: str
    warnings: tuple[str, ...]


Around = Callable[[Changed], AbstractContextManager[None]]


def _nothing_around(changed: Changed) -> AbstractContextManager[None]:
    return nullcontext()


def extend_checkpoint(source: Path, folder: Path, added: Mapping[str, Knowledge]) -> None:
    """Write the checkpoint `source` as `folder` with more knowledge in it.

    All else is copied byte for byte.
    """
    core = manifest_of(source)["core"]["hash"]
    copy_checkpoint(source, folder, more={name: knowledge_file(name, kind, core) for name, kind in added.items()})


def list_knowledge(run: str | Path, flow: SharedFlow | None = None) -> list[dict[str, Any]]:
    """The knowledge types of a run or checkpoint folder, in order, from the folder alone.

    Each has

    - "name", "type", "plugin", "distribution", "version" (of what wrote it) and "arguments";
    - "parameters" (how many), "characteristics" (the dimension of C), "presence_prior" (p(κ=1)) and "implies";
    - "core" (the hash of the shared flow that it was trained with), "bytes" and "sha256" of its file;
    - "state" ("ok", or "opaque" where it is kept but cannot be used here) and "reason" (why it is opaque, else "").

    What an opaque one does not tell is None.
    """
    stored = read_stored(checkpoint_in(run))
    model = model_of(stored, flow)
    known = stored.manifest["knowledge"].items()
    return [_listed(model, name, entry, size=len(stored.file(entry))) for name, entry in known]


def export_knowledge(run: str | Path, names: str | Sequence[str], to: str | Path = ".") -> list[Path]:
    """Write knowledge types of a run or checkpoint folder as files of their own.

    Returns the files' paths.

    to: a folder, made if need be, that gets a NAME.safetensors for each; or, for one of them, the file to write, which
    ends in .safetensors. Knowledge whose plugin is not installed here is exported as it came. Raises `TzkError` for an
    unknown name, a damaged file, knowledge that was built in Python, and a file that is there already; then nothing
    is written.
    """
    stored, to = read_stored(checkpoint_in(run)), Path(to)
    chosen = {name: _entry(stored.manifest, name, run) for name in _distinct(names)}
    single = to.suffix == SUFFIX and not to.is_dir()
    if single and len(chosen) > 1:
        raise TzkError(f"{to} is one file, which holds one knowledge type: name a folder for {len(chosen)} of them")
    files = {name: to if single else to / f"{name}{SUFFIX}" for name in chosen}
    content = {}
    for name, entry in chosen.items():
        if entry["part"] is None:
            raise TzkError(
                f"knowledge type {name!r} was built in Python, not by a name, so that no other run could build it "
                "again: register its class in a plugin, and train it by that name"
            )
        content[name] = KnowledgeFile(name, entry, stored.file(entry)).sealed()
    for file in files.values():
        if os.path.lexists(file):
            raise TzkError(f"{file} is there already, and nothing is overwritten: name another place, or delete it")
    for name, file in files.items():
        _write(file, content[name])
    return list(files.values())


def import_knowledge(
    run: str | Path,
    files: str | Path | Sequence[str | Path],
    name: str | None = None,
    *,
    out: str | Path | None = None,
    flow: SharedFlow | None = None,
    around: Around = _nothing_around,
) -> Changed:
    """Put exported knowledge types into a run or checkpoint folder.

    With `out`, they go into a new checkpoint folder there.

    name: what to call it here, for one file. around: gives the context in which the checkpoint is replaced, once all is
    checked. That is as a whole, and it holds no state of a training then. Raises `TzkError`, before anything is
    written, for a file that is no export or was altered, and knowledge of another shared flow. So it does for a plugin
    that is not installed, and a name that is taken or that would imply itself.
    """
    folder = checkpoint_in(run)
    paths = [files] if isinstance(files, str | Path) else list(files)
    if name is not None and len(paths) != 1:
        raise TzkError(f"a name is for one file: got {len(paths)} files to be called {name!r}")
    stored = read_stored(folder)
    model, manifest = model_of(stored, flow), stored.manifest
    taken = {key(each): each for each in manifest["knowledge"]}
    more: dict[str, tuple[Mapping[str, Any], bytes]] = {}
    for path in map(Path, paths):
        file = parse_export(_content(path), path)
        file = file if name is None else file.renamed(name)
        if other := taken.get(key(file.name)):
            raise TzkError(
                f"{path} holds knowledge {file.name!r}, and {run} has one called {other!r} already: give it another "
                "name with --as (in Python, name=...), or remove the other first"
            )
        taken[key(file.name)] = file.name
        kind = _usable(file, path, model, run=run, core=manifest["core"]["hash"])
        try:
            model.add(file.name, kind)
        except TzkError as error:
            raise TzkError(f"{path}: {error}; --as gives it a name (in Python, name=...)") from error
        more[file.name] = file.entry, file.content
    for each in more:
        if each in model.knowledge.implied_by(each):
            raise TzkError(f"knowledge {each!r} would imply itself in {run}: give it another name with --as")
    warnings = [
        f"{each!r} implies {implied!r}, which {run} does not have: import that too if you can"
        for each in more
        for implied in model.find(each).implies
        if implied not in manifest["knowledge"] and implied not in more
    ]
    changed = Changed(tuple(more), manifest["core"]["hash"], tuple(warnings))
    with around(changed):
        return _copied(folder, out, changed, trained="trainer" in manifest, more=more)


def remove_knowledge(
    run: str | Path,
    names: str | Sequence[str],
    out: str | Path | None = None,
    *,
    around: Around = _nothing_around,
) -> Changed:
    """Take knowledge types out of a run or checkpoint folder.

    With `out`, they are left out of a new checkpoint folder there.

    The files of all others stay as they are, byte for byte. The checkpoint is replaced as a whole, and holds no state
    of a training then. Needs no plugin. around: as in `import_knowledge`. Raises `TzkError` for an unknown name, before
    anything is written.
    """
    folder = checkpoint_in(run)
    manifest = manifest_of(folder)
    removed = _distinct(names)
    for name in removed:
        _entry(manifest, name, run)
    warnings = [
        f"{name!r} implies {implied!r}, which is gone: it counts as known by itself from now on"
        for name, entry in manifest["knowledge"].items()
        for implied in entry["implies"]
        if name not in removed and implied in removed
    ]
    changed = Changed(tuple(removed), manifest["core"]["hash"], tuple(warnings))
    with around(changed):
        return _copied(folder, out, changed, trained="trainer" in manifest, without=removed)


def _copied(folder: Path, out: str | Path | None, changed: Changed, *, trained: bool, **difference: Any) -> Changed:
    """Write the changed checkpoint.

    Args:
        trained: whether the old one could go on.

    Returns:
        `changed` with what is lost by it.
    """
    if out is not None and os.path.lexists(out):
        raise TzkError(f"{out} is there already, and nothing is overwritten: name a new folder")
    if out is not None or folder.name != BEST:
        copy_checkpoint(folder, folder if out is None else Path(out), **difference)
    else:  # neither checkpoint of the run fits its training any more: the changed one takes the place of both
        copy_checkpoint(folder, folder.with_name(LAST), **difference)
        atomic.remove_folder(folder)
    if not trained:
        return changed
    left = "the state of the training (optimiser, multipliers) does not fit any more and was left out: no resuming it"
    return Changed(changed.knowledge, changed.core, (*changed.warnings, left))


def _usable(file: KnowledgeFile, path: Path, model: TzK, *, run: str | Path, core: str) -> Knowledge:
    if file.entry["core"] != core:
        raise TzkError(
            f"{path} does not fit {run}: {file.name!r} was trained with the shared flow {file.entry['core'][:SHORT]}, "
            f"and that of {run} is {core[:SHORT]}. These are hashes of its weights, base and preprocessing; what a "
            "knowledge type knows is about the latents of one shared flow, and means nothing to another of the same "
            "shape. Import it into a run with its own shared flow, or train such knowledge here"
        )
    kind = load_knowledge(file.name, file.entry, file.content, latent_shape=model.latent_shape, where=path)
    if isinstance(kind, OpaqueKnowledge):
        raise TzkError(f"{path} cannot be imported: {kind.reason}")
    return kind


def _listed(model: TzK, name: str, entry: Mapping[str, Any], *, size: int) -> dict[str, Any]:
    kind = dict(model.named_knowledge()).get(name)
    part = entry["part"] or {}
    home = home_of(part) if part else None
    arguments = part.get("arguments", {})
    present = None if kind is None else kind.log_prob_presence().present.exp().item()
    return {
        "name": name,
        "type": part.get("name"),
        "plugin": home.plugin if home else None,
        "distribution": home.distribution if home else None,
        "version": part.get("version"),
        "arguments": dict(arguments),
        "parameters": None if kind is None else sum(parameter.numel() for parameter in kind.parameters()),
        "characteristics": arguments.get("characteristics") if kind is None else kind.characteristics,
        "presence_prior": present,
        "implies": list(entry["implies"]),
        "core": entry["core"],
        "bytes": size,
        "sha256": entry["sha256"],
        "state": "opaque" if kind is None else "ok",
        "reason": model.opaque[name].reason if kind is None else "",
    }


def _entry(manifest: Mapping[str, Any], name: str, run: str | Path) -> Mapping[str, Any]:
    known = manifest["knowledge"]
    if name not in known:
        suggestion = nearest(name, known) or (f"; there is {', '.join(map(repr, known))}" if known else "; it has none")
        raise TzkError(f"{run} has no knowledge type {name!r}{suggestion}")
    return known[name]


def _distinct(names: str | Iterable[str]) -> list[str]:
    return list(dict.fromkeys([names] if isinstance(names, str) else names))


def _content(path: Path) -> bytes:
    try:
        check_regular(path)
        return path.read_bytes()
    except FileNotFoundError:
        there = nearest(path.name, [each.name for each in path.parent.glob(f"*{SUFFIX}")])
        raise TzkError(f"there is no file {path}{there}") from None
    except OSError as error:
        raise TzkError(f"{path} cannot be read: {error.strerror}") from None


def _write(path: Path, content: bytes) -> None:
    try:
        atomic.write(path, content)
    except OSError as error:
        raise TzkError(f"{path} cannot be written: {error.strerror}") from None
