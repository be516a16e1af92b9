"""Plugins' implementations for a type of device, in the place of layers.

Fused kernels are such.

An implementation that cannot be used, for whatever reason, costs speed and no run: its layers compute as they are.
"""

from __future__ import annotations

import inspect
import warnings
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from tzk_core.errors import Note, TzkError
from tzk_core.plugins import FlowLayer, Implementation, PartNotLoadable, Registered, UnknownPart, registry
from tzk_core.plugins.isolation import isolated, worded
from tzk_core.transforms.composite import Composite, Run

_failures: dict[Any, str] = {}
"""Targets that failed in the place of a layer, and how."""

_noted: set[str] = set()
"""Faults that were said, each once."""


@dataclass(frozen=True)
class Offer:
    """An implementation of one layer or several in a row, and why it is unused.

    reason: "" where it is used. fault: whether that is something to put right.
    target, layers: its class and those of the layers, where it is used.
    """

    part: Registered
    spec: Implementation
    reason: str = ""
    fault: bool = False
    target: Any = None
    layers: tuple[type, ...] = ()

    def described(self) -> dict[str, Any]:
        """For run.json and `tzk doctor`."""
        return {
            "name": self.part.qualified_name,
            "distribution": self.part.distribution,
            "version": self.part.version,
            "layer": self.spec.layer,
            "device": self.spec.device,
            "used": not self.reason,
            "reason": self.reason,
        }


def use_implementations(module: nn.Module, device: str) -> None:
    """Replace, within `module`, whatever has an implementation that is usable on `device`.

    A single layer is replaced by one that is built with its arguments and takes over its parameters and buffers
    themselves. So the state dict stays as it is, and an optimiser goes on. An implementation with a `from_layer` is
    made from the layer itself by that, whoever built it; None leaves the layer.

    Several layers in a row of a `Composite` stay where they are; the composite computes them at once (`Run`). Where an
    implementation cannot be imported, has other arguments or parameters than its layer, or is one of several, the
    layer stays, with a `Note`.
    """
    offered = _offers(device)
    used = [offer for offer in offered if not offer.reason]
    runs = sorted((offer for offer in used if len(offer.layers) > 1), key=lambda offer: -len(offer.layers))
    in_runs: set[int] = set()
    for composite in module.modules():
        if isinstance(composite, Composite):
            composite.runs = _runs(list(composite._transforms), runs)
            in_runs |= {id(layer) for run in composite.runs for layer in composite.layers_of(run)}
    _replace_alone(module, {offer.layers[0]: offer for offer in used if len(offer.layers) == 1}, besides=in_runs)
    for offer in map(_as_tried, offered):
        if offer.fault and offer.reason not in _noted:
            _noted.add(offer.reason)
            name = f"the implementation {offer.part.qualified_name!r} ({offer.part.distribution} {offer.part.version})"
            warnings.warn(Note(f"{name} is not used, and layers compute as they are: {offer.reason}"), stacklevel=2)


def _replace_alone(module: nn.Module, offered: Mapping[type, Offer], *, besides: Collection[int]) -> None:
    """Replace single layers by their type, wherever they are.

    A layer in several places stays one.

    Args:
        besides: ids of layers that stay.
    """
    made: dict[int, nn.Module | None] = {}
    for parent in list(module.modules()) if offered else []:
        for name, layer in list(parent._modules.items()):
            if layer is None or type(layer) not in offered or id(layer) in besides:
                continue
            if id(layer) not in made:
                made[id(layer)] = _in_place_of(layer, offered[type(layer)])
            if (fresh := made[id(layer)]) is not None:
                setattr(parent, name, fresh)


def offers() -> list[Offer]:
    """Every implementation that plugins offer, whether it is used on its device and why not.

    Raises nothing: one that is broken, or for a device that is not here, has that as its reason.
    """
    found = [_as_tried(offer) for offer in _offers()]
    return [offer if offer.reason else replace(offer, reason=_absent(offer.spec.device)) for offer in found]


def places(module: nn.Module, device: str) -> dict[str, int]:
    """By implementation ("plugin/name"), in how many places of a module it computes on `device`."""
    counts: Counter[str] = Counter()
    used = {offer.target: offer.part.qualified_name for offer in _offers(device) if not offer.reason}
    for layer in module.modules():
        if isinstance(layer, Composite):
            counts.update(name for run in layer.runs for name in run.names)
        elif type(layer) in used:
            counts[used[type(layer)]] += 1
    return dict(counts)


def _offers(device: str | None = None) -> list[Offer]:
    """The offers for a type of device, or for all.

    Of several usable ones for the same layers, none is used.
    """
    parts = [(part, part.spec) for part in registry().all(Implementation) if isinstance(part.spec, Implementation)]
    found = [_offer(part, spec) for part, spec in parts if device in (None, spec.device)]
    usable: dict[tuple[str, tuple[type, ...]], list[str]] = {}
    for offer in found:
        if not offer.reason:
            usable.setdefault((offer.spec.device, offer.layers), []).append(offer.part.qualified_name)
    return [_unless_one_of_several(offer, usable.get((offer.spec.device, offer.layers), [])) for offer in found]


