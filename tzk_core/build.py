"""Flows and knowledge types from registered parts, by name or from a checkpoint."""

from __future__ import annotations

import functools
import importlib
import inspect
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from nflows.transforms.base import Transform

from tzk_core.callables import is_allowed
from tzk_core.distributions.base import Reparametrised
from tzk_core.domain import AUTO, without_data
from tzk_core.errors import TzkError
from tzk_core.knowledge import Knowledge
from tzk_core.model import SharedFlow
from tzk_core.parts import FlowParts, Part
from tzk_core.plugins import Base, FlowLayer, FlowRecipe, KnowledgeType, Spec, registry
from tzk_core.plugins.builtin import BUILTIN
from tzk_core.plugins.isolation import isolated, worded
from tzk_core.random_streams import seeded, stream
from tzk_core.transforms.composite import Composite
from tzk_core.transforms.shapes import output_shape
from tzk_core.version import CORE_PLUGIN

MOST_DIMS = 2**24
"""Of an observation: 4096 x 4096 grey levels. Nothing else is larger either."""

TENSORS = ("permutation",)
"""Arguments of nflows' constructors that want a tensor, which TOML writes as a list."""


def build_flow(
    shape: Sequence[int],
    recipe: str = "paper",
    layers: Sequence[Mapping[str, Any]] | None = None,
    *,
    base: str | Mapping[str, Any] = "gaussian",
    seed: int = 0,
    arguments: Mapping[str, Any] | None = None,
    **more: Any,
) -> SharedFlow:
    """A shared flow over observations of one shape, from a recipe or layers.

    Args:
        recipe: the registered name.
        layers: tables, each with a registered name as `type` and its arguments beside it. nflows transforms take those
            of their constructor, where `features` may be left out. A layer inside another is such a table again. An
            argument called `type` is in a table of its own, {"type": ..., "arguments": {"type": ...}}.
        base: the registered name of the latent's density, or a table with it as `type` and its arguments beside it.
        seed: of random starting values.
        arguments: the recipe's, of any name. `more` are its arguments too, whose names this function does not have.
            Those that take the `domain` of the data (`tzk_core.domain`) expect dequantised grey levels of images, and
            real numbers of any other shape, unless it is passed.

    Raises `TzkError` for names and arguments that do not fit.
    """
    arguments = _joined(f"the recipe {recipe!r}", arguments, more)
    density = _base(base)
    if layers is None:
        part = _part(FlowRecipe, recipe, arguments)
        if part.arguments.get("domain") == AUTO:  # a checkpoint says which it was
            part = replace(part, arguments={**part.arguments, "domain": without_data(shape)})
        parts = FlowParts(tuple(shape), density, recipe=part)
    else:
        if arguments:
            raise TzkError(f"a flow of layers takes no recipe's arguments; got {', '.join(sorted(arguments))}")
        parts = FlowParts(tuple(shape), density, layers=tuple(_part_of_table(table) for table in layers))
    return rebuild_flow(parts, seed)


def rebuild_flow(parts: FlowParts, seed: int = 0) -> SharedFlow:
    """The flow that `parts` describe, with fresh weights."""
    if math.prod(parts.shape) > MOST_DIMS:
        raise TzkError(f"expected at most {MOST_DIMS:,} dimensions; got {parts.shape}: make observations smaller")
    recipe = _upgraded(FlowRecipe, parts.recipe) if parts.recipe else None
    base = _upgraded(Base, parts.base) if isinstance(parts.base, Part) else parts.base
    parts = replace(parts, base=base, recipe=recipe, layers=tuple(_upgraded(FlowLayer, part) for part in parts.layers))
    with seeded(seed, "flow"):
        if parts.recipe is not None:
            transform = _call(FlowRecipe, parts.recipe, parts.shape)
        else:
            transform = Composite(_layers(parts.layers, parts.shape))
    latent_shape = output_shape(transform, parts.shape)
    if math.prod(latent_shape) != math.prod(parts.shape):
        raise TzkError(f"a flow keeps the number of dimensions; this one takes {parts.shape} to {latent_shape}")
    with seeded(seed, "base"):
        density = _density(base, latent_shape)
    return SharedFlow(parts.shape, transform, density, parts=parts)


