"""What a part of a model was built from, kept beside it so that a checkpoint can build it again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Part:
    """A registered part and the arguments that it was called with; who registered it says what to install."""

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
        return cls(**written)

    @property
    def qualified_name(self) -> str:
        return f"{self.plugin}/{self.name}"


@dataclass(frozen=True)
class FlowParts:
    """The shared flow: the shape of T, the density of z, and one recipe or a list of layers."""

    shape: tuple[int, ...]
    base: str
    recipe: Part | None = None
    layers: tuple[Part, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, written: Mapping[str, Any]) -> FlowParts:
        return cls(
            tuple(written["shape"]),
            written["base"],
            Part.from_json(written["recipe"]) if written["recipe"] else None,
            tuple(Part.from_json(part) for part in written["layers"]),
        )
