"""Puts the implementations that plugins bring for a kind of device, such as fused kernels, in the place of layers."""

from __future__ import annotations

from torch import nn

from tzk_core.errors import TzkError
from tzk_core.plugins import FlowLayer, Implementation, PartNotLoadable, Registered, UnknownPart, registry


def use_implementations(module: nn.Module, device: str) -> None:
    """Replaces, within `module`, each registered layer that has an implementation for `device` ("cuda").

    A replacement is built with the layer's arguments and takes over its parameters and buffers themselves, so that the
    state dict stays as it is and an optimiser goes on. Raises `TzkError` if an implementation cannot be imported,
    has other parameters than its layer, or is one of several.
    """
    targets = _implementations(device)
    if not targets:
        return
    for parent in list(module.modules()):
        for name, layer in list(parent._modules.items()):
            found = targets.get(type(layer)) if layer is not None and hasattr(layer, "arguments") else None
            if layer is not None and found is not None:
                setattr(parent, name, _in_place_of(layer, found))


def _implementations(device: str) -> dict[type, Registered]:
    """Class of a layer -> its implementation on this kind of device."""
    offered = [part.spec for part in registry().all(Implementation) if isinstance(part.spec, Implementation)]
    targets = {}
    for name in sorted({spec.layer for spec in offered if spec.device == device}):
        try:
            layer = registry().find(FlowLayer, name)
            target = layer.load()
        except (UnknownPart, PartNotLoadable):
            continue  # nothing can have been built from this layer
        found = registry().implementation(layer, device)
        if found is not None:
            targets[target] = found
    return targets


def _in_place_of(layer: nn.Module, found: Registered) -> nn.Module:
    fresh: nn.Module = found.load()(**layer.arguments)  # type: ignore[arg-type]
    if set(fresh.state_dict()) != set(layer.state_dict()):
        raise TzkError(
            f"the implementation {found.qualified_name!r} ({found.distribution} {found.version}) has the parameters "
            f"{', '.join(fresh.state_dict())}; those of its layer are {', '.join(layer.state_dict())}: "
            "leave its plugin out by TZK_PLUGINS"
        )
    for key, value in [*layer.named_parameters(), *layer.named_buffers()]:
        owner, _, name = key.rpartition(".")
        setattr(fresh.get_submodule(owner), name, value)
    fresh.arguments = layer.arguments
    return fresh.train(layer.training)