def build_knowledge(
    type: str,
    latent_shape: Sequence[int],
    seed: int = 0,
    *,
    name: str = "",
    arguments: Mapping[str, Any] | None = None,
    **more: Any,
) -> Knowledge:
    """A knowledge type by its registered name, over a latent of shape `latent_shape`.

    Its starting values derive from (`seed`, `name`), so that another knowledge type's do not move them.

    Args:
        arguments: its own, of any name. `more` are its arguments too, whose names this function does not have.
    """
    arguments = _joined(f"the knowledge type {type!r}", arguments, more)
    return rebuild_knowledge(_part(KnowledgeType, type, arguments), latent_shape, seed=seed, name=name)


def rebuild_knowledge(part: Part, latent_shape: Sequence[int], *, seed: int = 0, name: str = "") -> Knowledge:
    """The knowledge type that `part` describes, with fresh weights."""
    part = _upgraded(KnowledgeType, part)
    with seeded(seed, "knowledge", name):
        knowledge = _call(KnowledgeType, part, tuple(latent_shape))
    try:
        knowledge.initialise(stream(seed, "initialise", name))
    except TzkError:
        raise
    except Exception as error:
        raise _faulty(KnowledgeType, part, error) from error
    knowledge.describe_as(part=replace(part, state_version=getattr(knowledge, "state_version", 1)))
    return knowledge.eval()


@torch.no_grad()
def start_from(knowledge: Knowledge, other: Knowledge) -> None:
    """Start `knowledge` from the weights of `other`, which has the same structure.

    Everything is copied but p(κ), which belongs to the population that it was fitted on. Raises `TzkError`, before
    anything is copied, if type, arguments or shapes differ.
    """
    if type(knowledge) is not type(other):
        raise TzkError(
            "knowledge starts from knowledge of its own type; got "
            f"{type(knowledge).__name__} from {type(other).__name__}"
        )
    state, start = knowledge.state_dict(), other.state_dict()
    mine, theirs = ({} if one.part is None else dict(one.part.arguments) for one in (knowledge, other))
    differ = [key for key in sorted({*mine, *theirs}) if mine.get(key) != theirs.get(key)]
    differ += [key for key in sorted({*state, *start}) if key not in state or key not in start]
    differ += [key for key in state if key in start and state[key].shape != start[key].shape]
    if differ:
        raise TzkError(
            f"knowledge starts from knowledge of the same structure; these differ in {', '.join(differ[:3])}"
            f"{' and more' if len(differ) > 3 else ''}: give both the same arguments"
        )
    knowledge.load_state_dict({**start, "log_odds": state["log_odds"]})


