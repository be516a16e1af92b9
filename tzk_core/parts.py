"""What a part of a model was built from, for checkpoints to build it again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from tzk_core.moved import home_of


@dataclass(frozen=True)
class Part:
    """A registered part and the arguments of its call, which may be parts again.

    Who registered it says what to install.
    """

    name: str
    plugin: str
    distribution: str
    version: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    state_version: int = 1

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, written: Mapping[str, Any]) -> Part:
        arguments = {key: _parts_in(value) for key, value in written["arguments"].items()}
        return cls(**{**written, **home_of(written)._asdict(), "arguments": arguments})

    def within(self) -> Iterator[Part]:
        """The part itself and those in its arguments."""
        yield self
        yield from _within(self.arguments)

    @property
    def qualified_name(self) -> str:
        return f"{self.plugin}/{self.name}"


KEYS = {entry.name for entry in fields(Part)}
"""What a table in the arguments of a part has if it is a part again."""


def _parts_in(value: Any) -> Any:
    """An argument as it was before it was written as JSON."""
    if isinstance(value, Mapping):
        if set(value) == KEYS:
            return Part.from_json(value)
        return {key: _parts_in(item) for key, item in value.items()}
    return [_parts_in(item) for item in value] if isinstance(value, list) else value


def _within(value: Any) -> Iterator[Part]:
    if isinstance(value, Part):
        yield from value.within()
    elif isinstance(value, Mapping | list | tuple):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _within(item)


@dataclass(frozen=True)
class FlowParts:
    """The parts of the shared flow: the shape of T, base density, and transform.

    The transform is one recipe or a list of layers.

    base: the name alone of a density of the core, which has no arguments.
    """

    shape: tuple[int, ...]
    base: str | Part
    recipe: Part | None = None
    layers: tuple[Part, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, written: Mapping[str, Any]) -> FlowParts:
        return cls(
            tuple(written["shape"]),
            written["base"] if isinstance(written["base"], str) else Part.from_json(written["base"]),
            Part.from_json(written["recipe"]) if written["recipe"] else None,
            tuple(Part.from_json(part) for part in written["layers"]),
        )
