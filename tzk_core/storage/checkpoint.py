"""Checkpoints: a file for each knowledge type, a manifest with hashes, replaced as a whole.

    checkpoint/
      manifest.json  core.safetensors  knowledge/NAME.safetensors  trainer.pt

From `manifest.TOGETHER_FROM` knowledge types on their files are one, knowledge.bin, and the manifest says where in it.

A checkpoint takes the place of the last one as `atomic.replaced_folder` has it: a kill at any time leaves a good one.
"""

from __future__ import annotations

import io
import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tzk_core.build import rebuild_flow, rebuild_knowledge
from tzk_core.errors import TzkError
from tzk_core.knowledge import Knowledge
from tzk_core.model import SharedFlow, TzK
from tzk_core.parts import FlowParts, Part
from tzk_core.plugins import KnowledgeType, MissingPlugin, PartNotLoadable, UnknownPart, registry
from tzk_core.plugins.builtin import BUILTIN
from tzk_core.plugins.isolation import isolated, worded
from tzk_core.storage import tensors
from tzk_core.storage.atomic import replaced_folder
from tzk_core.storage.clone import copy_around
from tzk_core.storage.knowledge_format import metadata_of
from tzk_core.storage.manifest import CORE, TRAINER, write_file, write_knowledge, write_manifest
from tzk_core.storage.shared_flow import check_core, core_hash, upgraded_flow
from tzk_core.storage.stored import Stored, read_stored, trainer_of


@dataclass(frozen=True)
class OpaqueKnowledge:
    """A knowledge type that cannot be used here.

    Most often its plugin is not installed. Its file and its entry of the manifest are kept as they came.
    """

    file: bytes
    entry: Mapping[str, Any]
    reason: str


def save_checkpoint(model: TzK, folder: Path, trainer: Mapping[str, Any] | None = None, *, half: bool = False) -> None:
    """Write the model, and the state of its training, as `folder`.

    What was there is replaced as a whole.

    half: float32 tensors whose every value float16 has exactly are written so, as `packing` makes them. They are read
    as float32 again, and hashes are those of float32.
    """
    core = core_hash(model.flow)
    with replaced_folder(Path(folder)) as fresh:
        core_file = write_file(fresh, CORE, tensors.written(tensors.stored(model.flow, half=half)))
        count = len(model.knowledge) + len(model.opaque)
        form, known = write_knowledge(fresh, _files_of(model, core, half=half), count)
        parts = model.flow.parts.to_json() if model.flow.parts else None
        core_entry = {"hash": core, "parts": parts, **core_file}
        manifest: dict[str, Any] = {"format": form, "core": core_entry, "knowledge": known}
        if trainer is not None:
            state = io.BytesIO()
            torch.save(dict(trainer), state)
            manifest["trainer"] = write_file(fresh, TRAINER, state.getvalue())
            if "step" in trainer:
                manifest["trainer"]["step"] = trainer["step"]
        write_manifest(fresh, manifest)


def copy_checkpoint(
    source: Path,
    folder: Path,
    *,
    without: Collection[str] = (),
    more: Mapping[str, tuple[Mapping[str, Any], bytes]] | None = None,
) -> None:
    """Write the checkpoint `source` as `folder` with other knowledge in it.

    Both may be the same folder.

    without: names of knowledge to leave out. more: by name, the entry and the file of knowledge to put in. All other
    files stay as they are, byte for byte, but for the state of the training, which no longer fits and is left out.
    Raises `TzkError` naming a file that is missing, truncated or altered; then nothing has changed.
    """
    stored = read_stored(source, without=without)
    manifest = {key: value for key, value in stored.manifest.items() if key != "trainer"}
    known = manifest["knowledge"].items()
    files = [(name, entry, stored.file(entry)) for name, entry in known if name not in without]
    files += [(name, entry, file) for name, (entry, file) in (more or {}).items()]
    with replaced_folder(Path(folder)) as fresh:
        write_file(fresh, CORE, stored.file(manifest["core"]))
        form, entries = write_knowledge(fresh, files, len(files))
        write_manifest(fresh, manifest | {"format": form, "knowledge": entries})