def _part(spec_type: type[Spec], name: str, arguments: Mapping[str, Any]) -> Part:
    """The part with all its arguments, so that later defaults do not change it."""
    registered = registry().find(spec_type, name)
    target = registered.load()
    parameters = inspect.signature(target).parameters.values()
    values = {parameter.name: parameter.default for parameter in parameters}
    values = {key: value for key, value in values.items() if isinstance(value, bool | int | float | str)}
    for key, value in arguments.items():
        values[key] = _with_parts(value) if spec_type is FlowLayer else value
    part = Part(
        registered.name,
        registered.plugin,
        registered.distribution,
        registered.version,
        values,
        getattr(target, "state_version", 1),
    )
    try:
        json.dumps(part.to_json(), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise TzkError(
            f"{spec_type.kind} {name!r}: arguments are texts, finite numbers, lists and tables, as in TOML, so that a "
            f"checkpoint can hold them ({error}). Build a flow from other objects in Python, as a SharedFlow"
        ) from error
    return part


def _upgraded(spec_type: type[Spec], part: Part) -> Part:
    """The part with arguments and state of an older version upgraded to the installed one."""
    registered = registry().find(spec_type, part.qualified_name)
    target, arguments = registered.load(), part.arguments
    version = getattr(target, "state_version", 1)
    upgrade = getattr(target, "upgrade_arguments", None)
    if upgrade is not None and part.state_version < version:
        outcome = isolated(lambda: upgrade(dict(arguments), part.state_version))
        if outcome.error is not None:
            raise _faulty(spec_type, part, outcome.error, where="upgrade_arguments ") from outcome.error
        arguments = outcome.value
        if not isinstance(arguments, Mapping):
            which, got = f"{spec_type.kind} {part.name!r} ({registered.source})", type(arguments).__name__
            raise TzkError(f"{which}: upgrade_arguments should return a table; got {got}")
    return replace(part, state_version=version, arguments=arguments)


def _base(base: str | Mapping[str, Any]) -> str | Part:
    """The density of a latent as a checkpoint has it.

    It is the name alone of the core's, which take no arguments.
    """
    table = {"type": base} if isinstance(base, str) else dict(base)
    if "type" not in table:
        raise TzkError(f"the base of a flow is its registered name, or a table with it as `type`; got {table}")
    part = _part(Base, table.pop("type"), table)
    return part.name if part.plugin == CORE_PLUGIN and not part.arguments else part


def _density(base: str | Part, latent_shape: tuple[int, ...]) -> Reparametrised:
    """The density that `base` describes, over a latent of this shape."""
    part = _part(Base, f"{CORE_PLUGIN}/{base}", {}) if isinstance(base, str) else base
    density = _call(Base, part, latent_shape)
    if not isinstance(density, Reparametrised) or density.shape != latent_shape:
        got = f"{type(density).__name__} of {getattr(density, 'shape', 'no shape')}"
        raise TzkError(
            f"base distribution {part.name!r} of {part.distribution} is expected as a Reparametrised of "
            f"{latent_shape}; got {got}"
        )
    return density


def _part_of_table(table: Mapping[str, Any]) -> Part:
    arguments = dict(table)
    try:
        name = arguments.pop("type")
    except KeyError:
        raise TzkError(f"a layer is a table with its registered name as `type`; got {dict(table)}") from None
    own = arguments.pop("arguments", None)
    if own is not None and not isinstance(own, Mapping):
        raise TzkError(f"the arguments of layer {name!r} are expected as a table; got {own!r}")
    return _part(FlowLayer, name, _joined(f"the layer {name!r}", own, arguments))


def _joined(what: str, arguments: Mapping[str, Any] | None, more: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a part, by table and by keyword."""
    if twice := sorted((arguments or {}).keys() & more):
        raise TzkError(f"{what} got {', '.join(twice)} twice: once in `arguments`, once beside it")
    return {**(arguments or {}), **more}


def _with_parts(value: Any) -> Any:
    """An argument of a layer with parts in the place of tables that describe layers."""
    if isinstance(value, Mapping):
        if "type" in value:
            return _part_of_table(value)
        return {key: _with_parts(item) for key, item in value.items()}
    return [_with_parts(item) for item in value] if isinstance(value, list | tuple) else value


def _layers(parts: Sequence[Part], shape: tuple[int, ...]) -> list[Transform]:
    """Layers one after the other, each for the output shape of the one before."""
    layers = []
    for part in parts:
        layers.append(_call(FlowLayer, part, shape))
        shape = output_shape(layers[-1], shape)
    return layers


def _call(spec_type: type[Spec], part: Part, shape: tuple[int, ...]) -> Any:
    """Call a part's target with its arguments, and with the shape if it takes one."""
    _check_numbers(spec_type, part)
    target = registry().find(spec_type, part.qualified_name).load()
    parameters = inspect.signature(target).parameters
    arguments = {key: _resolve(value, shape) for key, value in part.arguments.items()}
    first = next(iter(parameters), "")
    if first in ("shape", "latent_shape"):
        if first in arguments:
            raise TzkError(f"{spec_type.kind} {part.name!r}: {first} follows from what comes before it; leave it out")
        arguments = {first: shape} | arguments
    elif "features" in parameters:
        arguments.setdefault("features", math.prod(shape))
    try:
        arguments |= {name: _order(name, arguments[name]) for name in TENSORS if name in arguments.keys() & parameters}
        made = target(**arguments)
    except (TzkError, KeyboardInterrupt):
        raise
    except BaseException as error:  # plugins and nflows raise, and assert, whatever they like
        raise _faulty(spec_type, part, error) from error
    if made is None:
        raise TzkError(f"{spec_type.kind} {part.name!r} ({part.distribution}) should return what it builds; got None")
    if spec_type is FlowLayer and not hasattr(made, "arguments"):
        made.arguments = arguments  # for `implementations`, as the core's own layers keep them
    return made


def _faulty(spec_type: type[Spec], part: Part, error: BaseException, *, where: str = "") -> TzkError:
    """The error for what a part raised, with its plugin unless that is the core's."""
    which = f"{spec_type.kind} {part.name!r}"
    if part.plugin in BUILTIN:
        return TzkError(f"{which}: {where}{error or type(error).__name__}")
    registered = registry().find(spec_type, part.qualified_name)
    return TzkError(f"{which} ({registered.source}): {where}{worded(error, registered.package)}")


def _order(name: str, value: Any) -> torch.Tensor:
    """A permutation as the tensor that nflows takes. Raises `ValueError` for anything else."""
    order = torch.as_tensor(value)
    if order.sort().values.tolist() != list(range(len(order))):
        raise ValueError(f"{name} is expected as an order of 0 to n - 1; got {value}")
    return order


def _check_numbers(spec_type: type[Spec], part: Part) -> None:
    """Raise `TzkError` for a whole number that is no size: lists would be so long."""
    for key, value in part.arguments.items():
        within = value if isinstance(value, list | tuple) else [value]
        large = [number for number in within if isinstance(number, int) and abs(number) > MOST_DIMS]
        if large and "seed" not in key:
            what = f"{spec_type.kind} {part.name!r}: {key}"
            raise TzkError(f"{what} is expected as at most {MOST_DIMS:,}; got {large[0]:,}")


def _resolve(value: Any, shape: tuple[int, ...]) -> Any:
    """An argument of a part, from what TOML writes.

    `{ callable = "nflows.nn.nets:ResidualNet", ... }` is a function with some of its arguments bound. Parts are layers
    for `shape`; in a list, one after the other.
    """
    if isinstance(value, Part):
        return _call(FlowLayer, value, shape)
    if isinstance(value, Mapping) and "callable" in value:
        function = _callable(value["callable"])
        bound = {key: _resolve(item, shape) for key, item in value.items() if key != "callable"}
        return functools.partial(function, **bound) if bound else function
    if isinstance(value, list | tuple):
        if value and all(isinstance(item, Part) for item in value):
            return _layers(value, shape)
        return type(value)(_resolve(item, shape) for item in value)
    return value


def _callable(target: Any) -> Callable[..., Any]:
    """The function called "module:name".

    Only modules in `callables.CALLABLES` are allowed, so that opening a model runs nothing else.
    """
    module, _, attribute = str(target).partition(":")
    if not is_allowed(target):
        raise TzkError(f"a callable is written 'module:name', its module under nflows or torch.nn; got {target!r}")
    try:
        function = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise TzkError(f"there is no callable {target!r}: {error}") from error
    if not callable(function):
        raise TzkError(f"{target!r} cannot be called: it is a {type(function).__name__}")
    return function
