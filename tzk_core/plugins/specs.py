"""What a plugin hands over: its parts described in text, so that nothing is imported to list them."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from typing import ClassVar

from tzk_core.errors import TzkError

_NAME = re.compile(r"[a-z0-9]+([._-][a-z0-9]+)*")
_TARGET = re.compile(r"(?!\d)\w+(\.(?!\d)\w+)*:(?!\d)\w+(\.(?!\d)\w+)*")


class FaultySpec(TzkError, ValueError):
    """A spec has a name, target or summary that cannot be used; raised where the plugin writes it."""


@dataclass(frozen=True)
class Spec:
    """One part that a plugin offers: the name that a config uses, where it is, and a line about it.

    `target` is "package.module:Attribute" and is imported when the part is first used, not before. A
    config gives the arguments of its signature by keyword. Subclasses say which kind of part it is.
    """

    name: str
    target: str
    summary: str

    kind: ClassVar[str] = "part"
    hook: ClassVar[str] = ""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not isinstance(value, str) or not value.strip():
                self._refuse(field.name, "a text that is not empty")
        if not _NAME.fullmatch(self.name):
            self._refuse("name", "lower-case words joined by '-', '_' or '.', such as 'two-moons'")
        if not _TARGET.fullmatch(self.target):
            self._refuse("target", "'package.module:Attribute', such as 'my_package.data:TwoMoons'")
        if "\n" in self.summary:
            self._refuse("summary", "a single line")

    def _refuse(self, field: str, expected: str) -> None:
        where = f"{type(self).__name__}(name={self.name!r})"
        raise FaultySpec(f"{where}: {field} should be {expected}; got {getattr(self, field)!r}")


@dataclass(frozen=True)
class KnowledgeType(Spec):
    """A `tzk_core.knowledge.Knowledge`: `[[knowledge]] type = NAME`."""

    kind: ClassVar[str] = "knowledge type"
    hook: ClassVar[str] = "tzk_knowledge_types"


@dataclass(frozen=True)
class Dataset(Spec):
    """A `tzk_core.data.protocol.Dataset`: `[[datasets]] type = NAME`."""

    kind: ClassVar[str] = "data set"
    hook: ClassVar[str] = "tzk_datasets"


@dataclass(frozen=True)
class FlowLayer(Spec):
    """An nflows `Transform`: `[[flow.layers]] type = NAME`."""

    kind: ClassVar[str] = "flow layer"
    hook: ClassVar[str] = "tzk_flow_layers"


@dataclass(frozen=True)
class FlowRecipe(Spec):
    """A function that builds a whole shared flow for a shape of observations: `[flow] recipe = NAME`."""

    kind: ClassVar[str] = "flow recipe"
    hook: ClassVar[str] = "tzk_flow_recipes"


@dataclass(frozen=True)
class Command(Spec):
    """A click command: `tzk NAME`."""

    kind: ClassVar[str] = "command"
    hook: ClassVar[str] = "tzk_commands"


@dataclass(frozen=True)
class Implementation(Spec):
    """Another way to compute a registered layer on one kind of device, such as a fused kernel.

    The target has the layer's signature and parameter names, so that a checkpoint opens with or without it. For several
    layers that follow one another it is a class without arguments, a `tzk_core.transforms.composite.Fused`. Either
    may have a static method `unusable(device: str) -> str`, the reason why it is not used here and now, "" if it is:
    the layers are then computed as they are, and `tzk doctor` and run.json say why.
    """

    layer: str
    """Name of the flow layer that it computes; of several that follow one another, with spaces between."""
    device: str
    """torch's name of the kind of device, such as "cuda"."""

    kind: ClassVar[str] = "implementation"
    hook: ClassVar[str] = "tzk_implementations"


KINDS: tuple[type[Spec], ...] = (KnowledgeType, Dataset, FlowLayer, FlowRecipe, Command, Implementation)
