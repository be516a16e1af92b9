"""Builds flows and knowledge types from registered parts by name, and again from what a checkpoint wrote down."""

from __future__ import annotations

import functools
import importlib
import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from nflows.transforms.base import CompositeTransform, Transform

from tzk_core.distributions.base import Reparametrised
from tzk_core.distributions.standard import StandardGaussian, StandardLogistic
from tzk_core.errors import TzkError, nearest
from tzk_core.knowledge import Knowledge
from tzk_core.model import SharedFlow
from tzk_core.parts import FlowParts, Part
from tzk_core.plugins import FlowLayer, FlowRecipe, KnowledgeType, Spec, registry
from tzk_core.random_streams import seeded, stream

BASES: dict[str, type[Reparametrised]] = {"gaussian": StandardGaussian, "logistic": StandardLogistic}
CALLABLES = ("nflows.", "torch.nn.")
"""Where a `{ callable = "module:name" }` in the arguments of a layer may point."""


def build_flow(
    shape: Sequence[int],
    recipe: str = "paper",
    layers: Sequence[Mapping[str, Any]] | None = None,
    base: str = "gaussian",
    seed: int = 0,
    **arguments: Any,
) -> SharedFlow:
    """The shared flow over observations of shape `shape`, from a registered recipe or a list of registered layers.

    `arguments` are the recipe's. A layer is a table with its registered name as `type` and its arguments beside it;
    nflows transforms take their constructor's, `features` being filled in where it is left out. Random starting
    values derive from `seed`. Raises `TzkError` for names and arguments that do not fit.
    """
    if base not in BASES:
        raise TzkError(f"the base of a flow is one of {', '.join(BASES)}; got {base!r}{nearest(base, BASES)}")
    if layers is None:
        parts = FlowParts(tuple(shape), base, recipe=_part(FlowRecipe, recipe, arguments))
    else:
        if arguments:
            raise TzkError(f"a flow of layers takes no recipe's arguments; got {', '.join(sorted(arguments))}")
        parts = FlowParts(tuple(shape), base, layers=tuple(_part_of_table(table) for table in layers))
    return rebuild_flow(parts, seed)


def rebuild_flow(parts: FlowParts, seed: int = 0) -> SharedFlow:
    """The flow that `parts` describe, with fresh weights."""
    with seeded(seed, "flow"):
        if parts.recipe is not None:
            transform = _call(FlowRecipe, parts.recipe, parts.shape)
        else:
            transform, shape = CompositeTransform([]), parts.shape
            for part in parts.layers:
                layer = _call(FlowLayer, part, shape)
                transform._transforms.append(layer)
                shape = output_shape(layer, shape)
    latent_shape = output_shape(transform, parts.shape)
    if math.prod(latent_shape) != math.prod(parts.shape):
        raise TzkError(f"a flow keeps the number of dimensions; this one takes {parts.shape} to {latent_shape}")
    flow = SharedFlow(parts.shape, transform, BASES[parts.base](latent_shape))
    flow.parts = parts
    return flow


def build_knowledge(
    type: str, latent_shape: Sequence[int], seed: int = 0, name: str = "", **arguments: Any
) -> Knowledge:
    """A knowledge type by its registered name, over a latent of shape `latent_shape` (a model's or flow's).

    Its starting values derive from (`seed`, `name`), so that another knowledge type's do not move them.
    """
    return rebuild_knowledge(_part(KnowledgeType, type, arguments), latent_shape, seed, name)


def rebuild_knowledge(part: Part, latent_shape: Sequence[int], seed: int = 0, name: str = "") -> Knowledge:
    """The knowledge type that `part` describes, with fresh weights."""
    with seeded(seed, "knowledge", name):
        knowledge = _call(KnowledgeType, part, tuple(latent_shape))
    knowledge.initialise(stream(seed, "initialise", name))
    knowledge.part = replace(part, state_version=getattr(knowledge, "state_version", 1))
    return knowledge


def output_shape(transform: Transform, shape: Sequence[int]) -> tuple[int, ...]:
    """The shape of one output: what the layer says, or else what comes out of zeros of `shape`."""
    said = getattr(transform, "output_shape", None)
    if said is not None:
        return tuple(said)
    was_training = transform.training
    try:
        with torch.no_grad():
            outputs = transform.eval()(torch.full((2, *shape), 0.5))[0]
    except Exception as error:
        raise TzkError(
            f"{transform.__class__.__name__} does not take inputs of shape {tuple(shape)}: {error}. "
            "Most nflows transforms expect vectors: put a `flatten` layer before them"
        ) from error
    finally:
        transform.train(was_training)
    return tuple(outputs.shape[1:])


def _part(kind: type[Spec], name: str, arguments: Mapping[str, Any]) -> Part:
    found = registry().find(kind, name)
    return Part(found.name, found.plugin, found.distribution, found.version, dict(arguments))


def _part_of_table(table: Mapping[str, Any]) -> Part:
    arguments = dict(table)
    try:
        name = arguments.pop("type")
    except KeyError:
        raise TzkError(f"a layer is a table with its registered name as `type`; got {dict(table)}") from None
    return _part(FlowLayer, name, arguments)


def _call(kind: type[Spec], part: Part, shape: tuple[int, ...]) -> Any:
    """Calls a part's target with the shape, or with the constructor's own arguments where it takes no shape (nflows)."""
    target = registry().find(kind, part.qualified_name).load()
    arguments = {key: _resolve(value) for key, value in part.arguments.items()}
    parameters = inspect.signature(target).parameters
    positional: tuple[Any, ...] = (shape,) if next(iter(parameters), "") in ("shape", "latent_shape") else ()
    if "features" in parameters and not positional:
        arguments.setdefault("features", math.prod(shape))
    try:
        return target(*positional, **arguments)
    except (TypeError, ValueError) as error:
        raise TzkError(f"{kind.kind} {part.name!r}: {error}") from error


def _resolve(value: Any) -> Any:
    """Arguments as TOML writes them: `{ callable = "nflows.nn.nets:ResidualNet", ... }` is a function with some of its
    arguments given. Only modules under nflows and torch.nn can be named, so that opening a model runs nothing else."""
    if isinstance(value, Mapping) and "callable" in value:
        given = dict(value)
        target = given.pop("callable")
        module, _, attribute = target.partition(":")
        if not module.startswith(CALLABLES) or not attribute:
            raise TzkError(f"a callable is written 'module:name' with a module under nflows or torch.nn; got {target!r}")
        try:
            function = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise TzkError(f"there is no callable {target!r}: {error}") from error
        return functools.partial(function, **{key: _resolve(each) for key, each in given.items()}) if given else function
    if isinstance(value, list | tuple):
        return type(value)(_resolve(each) for each in value)
    return value