def load_checkpoint(folder: Path, flow: SharedFlow | None = None) -> TzK:
    """The model of a checkpoint, on the CPU.

    A shared flow that was built in Python, not by names, has to be supplied as `flow`, with weights of any value. One
    that was built by names is built by them again. A knowledge type whose plugin is missing is kept in `model.opaque`.
    Raises `TzkError` naming a file that is missing, truncated or altered; for a missing part of the flow it says which
    distribution to install.
    """
    return model_of(read_stored(folder), flow)


def model_of(stored: Stored, flow: SharedFlow | None = None) -> TzK:
    """The model of a checkpoint that was read; `load_checkpoint` says more."""
    folder, manifest = stored.folder, stored.manifest
    model = TzK(load_flow(stored, flow))
    alike: dict[str, Knowledge] = {}
    for name, entry in manifest["knowledge"].items():
        file = stored.file(entry)
        if entry["core"] != manifest["core"]["hash"]:
            reason = f"knowledge type {name!r} was trained with another shared flow than the one in {folder}"
            model.opaque[name] = OpaqueKnowledge(file, dict(entry), reason)
            continue
        built = json.dumps(entry["part"], sort_keys=True)
        where, like = folder / entry["file"], alike.get(built)
        kind = load_knowledge(name, entry, file, latent_shape=model.latent_shape, where=where, like=like)
        if isinstance(kind, OpaqueKnowledge):
            model.opaque[name] = kind
        else:
            alike.setdefault(built, kind)
            model.add(name, kind)
    return model


def load_flow(stored: Stored, flow: SharedFlow | None) -> SharedFlow:
    """The shared flow of a checkpoint: built by names, or `flow` with its weights."""
    folder, entry = stored.folder, stored.manifest["core"]
    where = folder / entry["file"]
    state, parts = tensors.parse(stored.file(entry), where), None
    tensors.check_finite(state, where)
    if entry["parts"]:
        parts = FlowParts.from_json(entry["parts"])
        state = upgraded_flow(parts, state, folder)
        with tensors.no_larger_than(state, where):
            flow = rebuild_flow(parts)
    if flow is None:
        raise TzkError(f"the flow in {folder} was built in Python: pass it, tzk_core.load(path, flow=...)")
    check_core(flow, parts, stored.file(entry), said=entry["hash"], where=where)
    tensors.load_into(flow, state, where)
    return flow


def load_knowledge(
    name: str,
    entry: Mapping[str, Any],
    file: bytes,
    *,
    latent_shape: tuple[int, ...],
    where: Path,
    like: Knowledge | None = None,
) -> Knowledge | OpaqueKnowledge:
    """The knowledge type in `file`.

    Where its plugin does not work here, the file as it is, with the reason.

    entry: what the manifest says of it. where: what errors call the file. like: one that was loaded for the same part
    and latent shape: a thousand are copied sooner than built anew.
    """
    alike = like is not None and entry["part"] is not None and like.part == Part.from_json(entry["part"])
    if not alike and (reason := unusable(name, entry)) is not None:
        return OpaqueKnowledge(file, dict(entry), reason)
    part = Part.from_json(entry["part"])
    state = tensors.parse(file, where)
    if (reason := why_not_finite(name, state)) is not None:
        return OpaqueKnowledge(file, dict(entry), reason)
    if like is not None and alike:
        tensors.check(like, state, where)
        kind = copy_around(like, {key: tensor.clone() for key, tensor in state.items()})
    else:
        try:
            kind = _rebuilt(name, part, state, latent_shape=latent_shape, where=where)
        except Incompatible as error:
            return OpaqueKnowledge(file, dict(entry), str(error))
    kind.describe_as(implies=entry["implies"])
    return kind


def why_not_finite(name: str, state: Mapping[str, Tensor]) -> str | None:
    """Why a knowledge type cannot be used, by the tensors of its file; or None."""
    lost = tensors.not_finite(state)
    return f"knowledge type {name!r} holds nan or infinity, in {lost!r}: train it again" if lost else None