def _unless_one_of_several(offer: Offer, usable: Sequence[str]) -> Offer:
    if offer.reason or len(usable) < 2:
        return offer
    listed = " and ".join(map(repr, usable))
    what = f"{offer.spec.layer!r} on {offer.spec.device!r}"
    reason = f"{what} has several implementations, {listed}: name the plugins to use in TZK_PLUGINS"
    return replace(offer, reason=reason, fault=True)


def _offer(part: Registered, spec: Implementation) -> Offer:
    try:
        classes = tuple(registry().find(FlowLayer, name).load() for name in spec.layer.split())
    except (UnknownPart, PartNotLoadable) as error:
        return Offer(part, spec, str(error))  # nothing can have been built from this layer
    try:
        target = part.load()
    except PartNotLoadable as error:
        return Offer(part, spec, str(error), fault=True)
    if fault := _constructor_fault(target, classes):
        return Offer(part, spec, fault, fault=True)
    unusable = getattr(target, "unusable", None)
    outcome = isolated(lambda: unusable(spec.device) if unusable else "")
    if (raised := outcome.error) is not None:
        own = isinstance(raised, TzkError)
        reason = str(raised) if own else f"its unusable() raises {worded(raised, part.package)}"
        return Offer(part, spec, reason, fault=True)
    reason = outcome.value or ""
    if not isinstance(reason, str):
        reason = f"its unusable() should return a text, '' where it can be used; got {type(reason).__name__}"
        return Offer(part, spec, reason, fault=True)
    return Offer(part, spec, reason, target=target, layers=classes)


def _constructor_fault(target: Any, layers: Sequence[type]) -> str:
    """Why a target cannot be built with the arguments of its layer; "" if it can.

    Of several layers, it is built with no arguments.
    """
    try:
        signature = inspect.signature(target)
        taken = inspect.signature(layers[0]).parameters if len(layers) == 1 else {}
    except (TypeError, ValueError):  # written in C
        return ""
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    names = [name for name, parameter in taken.items() if parameter.kind not in variadic]
    try:
        signature.bind(**dict.fromkeys(names))
    except TypeError as error:
        return f"its constructor should take {', '.join(names) or 'no arguments'}, as its layer's does: {error}"
    return ""


def _as_tried(offer: Offer) -> Offer:
    """The offer with the reason why it failed in the place of a layer.

    It is unchanged if it did not fail.
    """
    failed = _failures.get(offer.target, "") if offer.target is not None else ""
    return replace(offer, reason=failed, fault=True) if failed and not offer.reason else offer


def _absent(device: str) -> str:
    """That there is no such device here; "" if there is, or nobody can tell."""
    available = getattr(getattr(torch, device, None), "is_available", None)
    return "" if available is None or available() else f"torch finds no {device} device here"


def _runs(layers: Sequence[nn.Module], offered: Sequence[Offer]) -> tuple[Run, ...]:
    """From the first layer on, the first of `offered` that fits what follows."""
    types = [type(layer) for layer in layers]
    runs: list[Run] = []
    at = 0
    while at < len(types):
        fitting = [offer for offer in offered if tuple(types[at : at + len(offer.layers)]) == offer.layers]
        made = [(offer, fused) for offer in fitting if (fused := _tried(offer, offer.target)) is not None]
        if made:
            first, fused = made[0]
            runs.append(Run(at, at + len(first.layers), fused, (first.part.qualified_name,)))
        at = runs[-1].stop if made else at + 1
    join = getattr(runs[0].fused, "joined", None) if runs else None
    return join(layers, runs) if join else tuple(runs)


def _tried(offer: Offer, make: Any) -> Any:
    """The result of `make()`; None where it fails.

    The failure is the reason of the offer from then on.
    """
    if offer.target in _failures:
        return None
    outcome = isolated(make)
    if outcome.error is None:
        return outcome.value
    own = isinstance(outcome.error, TzkError)
    _failures[offer.target] = str(outcome.error) if own else worded(outcome.error, offer.part.package)
    return None


def _in_place_of(layer: nn.Module, found: Offer) -> nn.Module | None:
    """The implementation with a layer's parameters and buffers; None where it cannot be had."""
    adopt = getattr(found.target, "from_layer", None)
    if adopt is not None:
        adopted: nn.Module | None = _tried(found, lambda: adopt(layer))
        return adopted
    if not hasattr(layer, "arguments"):
        return None
    fresh: nn.Module | None = _tried(found, lambda: _built_like(layer, found))
    if fresh is None:
        return None
    for key, value in [*layer.named_parameters(), *layer.named_buffers()]:
        owner, _, name = key.rpartition(".")
        setattr(fresh.get_submodule(owner), name, value)
    fresh.arguments = layer.arguments
    return fresh.train(layer.training)


def _built_like(layer: nn.Module, found: Offer) -> nn.Module:
    """Raises `TzkError` if the implementation has other parameters than its layer."""
    fresh: nn.Module = found.target(**layer.arguments)  # type: ignore[arg-type]
    if set(fresh.state_dict()) != set(layer.state_dict()):
        raise TzkError(
            f"it has the parameters {', '.join(fresh.state_dict())}; those of its layer are "
            f"{', '.join(layer.state_dict())}: leave its plugin out by TZK_PLUGINS"
        )
    return fresh
