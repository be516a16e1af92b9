"""Specs: the parts of a plugin, described in text so that listing them imports nothing."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from typing import ClassVar

from tzk_core.errors import TzkError

_NAME = re.compile(r"[a-z0-9]+([._-][a-z0-9]+)*")
_TARGET = re.compile(r"(?!\d)\w+(\.(?!\d)\w+)*:(?!\d)\w+(\.(?!\d)\w+)*")


class FaultySpec(TzkError, ValueError):
    """A spec has an unusable name, target or summary; raised where it is made."""


@dataclass(frozen=True)
class Spec:
    """One part that a plugin offers; subclasses say what type of part.

    name: as in a config.
    target: "package.module:Attribute", imported when the part is first used. A config gives the arguments of its
        signature by keyword.
    summary: one line about the part.
    kind: the type of part, in words. hook: the hook that offers it.
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
    """A function that builds a shared flow for one shape: `[flow] recipe = NAME`."""

    kind: ClassVar[str] = "flow recipe"
    hook: ClassVar[str] = "tzk_flow_recipes"


@dataclass(frozen=True)
class Command(Spec):
    """A click command: `tzk NAME`."""

    kind: ClassVar[str] = "command"
    hook: ClassVar[str] = "tzk_commands"


@dataclass(frozen=True)
class Implementation(Spec):
    """Another computation of a layer on one type of device, as by a kernel.

    The target has the layer's signature and parameter names, so that a checkpoint opens with or without it. For several
    consecutive layers it is a class without arguments, a `tzk_core.transforms.composite.Fused`.

    Either may have a static method `unusable(device: str) -> str`: the reason why it cannot be used on this machine, ""
    if it can. The layers are then computed as they are, and `tzk doctor` and run.json give the reason.
    """

    layer: str
    """The name of the flow layer, or of several consecutive ones, separated by spaces."""
    device: str
    """The type of device as torch names it, such as "cuda"."""

    kind: ClassVar[str] = "implementation"
    hook: ClassVar[str] = "tzk_implementations"


@dataclass(frozen=True)
class Metric(Spec):
    """A `tzk_core.evaluation.metrics.Metric`: `[[evaluation.metrics]] type = NAME`."""

    kind: ClassVar[str] = "metric"
    hook: ClassVar[str] = "tzk_metrics"


@dataclass(frozen=True)
class Optimizer(Spec):
    """A class that moves parameters, called with a `tzk_core.training.optimizers.Trained`: `optimizer = NAME`."""

    kind: ClassVar[str] = "optimizer"
    hook: ClassVar[str] = "tzk_optimizers"


@dataclass(frozen=True)
class Schedule(Spec):
    """A schedule of the learning rate: `[training] schedule = NAME`.

    It is a function of the number of steps that returns the rate's share by step.
    """

    kind: ClassVar[str] = "schedule"
    hook: ClassVar[str] = "tzk_schedules"


@dataclass(frozen=True)
class Base(Spec):
    """A `tzk_core.distributions.base.Reparametrised`, the density of the shared flow's latent: `[flow] base = NAME`."""

    kind: ClassVar[str] = "base distribution"
    hook: ClassVar[str] = "tzk_bases"


@dataclass(frozen=True)
class ObjectiveTerm(Spec):
    """A class whose objects take a `tzk_core.objective.extra.TermBatch`: `[[objective.terms]] type = NAME`."""

    kind: ClassVar[str] = "objective term"
    hook: ClassVar[str] = "tzk_objective_terms"


@dataclass(frozen=True)
class Sampler(Spec):
    """A class whose objects are `tzk_core.model.samplers.Sampler`s: `tzk sample --sampler NAME`."""

    kind: ClassVar[str] = "sampler"
    hook: ClassVar[str] = "tzk_samplers"


@dataclass(frozen=True)
class Observer(Spec):
    """A `tzk_core.training.observers.Observer`: `[[observers]] type = NAME`."""

    kind: ClassVar[str] = "observer"
    hook: ClassVar[str] = "tzk_observers"


@dataclass(frozen=True)
class Picture(Spec):
    """A function `(subject: tzk_core.report.subject.Subject, folder: Path)`: `[pictures] draw = [NAME]`."""

    kind: ClassVar[str] = "picture"
    hook: ClassVar[str] = "tzk_pictures"


@dataclass(frozen=True)
class Report(Spec):
    """A function `(folder, experiment)` that writes a file about a finished run.

    `tzk run` calls it last.

    folder: `Path` of the run, complete. experiment: the `Experiment` at hand, or None. It returns the file's `Path`.
    """

    kind: ClassVar[str] = "report"
    hook: ClassVar[str] = "tzk_reports"


SPEC_TYPES: tuple[type[Spec], ...] = (
    KnowledgeType,
    Dataset,
    FlowLayer,
    FlowRecipe,
    Command,
    Implementation,
    Metric,
    Optimizer,
    Schedule,
    Base,
    ObjectiveTerm,
    Sampler,
    Observer,
    Picture,
    Report,
)