def unusable(name: str, entry: Mapping[str, Any]) -> str | None:
    """Why a knowledge type cannot be used here, by its entry; or None."""
    if entry["part"] is None:
        return f"knowledge type {name!r} was built in Python, not by a name"
    part = Part.from_json(entry["part"])
    try:
        registry().find(KnowledgeType, part.qualified_name).load()
    except (UnknownPart, PartNotLoadable, MissingPlugin) as error:
        return f"knowledge type {name!r} needs {part.distribution} {part.version} ({error})"
    return None


class Incompatible(TzkError):
    """A knowledge type cannot be used with what is installed here."""


def _rebuilt(
    name: str, part: Part, state: dict[str, Tensor], *, latent_shape: tuple[int, ...], where: Path
) -> Knowledge:
    """The knowledge type that a part describes, with the tensors of its file.

    Raises `Incompatible` where its plugin is missing, or cannot take what its other version has written. What the
    core's own types cannot take was altered, and is an error as it is.
    """
    try:
        registered = registry().find(KnowledgeType, part.qualified_name)
        registered.load()
    except (UnknownPart, PartNotLoadable, MissingPlugin) as error:
        raise Incompatible(f"knowledge type {name!r} needs {part.distribution} {part.version} ({error})") from error
    with tensors.no_larger_than(state, where):
        if part.plugin in BUILTIN:
            return _filled(name, part, state, latent_shape=latent_shape, where=where)
        outcome = isolated(lambda: _filled(name, part, state, latent_shape=latent_shape, where=where))
    if (raised := outcome.error) is None:
        return outcome.value
    if isinstance(raised, Incompatible):
        raise raised
    reason = str(raised) if isinstance(raised, TzkError) else worded(raised, registered.package)
    raise Incompatible(
        f"knowledge type {name!r} of plugin {part.plugin!r} was saved with {part.distribution} {part.version}, and the "
        f"installed {registered.distribution} {registered.version} cannot take it: {reason}"
    ) from raised


def _filled(
    name: str, part: Part, state: dict[str, Tensor], *, latent_shape: tuple[int, ...], where: Path
) -> Knowledge:
    knowledge = rebuild_knowledge(part, latent_shape, name=name)
    if part.state_version > knowledge.state_version:
        written = f"{part.distribution} {part.version}"
        raise Incompatible(f"knowledge type {name!r} was written by {written}: install that or a later one")
    if part.state_version < knowledge.state_version:
        state = _upgraded(knowledge, state, part.state_version)
    tensors.load_into(knowledge, state, where)
    return knowledge


def _upgraded(kind: Knowledge, state: dict[str, Tensor], version: int) -> dict[str, Tensor]:
    """A state dict of an older version, upgraded by its class."""
    upgraded = kind.upgrade(dict(state), version)
    if not isinstance(upgraded, Mapping):
        raise TzkError(
            f"{type(kind).__name__}.upgrade should return the state dict of version {kind.state_version} from one of "
            f"version {version}; got {type(upgraded).__name__}"
        )
    return dict(upgraded)


def load_trainer(folder: Path) -> dict[str, Any]:
    """The state of the training at this checkpoint. Raises `TzkError` if there is none."""
    return trainer_of(folder).trainer()


def knowledge_file(name: str, kind: Knowledge, core: str, *, half: bool = False) -> tuple[dict[str, Any], bytes]:
    """The file of a knowledge type, and its entry in the manifest.

    Args:
        half: as in `save_checkpoint`.

    Returns:
        The entry, but for what it says of the file, and the file.
    """
    entry = {"part": kind.part.to_json() if kind.part else None, "implies": list(kind.implies), "core": core}
    return entry, tensors.written(tensors.stored(kind, half=half), metadata_of(name, entry))


def _files_of(model: TzK, core: str, *, half: bool) -> Iterator[tuple[str, Mapping[str, Any], bytes]]:
    """Of each knowledge type its name, what the manifest says of it, and its file."""
    for name, kind in model.named_knowledge():
        yield (name, *knowledge_file(name, kind, core, half=half))
    for name, opaque in model.opaque.items():
        yield name, opaque.entry, opaque.file
