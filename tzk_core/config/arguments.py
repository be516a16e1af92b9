"""Checking the arguments that a config gives to registered parts against the parts' constructors."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError, PydanticUndefinedAnnotation

from tzk_core.callables import callable_problem
from tzk_core.config.annotations import type_of
from tzk_core.config.signatures import Signature, signature
from tzk_core.errors import TzkError, nearest
from tzk_core.plugins import (
    Base,
    Dataset,
    FlowLayer,
    FlowRecipe,
    KnowledgeType,
    Metric,
    Observer,
    Optimizer,
    Registry,
    Schedule,
    Spec,
)
from tzk_core.settings.problems import expected, shown
from tzk_core.training.own import refuse_own

SUPPLIED: dict[type[Spec], frozenset[str]] = {
    FlowRecipe: frozenset({"shape"}),
    FlowLayer: frozenset({"shape"}),
    Dataset: frozenset(),
    Metric: frozenset(),
    KnowledgeType: frozenset({"latent_shape", "characteristics"}),
    Base: frozenset({"shape"}),
    Observer: frozenset(),
}
"""Arguments that the program itself gives to parts of each kind, so that a config need not and cannot."""

BY_POSITION = (Optimizer, Schedule)
"""Parts whose first argument, whatever its name, is the program's."""

FILLED_IN = frozenset({"features"})
"""Arguments that a config may give and that follow from the shape where it does not: those of nflows'
transforms."""


def supplied(spec_type: type[Spec], signature: Signature) -> frozenset[str]:
    """The arguments of a part that the program itself gives."""
    first = signature.names[:1] if spec_type in BY_POSITION else ()
    return SUPPLIED.get(spec_type, frozenset()) | frozenset(first)


class PartCheck:
    """A part that a table names, its arguments, and what is wrong with them."""

    def __init__(self, registry: Registry, spec_type: type[Spec], name: str, *, own_keys: Sequence[str]) -> None:
        self.spec_type = spec_type
        self.name = name
        self.own_keys = own_keys
        self.missing = ""
        self.qualified_name = ""
        self.signature: Signature | None = None
        try:
            part = registry.find(spec_type, name)
            if spec_type is Observer:
                refuse_own(part)
            self.signature, self.qualified_name = signature(part), part.qualified_name
        except TzkError as error:
            self.missing = str(error)

    def problems(self, arguments: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """(argument, message) for every argument that is unknown, missing or of a wrong type."""
        if self.signature is None:
            return
        own = supplied(self.spec_type, self.signature)
        taken = {argument.name: argument for argument in self.signature.arguments if argument.name not in own}
        part = f"{self.spec_type.kind} '{self.name}'"
        for name, value in arguments.items():
            if name in taken:
                of_layer = callable_problem(name, value) if self.spec_type is FlowLayer else ""
                if message := of_layer or _value_problem(taken[name].annotation, value):
                    yield name, message
            elif not self.signature.open:
                hint = nearest(name, [*taken, *self.own_keys]) or f" (it takes {', '.join(taken) or 'none'})"
                yield name, f"{part} takes no such argument{hint}"
        for argument in taken.values():
            if argument.required and argument.name not in FILLED_IN and argument.name not in arguments:
                annotation = f" ({argument.annotation})" if argument.annotation else ""
                apart = argument.name in self.own_keys
                written = f": write it as arguments = {{ {argument.name} = ... }}" if apart else ""
                yield argument.name, f"{part} needs this argument{annotation}{written}"

    def resolved(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments, with the defaults of those left out.

        Defaults that TOML cannot hold are not among them.
        """
        own = supplied(self.spec_type, self.signature) if self.signature else frozenset()
        defaults = {
            argument.name: argument.value
            for argument in (self.signature.arguments if self.signature else ())
            if argument.name not in own and _fits_toml(argument.value)
        }
        return {**defaults, **arguments}


def _value_problem(annotation: str, value: Any) -> str:
    """What is wrong with an argument's value, or "" if nothing is."""
    return type_problem(annotation, value) if _finite(value) else f"expected finite numbers, got {shown(value)}"


def _finite(value: Any) -> bool:
    """Whether every number within a TOML value is finite, as all parts need."""
    if isinstance(value, Mapping):
        return all(map(_finite, value.values()))
    if isinstance(value, list | tuple):
        return all(map(_finite, value))
    return not isinstance(value, float) or math.isfinite(value)


def _fits_toml(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_fits_toml, value))
    return isinstance(value, bool | int | float | str)


def type_problem(annotation: str, value: Any) -> str:
    """What is wrong with a TOML value for an annotation; "" if nothing is.

    An annotation that nothing is known of takes any value.
    """
    if not annotation:
        return ""
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(type_of(annotation))
    except (LookupError, TypeError, PydanticSchemaGenerationError, PydanticUndefinedAnnotation):
        return ""  # a type that no TOML value has, which the part itself checks
    try:
        adapter.validate_json(json.dumps(value, default=str), strict=True)
    except ValidationError as error:
        wanted = " or ".join(dict.fromkeys(expected(detail) for detail in error.errors(include_url=False)))
        return f"expected {wanted}, got {shown(value)}"
    return ""
