"""Checks of a plugin: registration, names and arguments, and targets as its specs say."""

from __future__ import annotations

import importlib.metadata
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import click
import torch
from nflows.transforms.base import Transform

from tzk_core.commands import OWN_COMMANDS
from tzk_core.config.schema import MODELS
from tzk_core.distributions.base import Reparametrised
from tzk_core.errors import TzkError
from tzk_core.knowledge import Knowledge
from tzk_core.plugins import specs
from tzk_core.plugins.builtin import BUILTIN
from tzk_core.plugins.registry import PartNotLoadable, Registered, Registry, registry
from tzk_core.plugins.validation import GROUP, specs_of
from tzk_core.settings import own_keys
from tzk_core.testing.building import built, takes_shape
from tzk_core.testing.expectations import expect
from tzk_core.testing.implementation import check_implementation, in_place_of
from tzk_core.testing.registration import check_registration
from tzk_core.training.observers import Observer

_BASES: dict[type[specs.Spec], type] = {
    specs.FlowLayer: Transform,
    specs.KnowledgeType: Knowledge,
    specs.Base: Reparametrised,
    specs.Observer: Observer,
}
"""By type of spec, what its target has to be a subclass of."""

SHAPES = ((6,), (4, 4, 4), (1, 8, 8), (3, 8, 8))
"""Shapes of observations that recipes and layers with implementations are built for."""

RESERVED: dict[type[specs.Spec], frozenset[str]] = {
    specs.KnowledgeType: frozenset(own_keys(MODELS[("knowledge",)])) - {"characteristics"} | {"seed"},
    specs.Dataset: frozenset(own_keys(MODELS[("datasets",)])),
    specs.FlowLayer: frozenset(own_keys(MODELS[("flow", "layers")])),
    specs.FlowRecipe: frozenset(own_keys(MODELS[("flow",)])) | {"seed"},
}
"""Keys of the core's own beside a part's arguments in one table, or in one call, by the type of part."""


_CALLED: dict[type[specs.Spec], tuple[str, str]] = {
    specs.Metric: ("rows", "a class with columns and a method rows(evaluated)")
}
"""By type of part, the method that its target has to have, and what that is in words."""


def check_plugin(entry_point: str) -> list[specs.Spec]:
    """Check that a plugin registers as it should, with targets as its specs say.

    Registration is tried in a fresh interpreter, where it may import nothing heavy, print nothing, change nothing and
    take no second. Parts have names and arguments that the core does not use itself. A flow layer has to be an nflows
    `Transform`, a knowledge type a `Knowledge`, an observer an `Observer`, a command a click command, a metric a class
    with `rows`. A picture takes (subject, folder). A data set has defaults for all its arguments. A recipe returns a
    `Transform` for one of a few small shapes, where it takes one. A part whose `state_version` was raised says how
    older ones are upgraded. An implementation takes its layer's arguments, or none if it computes several layers; its
    parameters are the layer's, and where it can be used here so are its numbers.

    What parts compute is for the checks of each, such as `check_knowledge`, with inputs of your own.

    Args:
        entry_point: as `pyproject.toml` announces it, "my_package.plugin" or "my_package.plugin:object".

    Returns:
        The specs of the plugin.

    Raises:
        NotConforming: with what was expected, what it got and what to change.
    """
    check_registration(entry_point)
    plugin = importlib.metadata.EntryPoint("plugin", entry_point, GROUP).load()
    offered = [spec for returned in specs_of(plugin, "plugin").values() for spec in returned]
    own = any(plugin is builtin.plugin for builtin in BUILTIN.values())
    faults = [fault for spec in offered for fault in _faults_of(spec, own=own)]
    expect(not faults, f"plugin {entry_point!r}: " + "; ".join(faults))
    return offered


def _faults_of(spec: specs.Spec, *, own: bool) -> Iterator[str]:
    """The faults of a spec and its target, the first of its target only.

    Args:
        own: whether it is the core's.
    """
    what = f"the {spec.kind} {spec.name!r} ({spec.target})"
    if not own and _is_the_cores(spec):
        yield f"{what} has the name of one of the core's, which hides it: choose another, such as 'my-{spec.name}'"
    try:
        target = Registered(spec, "plugin", "", "").load()
    except PartNotLoadable as error:
        yield str(error)
        return
    for check in (_fault_of_type, _fault_of_arguments, _fault_of_version, _fault_of_kind):
        if fault := check(what, spec, target):
            yield fault
            return


def _is_the_cores(spec: specs.Spec) -> bool:
    if isinstance(spec, specs.Command) and spec.name in OWN_COMMANDS:
        return True
    return any(part.name == spec.name for part in Registry.discover(allow=[]).all(type(spec)))


def _fault_of_type(what: str, spec: specs.Spec, target: Any) -> str:
    """What is wrong with the type of a target; "" if nothing is."""
    if isinstance(spec, specs.Command):
        return "" if isinstance(target, click.Command) else f"{what} should be a click command; got {target!r}"
    base = _BASES.get(type(spec))
    if base is not None and not (inspect.isclass(target) and issubclass(target, base)):
        return f"{what} should be a subclass of {base.__module__}.{base.__name__}; got {target!r}"
    method, wanted = _CALLED.get(type(spec), ("__call__", "a class or a function"))
    if not callable(getattr(target, method, None)):
        return f"{what} should be {wanted}; got {target!r}"
    return ""


