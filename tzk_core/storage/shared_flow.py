"""The identity of a shared flow: its hash, and the versions of its parts.

Knowledge has to fit that hash.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tzk_core.errors import TzkError
from tzk_core.model import SharedFlow
from tzk_core.parts import FlowParts, Part
from tzk_core.plugins import Base, FlowLayer, FlowRecipe, PartNotLoadable, Registered, Spec, UnknownPart, registry
from tzk_core.plugins.isolation import isolated, worded
from tzk_core.storage import tensors


def core_hash(flow: SharedFlow) -> str:
    """A hash of weights, base and preprocessing.

    Two cores share it if and only if knowledge can be moved between them.

    The versions of the distributions that they were built with do not matter. Neither does an argument that a part has
    gained since its first version, at the value that stands for what it did before.
    """
    return _hash(flow, flow.parts, tensors.of(flow))


def check_core(flow: SharedFlow, parts: FlowParts | None, file: bytes, *, said: str, where: Path) -> None:
    """Raises `TzkError` unless the hash of a core is the one that its manifest names.

    flow: gives shapes and base. parts: as the manifest has them. file: the core's, at `where`.
    """
    states = (tensors.parse(file, where, half=half) for half in (False, True))  # a model of float16 is hashed as such
    if any(_hash(flow, parts, state) == said for state in states):
        return
    what = "the shared flow" if parts else "the shared flow, which was built in Python and passed,"
    raise TzkError(
        f"{where.parent}: {what} is not the one that was saved: the hash of its weights, base and preprocessing is not "
        "the one in manifest.json. The manifest was altered, or the base or shape of the flow is another one"
    )


def _hash(flow: SharedFlow, parts: FlowParts | None, state: Mapping[str, Tensor]) -> str:
    described = _without_versions(_as_first_written(parts).to_json()) if parts else None
    digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode())
    digest.update(repr((flow.shape, flow.latent_shape, type(flow.base).__name__)).encode())
    for name, tensor in sorted(state.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def check_same_flow(saved: SharedFlow, flow: SharedFlow, folder: Path) -> None:
    """Check that a flow is built as the one in `folder`.

    Equal weights would be another density otherwise. Raises `TzkError`.
    """
    if saved.parts and flow.parts:
        expected, got = _base_of(saved.parts), _base_of(flow.parts)
        if got != expected:
            raise TzkError(f"the flow in {folder} has the base {expected}, not {got}: write that under [flow]")
    recipes = [built.parts and built.parts.recipe for built in (saved, flow)]
    arguments = [dict(recipe.arguments) if recipe else {} for recipe in recipes]
    keys = sorted({*arguments[0], *arguments[1]})
    if differ := [key for key in keys if arguments[0].get(key) != arguments[1].get(key)]:
        listed = ", ".join(f"{key} = {arguments[0].get(key)}, not {arguments[1].get(key)}" for key in differ)
        raise TzkError(f"the flow in {folder} has {listed}: write that under [flow]")


def _base_of(parts: FlowParts) -> str:
    """The density of a latent, as a message has it."""
    base = parts.base
    return f"{base.qualified_name} {dict(base.arguments)}" if isinstance(base, Part) else base


def upgraded_flow(parts: FlowParts, state: dict[str, Tensor], folder: Path) -> dict[str, Tensor]:
    """The state dict of a shared flow, for the installed versions of its parts.

    Raises `TzkError` naming the distributions to install where parts are missing, or older than what wrote the state.
    """
    outer: list[tuple[str, type[Spec], Part]] = []
    outer += [("transform.", FlowRecipe, parts.recipe)] if parts.recipe else []
    outer += [(f"transform._transforms.{index}.", FlowLayer, part) for index, part in enumerate(parts.layers)]
    outer += [("base.", Base, parts.base)] if isinstance(parts.base, Part) else []
    missing: dict[str, str] = {}
    for prefix, spec_type, whole in outer:
        for part in whole.within():
            try:
                registered = registry().find(spec_type if part is whole else FlowLayer, part.qualified_name)
                target = registered.load()
            except (UnknownPart, PartNotLoadable) as error:
                missing[f"{part.distribution} {part.version}"] = str(error)
                continue
            version = getattr(target, "state_version", 1)
            if part.state_version > version:
                missing[f"{part.distribution} {part.version}"] = f"the installed {part.name!r} is older"
            elif part.state_version < version and part is whole:
                try:
                    state = _upgraded(state, prefix, registered, version=part.state_version)
                except TzkError as error:
                    missing[f"{part.distribution} {part.version}"] = str(error)
    if missing:
        raise TzkError(
            f"the shared flow in {folder} was built with {' and '.join(sorted(missing))}: install that "
            f"({'; '.join(missing.values())})"
        )
    return state


def _upgraded(state: dict[str, Tensor], prefix: str, part: Registered, *, version: int) -> dict[str, Tensor]:
    """A state dict, upgraded under `prefix` for the installed version of that part.

    Raises `TzkError` where its `upgrade` is missing, raises, or returns no state dict.
    """
    own = {key.removeprefix(prefix): tensor for key, tensor in state.items() if key.startswith(prefix)}
    rest = {key: tensor for key, tensor in state.items() if not key.startswith(prefix)}
    outcome = isolated(lambda: part.load().upgrade(own, version))
    what = f"the {part.spec.kind} {part.name!r} of the installed {part.distribution} {part.version} cannot take it"
    if outcome.error is not None:
        raise TzkError(f"{what}: its upgrade() raises {worded(outcome.error, part.package)}") from outcome.error
    if not isinstance(outcome.value, Mapping):
        raise TzkError(f"{what}: its upgrade() should return a state dict; got {type(outcome.value).__name__}")
    return rest | {prefix + key: tensor for key, tensor in outcome.value.items()}


def _as_first_written(parts: FlowParts) -> FlowParts:
    """The parts without arguments that they gained since, where these change nothing."""
    recipe = _without_gained(FlowRecipe, parts.recipe) if parts.recipe else None
    base = _without_gained(Base, parts.base) if isinstance(parts.base, Part) else parts.base
    return replace(
        parts, base=base, recipe=recipe, layers=tuple(_without_gained(FlowLayer, part) for part in parts.layers)
    )


def _without_gained(spec_type: type[Spec], part: Part) -> Part:
    """The part without arguments at the value that stands for an older version.

    So are the layers in its arguments.
    """
    try:
        target = registry().find(spec_type, part.qualified_name).load()
    except (UnknownPart, PartNotLoadable):
        return part
    upgrade = getattr(target, "upgrade_arguments", None)
    gained = isolated(lambda: upgrade({}, 1)).value if upgrade is not None else {}
    gained = gained if isinstance(gained, Mapping) else {}  # what needs arguments to be there has gained none
    rest = {key: value for key, value in part.arguments.items() if key not in gained or value != gained[key]}
    return replace(part, arguments={key: _in_argument(value) for key, value in rest.items()})


def _in_argument(value: Any) -> Any:
    if isinstance(value, Part):
        return _without_gained(FlowLayer, value)
    if isinstance(value, Mapping):
        return {key: _in_argument(item) for key, item in value.items()}
    return [_in_argument(item) for item in value] if isinstance(value, list | tuple) else value


def _without_versions(value: Any) -> Any:
    if isinstance(value, dict):
        left_out = {"distribution", "version", "state_version"}
        keys = set(value) - left_out if left_out < set(value) else set(value)
        return {key: _without_versions(value[key]) for key in keys}
    return [_without_versions(item) for item in value] if isinstance(value, list | tuple) else value
