"""Checkpoints: one file a knowledge type, a manifest with hashes, replaced as a whole (DESIGN of a run folder).

    checkpoint/
      manifest.json  core.safetensors  knowledge/NAME.safetensors  trainer.pt

A checkpoint is written beside the last one and renamed. The one moment between two renames in which there is none by
the name is repaired by the next reader, so that a kill at any time leaves the last good one.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from tzk_core import names as naming
from tzk_core.build import rebuild_flow, rebuild_knowledge
from tzk_core.errors import TzkError
from tzk_core.knowledge import Knowledge
from tzk_core.model import SharedFlow, TzK
from tzk_core.parts import FlowParts, Part
from tzk_core.plugins import (
    FlowLayer,
    FlowRecipe,
    KnowledgeType,
    MissingPlugin,
    PartNotLoadable,
    Spec,
    UnknownPart,
    registry,
)
from tzk_core.training.copies import copy_around

FORMAT = 1
CORE = "core.safetensors"


@dataclass(frozen=True)
class OpaqueKnowledge:
    """A knowledge type that cannot be used here, most often since its plugin is not installed: its file and its entry
    of the manifest, kept as they came."""

    file: bytes
    entry: Mapping[str, Any]
    reason: str


def save_checkpoint(
    model: TzK, folder: Path, trainer: Mapping[str, Any] | None = None, half: bool = False
) -> None:
    """Writes the model, and the state of its training if given, as `folder`, replacing what was there as a whole.

    half: float32 tensors whose every value float16 has exactly are written so, as `packing` makes them. They are read
    as float32 again, and hashes are those of float32.
    """
    core = core_hash(model.flow)
    with _replacing(Path(folder)) as fresh:
        manifest: dict[str, Any] = {
            "format": FORMAT,
            "core": {
                "hash": core,
                "parts": model.flow.parts.to_json() if model.flow.parts else None,
                **_write(fresh, CORE, save_tensors(_stored(model.flow, half))),
            },
            "knowledge": {},
        }
        for name, kind in model.named_knowledge():
            entry, file = knowledge_file(name, kind, core, half)
            manifest["knowledge"][name] = {**entry, **_write(fresh, _file_of(name), file)}
        for name, opaque in model.opaque.items():
            manifest["knowledge"][name] = {**opaque.entry, **_write(fresh, _file_of(name), opaque.file)}
        if trainer is not None:
            state = io.BytesIO()
            torch.save(dict(trainer), state)
            manifest["trainer"] = _write(fresh, "trainer.pt", state.getvalue())
            if "step" in trainer:
                manifest["trainer"]["step"] = trainer["step"]
        _write(fresh, "manifest.json", json.dumps(manifest, indent=1).encode())


def copy_checkpoint(
    source: Path,
    folder: Path,
    without: Collection[str] = (),
    more: Mapping[str, tuple[Mapping[str, Any], bytes]] | None = None,
) -> None:
    """Writes the checkpoint `source` as `folder`, which may be the same, with other knowledge in it.

    without: names of knowledge to leave out. more: by name, the entry and the file of knowledge to put in. All other
    files stay as they are, byte for byte, but for the state of the training, which no longer fits and is left out.
    Raises `TzkError` naming a file that is missing, truncated or altered; then nothing has changed.
    """
    manifest = read_manifest(source)
    manifest.pop("trainer", None)
    with _replacing(Path(folder)) as fresh:
        manifest["core"] |= _write(fresh, CORE, read_file(source, manifest["core"]))
        for name in without:
            del manifest["knowledge"][name]
        for name, entry in manifest["knowledge"].items():
            _write(fresh, _file_of(name), read_file(source, entry))
        for name, (entry, file) in (more or {}).items():
            manifest["knowledge"][name] = {**entry, **_write(fresh, _file_of(name), file)}
        _write(fresh, "manifest.json", json.dumps(manifest, indent=1).encode())


def load_checkpoint(folder: Path, flow: SharedFlow | None = None) -> TzK:
    """The model of a checkpoint, on the CPU. Raises `TzkError` naming a file that is missing, truncated or altered.

    A shared flow that was built in Python, not by names, has to be given as `flow`, with weights of any value; one that
    was built by names is built by them again. A
    knowledge type whose plugin is missing is kept in `model.opaque`; a missing part of the flow is an error that says
    which distribution to install.
    """
    folder, manifest = Path(folder), read_manifest(folder)
    parts = FlowParts.from_json(manifest["core"]["parts"]) if manifest["core"]["parts"] else None
    where = folder / manifest["core"]["file"]
    state = _parse(read_file(folder, manifest["core"]), where)
    if parts is not None:
        state = upgraded_flow(parts, state, folder)
    if parts is not None:
        flow = rebuild_flow(parts)
    if flow is None:
        raise TzkError(f"the flow in {folder} was built in Python: pass it, tzk_core.load(path, flow=...)")
    _load_state(flow, state, where)
    model = TzK(flow)
    alike: dict[str, Knowledge] = {}
    for name, entry in manifest["knowledge"].items():
        file = read_file(folder, entry)
        if entry["core"] != manifest["core"]["hash"]:
            reason = f"knowledge type {name!r} was trained with another shared flow than the one in {folder}"
            model.opaque[name] = OpaqueKnowledge(file, dict(entry), reason)
            continue
        built = json.dumps(entry["part"], sort_keys=True)
        kind = load_knowledge(name, entry, file, model.latent_shape, folder / entry["file"], alike.get(built))
        if isinstance(kind, OpaqueKnowledge):
            model.opaque[name] = kind
        else:
            alike.setdefault(built, kind)
            model.add(name, kind)
    return model


def load_knowledge(
    name: str,
    entry: Mapping[str, Any],
    file: bytes,
    latent_shape: tuple[int, ...],
    where: Path,
    like: Knowledge | None = None,
) -> Knowledge | OpaqueKnowledge:
    """The knowledge type in `file`, or, where its plugin does not work here, the file as it is and why.

    like: one that was loaded for the same part and latent shape: a thousand are read sooner than built anew.
    """
    if entry["part"] is None:
        return OpaqueKnowledge(file, dict(entry), f"knowledge type {name!r} was built in Python, not by a name")
    part = Part.from_json(entry["part"])
    if like is not None and like.part == part:
        tensors = _parse(file, where)
        _check_state(like, tensors, where)
        kind = copy_around(like, {key: tensor.clone() for key, tensor in tensors.items()})
        kind.describe_as(implies=entry["implies"])
        return kind
    try:
        registry().find(KnowledgeType, part.qualified_name).load()
    except (UnknownPart, PartNotLoadable, MissingPlugin) as error:
        reason = f"knowledge type {name!r} needs {part.distribution} {part.version} ({error})"
        return OpaqueKnowledge(file, dict(entry), reason)
    kind = rebuild_knowledge(part, latent_shape, name=name)
    if part.state_version > kind.state_version:
        written = f"{part.distribution} {part.version}"
        reason = f"knowledge type {name!r} was written by {written}: install that or a later one"
        return OpaqueKnowledge(file, dict(entry), reason)
    state = _parse(file, where)
    if part.state_version < kind.state_version:
        state = kind.upgrade(state, part.state_version)
    _load_state(kind, state, where)
    kind.describe_as(implies=entry["implies"])
    return kind


def load_trainer(folder: Path) -> dict[str, Any]:
    """The state of the training at this checkpoint. Raises `TzkError` if there is none."""
    manifest = read_manifest(folder)
    if "trainer" not in manifest:
        raise TzkError(f"{folder} holds a model without the state of its training: it cannot be resumed")
    path = Path(folder) / manifest["trainer"]["file"]
    _checked(path, manifest["trainer"]["sha256"])
    return torch.load(path, map_location="cpu", weights_only=True)  # one written on a GPU opens without


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a checkpoint, after repairing an interrupted replacement."""
    folder = Path(folder)
    _repair(folder)
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
        damaged = damaged or any(naming.problem(name) or entry["file"] != _file_of(name) for name, entry in knowledge)
    except (KeyError, TypeError, AttributeError):
        damaged = True
    if damaged:
        raise TzkError(f"{path} is damaged: it does not name the files of the model and their hashes")
    return manifest