def _fault_of_arguments(what: str, spec: specs.Spec, target: Any) -> str:
    """What is wrong with the arguments of a target; "" if nothing is."""
    if isinstance(spec, specs.Command):
        return ""
    parameters = inspect.signature(target).parameters
    if isinstance(spec, specs.Picture):
        names = list(parameters)
        return "" if names[:2] == ["subject", "folder"] else f"{what} should take (subject, folder); got {names}"
    positional = [key for key, parameter in parameters.items() if parameter.kind is parameter.POSITIONAL_ONLY]
    if positional:
        return f"{what} should take its arguments by keyword; {', '.join(positional)} cannot be"
    reserved = [key for key in parameters if key in RESERVED.get(type(spec), ())]
    if reserved:
        return f"{what} should not take {', '.join(reserved)}, which mean something else beside it: rename them"
    needed = [key for key, value in parameters.items() if value.default is value.empty and not _collects(value)]
    if isinstance(spec, specs.Dataset) and needed:
        return f"{what} should have defaults for {', '.join(needed)}"
    if isinstance(spec, specs.KnowledgeType) and needed[:1] != ["latent_shape"]:
        return f"{what} should take latent_shape first; it takes {', '.join(parameters) or 'nothing'}"
    if isinstance(spec, specs.FlowRecipe) and needed[:1] not in (["shape"], ["features"]):
        return f"{what} should take shape first; it takes {', '.join(parameters) or 'nothing'}"
    return ""


def _fault_of_version(what: str, spec: specs.Spec, target: Any) -> str:
    """What is wrong with the version of a part's state; "" if nothing is."""
    version = getattr(target, "state_version", 1)
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        return f"{what} should have a whole number from 1 on as state_version; got {version!r}"
    inherited = {Knowledge.upgrade}
    ways = [getattr(target, name, None) for name in ("upgrade", "upgrade_arguments")]
    if version > 1 and not any(callable(way) and way not in inherited for way in ways):
        return (
            f"{what} has state_version {version}, and should say how older checkpoints become it: give it a static"
            " method upgrade(state, version), or upgrade_arguments(arguments, version)"
        )
    return ""


def _fault_of_kind(what: str, spec: specs.Spec, target: Any) -> str:
    try:
        if isinstance(spec, specs.FlowRecipe) and takes_shape(target):
            _build_recipe(spec.name, target)
        if isinstance(spec, specs.Implementation):
            return _fault_of_implementation(what, spec, target)
    except TzkError as error:
        return f"{what}: {error}"
    return ""


def _build_recipe(name: str, recipe: Callable[..., Any]) -> None:
    """Build a recipe for the first shape that it takes.

    Raises the fault, if any, but for refusals of all shapes.
    """
    for shape in SHAPES:
        try:
            with torch.random.fork_rng(devices=[]):
                built(name, recipe, shape)
            return
        except TzkError as error:
            if not isinstance(error.__cause__, TzkError):  # it is no refusal of this shape by the recipe
                raise


def _fault_of_implementation(what: str, spec: specs.Implementation, target: Any) -> str:
    names = spec.layer.split()
    layers = [registry().find(specs.FlowLayer, name).load() for name in names]
    several = len(layers) > 1
    missing = [method for method in ("forward", "inverse") if not callable(getattr(target, method, None))]
    if missing:
        return f"{what} should have a method {' and a method '.join(missing)}"
    taken, expected = list(inspect.signature(target).parameters), list(inspect.signature(layers[0]).parameters)
    if several and taken:
        return f"{what} should take no arguments, as its methods get the layers; got {taken}"
    if not several and taken != expected:
        return f"{what} should take {names[0]!r}'s arguments {expected}; got {taken}"
    reason = target.unusable(spec.device) if hasattr(target, "unusable") else ""
    if not isinstance(reason, str):
        return f"{what}: unusable({spec.device!r}) should return a text, '' for no reason; got {reason!r}"
    _compare_with_layers(spec, target, layers, usable=not reason)
    return ""


def _compare_with_layers(spec: specs.Implementation, target: Any, layers: list[Any], *, usable: bool) -> None:
    """Compare parameters with those of the layers and, where usable here, numbers.

    Layers that need more arguments are left out.
    """
    if not all(map(takes_shape, layers)):
        return
    shape = next((shape for shape in SHAPES if _takes(layers, shape)), None)
    if shape is None:
        return
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = _made(layers, shape)
        inputs = 0.1 + 0.8 * torch.rand(3, *shape)
        if len(made) == 1:
            in_place_of(spec.name, target, made[0])
        here = spec.device == "cpu" or (spec.device == "cuda" and torch.cuda.is_available())
        if usable and here:
            check_implementation(target, made if len(made) > 1 else made[0], inputs, device=spec.device)


def _takes(layers: list[Any], shape: tuple[int, ...]) -> bool:
    try:
        _made(layers, shape)
    except Exception:  # whatever a layer raises for a shape that it does not take
        return False
    return True


def _made(layers: list[Any], shape: tuple[int, ...]) -> list[Transform]:
    """Layers one after the other, each for the output shape of the one before."""
    made: list[Transform] = []
    for layer in layers:
        made.append(layer(shape))
        shape = tuple(getattr(made[-1], "output_shape", shape))
    return made


def _collects(parameter: inspect.Parameter) -> bool:
    return parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
