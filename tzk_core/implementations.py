"""Puts plugins' implementations for a type of device, such as fused kernels, in place of layers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from tzk_core.errors import TzkError
from tzk_core.plugins import FlowLayer, Implementation, PartNotLoadable, Registered, UnknownPart, registry
from tzk_core.transforms.composite import Composite, Run


@dataclass(frozen=True)
class Offer:
    """An implementation of a layer, or of several in a row, and why it is not used.

    reason: "" where it is used.
    target, layers: its class and those of the layers, where it is used.
    """

    part: Registered
    spec: Implementation
    reason: str = ""
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
    themselves. So the state dict stays as it is, and an optimiser goes on. Several layers in a row of a `Composite`
    stay where they are; the composite computes them at once (`Run`).

    Raises:
        TzkError: if an implementation cannot be imported, has other parameters than its layer, or is one of several.
    """
    used = [offer for offer in _offers(device) if not offer.reason]
    runs = sorted((offer for offer in used if len(offer.layers) > 1), key=lambda offer: -len(offer.layers))
    alone = {offer.layers[0]: offer for offer in used if len(offer.layers) == 1}
    in_runs: set[int] = set()
    for composite in module.modules():
        if isinstance(composite, Composite):
            composite.runs = _runs(list(composite._transforms), runs)
            in_runs |= {id(layer) for run in composite.runs for layer in composite.layers_of(run)}
    for parent in list(module.modules()) if alone else []:
        for name, layer in list(parent._modules.items()):
            offer = alone.get(type(layer)) if hasattr(layer, "arguments") and id(layer) not in in_runs else None
            if layer is not None and offer is not None:
                setattr(parent, name, _in_place_of(layer, offer))


def offers() -> list[Offer]:
    """Every implementation that plugins offer, and why it is not used on its device.

    Raises nothing: a broken one has its error as the reason.
    """
    collected = []
    for part in registry().all(Implementation):
        assert isinstance(part.spec, Implementation)
        try:
            collected.append(_offer(part, part.spec))
        except TzkError as error:
            collected.append(Offer(part, part.spec, str(error)))
    return collected


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


def _offers(device: str) -> list[Offer]:
    """The offers for a kind of device. Raises `PartNotLoadable` and `NameClash`."""
    parts = registry().all(Implementation)
    return [
        _offer(part, part.spec)
        for part in parts
        if isinstance(part.spec, Implementation) and part.spec.device == device
    ]


def _offer(part: Registered, spec: Implementation) -> Offer:
    try:
        layers = [registry().find(FlowLayer, name) for name in spec.layer.split()]
        classes = tuple(layer.load() for layer in layers)
    except (UnknownPart, PartNotLoadable) as error:
        return Offer(part, spec, str(error))  # nothing can have been built from this layer
    registry().implementation(layers, spec.device)
    target = part.load()
    reason = target.unusable(spec.device) if hasattr(target, "unusable") else ""
    return Offer(part, spec, reason, target, classes)


def _runs(layers: Sequence[nn.Module], offered: Sequence[Offer]) -> tuple[Run, ...]:
    """From the first layer on, the first of `offered` that fits what follows."""
    types = [type(layer) for layer in layers]
    runs: list[Run] = []
    at = 0
    while at < len(types):
        fitting = [offer for offer in offered if tuple(types[at : at + len(offer.layers)]) == offer.layers]
        if fitting:
            runs.append(Run(at, at + len(fitting[0].layers), fitting[0].target(), (fitting[0].part.qualified_name,)))
        at = runs[-1].stop if fitting else at + 1
    join = getattr(runs[0].fused, "joined", None) if runs else None
    return join(layers, runs) if join else tuple(runs)


def _in_place_of(layer: nn.Module, offer: Offer) -> nn.Module:
    fresh: nn.Module = offer.target(**layer.arguments)  # type: ignore[arg-type]
    if set(fresh.state_dict()) != set(layer.state_dict()):
        part = offer.part
        raise TzkError(
            f"the implementation {part.qualified_name!r} ({part.distribution} {part.version}) has the parameters "
            f"{', '.join(fresh.state_dict())}; those of its layer are {', '.join(layer.state_dict())}: "
            "leave its plugin out by TZK_PLUGINS"
        )
    for key, value in [*layer.named_parameters(), *layer.named_buffers()]:
        owner, _, name = key.rpartition(".")
        setattr(fresh.get_submodule(owner), name, value)
    fresh.arguments = layer.arguments
    return fresh.train(layer.training)