def core_hash(flow: SharedFlow) -> str:
    """What two cores share if and only if knowledge can be moved between them: weights, base and preprocessing.

    Which version of a distribution they were built with does not matter, and neither does an argument that a part has
    gained since its first version, at the value that stands for what it did before.
    """
    parts = _without_versions(_as_first_written(flow.parts).to_json()) if flow.parts else None
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode())
    digest.update(repr((flow.shape, flow.latent_shape, type(flow.base).__name__)).encode())
    for name, tensor in sorted(_tensors(flow).items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def _as_first_written(parts: FlowParts) -> FlowParts:
    """The parts without arguments that they gained since, where these change nothing."""
    recipe = _without_gained(FlowRecipe, parts.recipe) if parts.recipe else None
    return replace(parts, recipe=recipe, layers=tuple(_without_gained(FlowLayer, part) for part in parts.layers))


def _without_gained(kind: type[Spec], part: Part) -> Part:
    """The part, and the layers in its arguments, without arguments at the value that stands for an older version."""
    try:
        target = registry().find(kind, part.qualified_name).load()
    except (UnknownPart, PartNotLoadable):
        return part
    upgrade = getattr(target, "upgrade_arguments", None)
    gained = upgrade({}, 1) if upgrade is not None else {}
    kept = {key: value for key, value in part.arguments.items() if key not in gained or value != gained[key]}
    return replace(part, arguments={key: _in_argument(value) for key, value in kept.items()})


def _in_argument(value: Any) -> Any:
    if isinstance(value, Part):
        return _without_gained(FlowLayer, value)
    if isinstance(value, Mapping):
        return {key: _in_argument(each) for key, each in value.items()}
    return [_in_argument(each) for each in value] if isinstance(value, list | tuple) else value


def check_same_flow(saved: SharedFlow, flow: SharedFlow, folder: Path) -> None:
    """Raises `TzkError` where a flow is not built as the one in `folder` is: equal weights would be another density."""
    recipes = [each.parts and each.parts.recipe for each in (saved, flow)]
    arguments = [dict(recipe.arguments) if recipe else {} for recipe in recipes]
    keys = sorted({*arguments[0], *arguments[1]})
    if differ := [key for key in keys if arguments[0].get(key) != arguments[1].get(key)]:
        said = ", ".join(f"{key} = {arguments[0].get(key)}, not {arguments[1].get(key)}" for key in differ)
        raise TzkError(f"the flow in {folder} has {said}: write that under [flow]")


def upgraded_flow(parts: FlowParts, state: dict[str, Tensor], folder: Path) -> dict[str, Tensor]:
    """The state dict of a shared flow as the installed versions of its parts read it.

    Raises `TzkError` naming the distributions to install where parts are missing, or older than what wrote the state.
    """
    outer = [("transform.", parts.recipe)] if parts.recipe else []
    outer += [(f"transform._transforms.{index}.", part) for index, part in enumerate(parts.layers)]
    missing: dict[str, str] = {}
    for prefix, whole in outer:
        for part in whole.within():
            try:
                target = registry().find(FlowRecipe if part is parts.recipe else FlowLayer, part.qualified_name).load()
            except (UnknownPart, PartNotLoadable) as error:
                missing[f"{part.distribution} {part.version}"] = str(error)
                continue
            version = getattr(target, "state_version", 1)
            if part.state_version > version:
                missing[f"{part.distribution} {part.version}"] = f"the installed {part.name!r} is older"
            elif part.state_version < version and part is whole:
                own = {key.removeprefix(prefix): state.pop(key) for key in list(state) if key.startswith(prefix)}
                upgraded = target.upgrade(own, part.state_version)
                state |= {prefix + key: tensor for key, tensor in upgraded.items()}
    if missing:
        raise TzkError(
            f"the shared flow in {folder} was built with {' and '.join(sorted(missing))}: install that "
            f"({'; '.join(missing.values())})"
        )
    return state


def knowledge_file(name: str, kind: Knowledge, core: str, half: bool = False) -> tuple[dict[str, Any], bytes]:
    """What the manifest says of a knowledge type, but for its file, and the file; `half` as in `save_checkpoint`."""
    entry = {"part": kind.part.to_json() if kind.part else None, "implies": list(kind.implies), "core": core}
    return entry, save_tensors(_stored(kind, half), metadata={"tzk": json.dumps({"name": name, **entry})})


def _tensors(module: torch.nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in module.state_dict().items()}


def _stored(module: torch.nn.Module, half: bool) -> dict[str, Tensor]:
    tensors = _tensors(module)
    for name, tensor in tensors.items() if half else ():
        if tensor.dtype == torch.float32 and torch.equal(tensor.half().float(), tensor):
            tensors[name] = tensor.half()
    return tensors


def _without_versions(value: Any) -> Any:
    if isinstance(value, dict):
        left_out = {"distribution", "version", "state_version"}
        kept = set(value) - left_out if left_out < set(value) else set(value)
        return {key: _without_versions(value[key]) for key in kept}
    return [_without_versions(each) for each in value] if isinstance(value, list | tuple) else value


def _load_state(module: torch.nn.Module, tensors: Mapping[str, Tensor], where: Path) -> None:
    module.to(next((tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()), None))
    _check_state(module, tensors, where)
    module.load_state_dict(tensors)


def _check_state(module: torch.nn.Module, tensors: Mapping[str, Tensor], where: Path) -> None:
    expected = {key: tuple(tensor.shape) for key, tensor in module.state_dict().items()}
    found = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
    wrong = [key for key in expected if found.get(key) != expected[key]] + [key for key in found if key not in expected]
    if wrong:
        shapes = [shapes.get(wrong[0], "no such tensor") for shapes in (expected, found)]
        raise TzkError(
            f"{where} does not fit the model: {len(wrong)} tensors differ, first {wrong[0]!r}, expected as "
            f"{shapes[0]}, found as {shapes[1]}. It was written for another model, or by another version of its parts"
        )


def _parse(file: bytes, where: Path) -> dict[str, Tensor]:
    try:
        tensors = load_tensors(file)
    except Exception as error:
        raise TzkError(f"{where} is not a readable safetensors file ({error})") from error
    return {name: tensor.float() if tensor.dtype == torch.float16 else tensor for name, tensor in tensors.items()}


def _file_of(name: str) -> str:
    return f"knowledge/{name}.safetensors"


def _write(folder: Path, name: str, content: bytes) -> dict[str, Any]:
    (folder / name).write_bytes(content)
    return {"file": name, "sha256": _sha256(content)}


def read_file(folder: Path, entry: Mapping[str, Any]) -> bytes:
    """The file that an entry of the manifest names. Raises `TzkError` if it is missing, truncated or altered."""
    return _checked(folder / entry["file"], entry["sha256"])


def _checked(path: Path, sha256: str) -> bytes:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise TzkError(f"{path} is missing from the checkpoint") from None
    if _sha256(content) != sha256:
        raise TzkError(f"{path} is truncated or altered: its sha256 is not that of the manifest")
    return content


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@contextmanager
def _replacing(folder: Path) -> Iterator[Path]:
    """A fresh folder, which takes the place of `folder` once the block is through; see `_repair` for a kill between
    the two renames."""
    _repair(folder)
    fresh = folder.with_name(folder.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    (fresh / "knowledge").mkdir(parents=True)
    try:
        yield fresh
        _settle(fresh)
    except (Exception, KeyboardInterrupt):
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    last = folder.with_name(folder.name + ".old")
    shutil.rmtree(last, ignore_errors=True)
    if folder.exists():
        folder.rename(last)
    fresh.rename(folder)
    shutil.rmtree(last, ignore_errors=True)


def _settle(folder: Path) -> None:
    """Waits until all files of a folder are on the disk: at once, since a thousand are written sooner so than each by
    itself."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb+") as file:
                os.fsync(file.fileno())


def _repair(folder: Path) -> None:
    last = folder.with_name(folder.name + ".old")
    if not folder.exists() and last.exists():
        last.rename(folder)
