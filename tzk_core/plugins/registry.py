"""The parts that plugins offer, by spec type and name."""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import os
import sys
import warnings
from collections.abc import Collection, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

from tzk_core.errors import Note, TzkError, nearest
from tzk_core.moved import home
from tzk_core.plugins.builtin import BUILTIN, LEFT_OUT, registered_name
from tzk_core.plugins.directory import elsewhere
from tzk_core.plugins.isolation import Outcome, isolated, worded
from tzk_core.plugins.loader import Loaded, load_all
from tzk_core.plugins.records import PluginRecord, canonical
from tzk_core.plugins.specs import SPEC_TYPES, FlowLayer, Spec
from tzk_core.plugins.validation import GROUP
from tzk_core.plugins.waiting import LONG_PART, waiting_for
from tzk_core.version import current_name


class UnknownPart(TzkError, LookupError):
    """No plugin offers a part of this type and name."""


class NameClash(TzkError, LookupError):
    """Several plugins offer a part of this type and name."""


class PartNotLoadable(TzkError):
    """The target of a registered part cannot be imported."""


class MissingPlugin(TzkError):
    """A required distribution is not installed, or its plugin did not load."""


class FaultyPlugins(TzkError):
    """An installed plugin is faulty, and TZK_PLUGINS_STRICT is 1."""


_ABSENT = "not installed"
_LEFT_OUT = {registered_name(name): f"nflows' {name} {why}" for name, why in LEFT_OUT.items()}


@dataclass(frozen=True)
class Registered:
    """A spec and the plugin that offers it."""

    spec: Spec
    plugin: str
    distribution: str
    version: str

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def qualified_name(self) -> str:
        """ "plugin/name", which is unique whatever other plugins offer."""
        return f"{self.plugin}/{self.spec.name}"

    @property
    def source(self) -> str:
        """The plugin and its distribution, for messages."""
        return f"plugin {self.plugin!r}, {self.distribution} {self.version}".rstrip()

    @property
    def package(self) -> str:
        """The top-level package, or module, of the target."""
        return self.spec.target.partition(":")[0].partition(".")[0]

    def load(self) -> Any:
        """Import the target, a class or a function.

        What the import prints goes to stderr, and what it changes of the process is put back, with a `Note`.

        Raises:
            PartNotLoadable: with the reason.
        """
        module, _, attributes = self.spec.target.partition(":")
        who = f"the {self.spec.kind} {self.name!r} ({self.source})"
        there = attributes.partition(".")[0] in vars(sys.modules.get(module, object))
        with nullcontext() if there else waiting_for(who, "Ctrl-C ends this program", seconds=LONG_PART):
            outcome = _fetched(module, attributes)  # thousands of types of one class would start as many threads
        problem = ""
        if outcome.error is not None:
            problem = worded(outcome.error, self.package)
        elif not callable(outcome.value):
            problem = f"expected a class or a function; got {type(outcome.value).__name__}"
        if outcome.faults:
            warnings.warn(Note(f"{self.source}: importing {module} {' and '.join(outcome.faults)}"), stacklevel=2)
        if problem:
            raise PartNotLoadable(f"{who} cannot be loaded from {self.spec.target!r}: {problem}") from outcome.error
        return outcome.value


def _fetched(module: str, attributes: str) -> Outcome:
    """The attribute of a module, isolated where the module is imported for the first time."""

    def fetch() -> Any:
        return functools.reduce(getattr, attributes.split("."), importlib.import_module(module))

    if module not in sys.modules:
        return isolated(fetch)
    try:
        return Outcome(fetch())
    except Exception as error:
        return Outcome(error=error)


class Registry:
    """The plugins of this process, and the parts that the working ones offer; immutable."""

    def __init__(self, loaded: Iterable[Loaded]) -> None:
        loaded = list(loaded)
        self._parts: dict[type[Spec], dict[str, list[Registered]]] = {}
        for plugin in loaded:
            record = plugin.record
            for spec in plugin.specs:
                part = Registered(spec, record.name, record.distribution, record.version)
                self._parts.setdefault(_spec_type(spec), {}).setdefault(spec.name, []).append(part)
        self.plugins: tuple[PluginRecord, ...] = tuple(self._with_clashes(plugin.record) for plugin in loaded)

    @classmethod
    def discover(
        cls, allow: Collection[str] | None = None, *, strict: bool = False, path: Sequence[str] | None = None
    ) -> Registry:
        """Load the built-in plugins and the installed ones.

        Args:
            allow, path: as of `loader.load_all`.
            strict: whether faults are errors. A plugin that `allow` leaves out is no fault.

        Raises:
            FaultyPlugins: if `strict`, and a plugin is broken, incompatible or shadowed, or names clash.
        """
        registry = cls(load_all(BUILTIN, allow, path))
        faults = [str(record) for record in registry.plugins if record.reason and record.state != "disabled"]
        if strict and faults:
            raise FaultyPlugins("TZK_PLUGINS_STRICT is set, and " + "; ".join(faults))
        return registry

    def all(self, spec_type: type[Spec]) -> list[Registered]:
        """All parts of a type in alphabetical order, including those whose names clash."""
        return [part for _, parts in sorted(self._parts.get(spec_type, {}).items()) for part in parts]

    def find(self, spec_type: type[Spec], name: str) -> Registered:
        """Find a part by its plain name or as "plugin/name".

        A plain name of the core is the core's, whatever plugins offer.

        Raises:
            UnknownPart: if no plugin offers it.
            NameClash: if several plugins do, and none is the core's.
        """
        parts = self._find_all(spec_type, name)
        if not parts:
            raise UnknownPart(self._unknown(spec_type, name))
        if len(parts) > 1:
            offers = " and ".join(f"{part.distribution} (write {part.qualified_name!r})" for part in parts)
            raise NameClash(f"the {spec_type.kind} {name!r} is offered by {offers}: say which one")
        return parts[0]

    def require(self, distributions: Sequence[str], wanted_by: str) -> None:
        """Check that the plugins of these distributions are installed and loaded.

        Args:
            wanted_by: what needs them, such as the name of a config file; the message begins with it.

        Raises:
            MissingPlugin: with the reason for each distribution.
        """
        problems = {name: self._problem(name) for name in dict.fromkeys(distributions)}
        faulty = {name: problem for name, problem in problems.items() if problem not in ("", _ABSENT)}
        sentences = [f"{wanted_by} needs {name!r}, {problem}" for name, problem in faulty.items()]
        if absent := [name for name, problem in problems.items() if problem == _ABSENT]:
            listed = " and ".join(repr(name) for name in absent)
            which = "which is" if len(absent) == 1 else "which are"
            install = f"pip install {' '.join(absent)}"
            sentences.insert(0, f"{wanted_by} needs {listed}, {which} not installed: {install}")
        if sentences:
            raise MissingPlugin("; ".join(sentences))

    def _problem(self, distribution: str) -> str:
        """The fault of a distribution, as the end of a sentence; "" without one."""
        wanted = current_name(canonical(distribution))
        records = [record for record in self.plugins if canonical(record.distribution) == wanted]
        if records:
            faulty = [f"but its {record}" for record in records if record.state != "ok"]
            return ", and ".join(faulty)
        for record in self.plugins:
            if record.distribution and canonical(record.name) == wanted:
                return f"which is a plugin, not a distribution: name {record.distribution!r} instead"
        try:
            importlib.metadata.distribution(distribution)
        except (importlib.metadata.PackageNotFoundError, ValueError):
            return _ABSENT
        return f"which is installed but announces no plugin in the group {GROUP!r}"

    def _find_all(self, spec_type: type[Spec], name: str) -> list[Registered]:
        plugin, _, plain = name.rpartition("/")
        parts = self._parts.get(spec_type, {}).get(plain, [])
        if plugin:
            moved = home(spec_type.kind, name)  # a checkpoint has it as the core's
            return [part for part in parts if part.plugin == plugin or moved and part.plugin == moved.plugin]
        return [part for part in parts if part.plugin in BUILTIN] or parts

    def _unknown(self, spec_type: type[Spec], name: str) -> str:
        if moved := home(spec_type.kind, name):
            problem = self._problem(moved.distribution)
            advice = f"pip install {moved.distribution}" if problem == _ABSENT else problem.removeprefix("but ")
            return f"the {spec_type.kind} {name!r} is in the plugin {moved.distribution!r}: {advice}"
        plugin, _, plain = name.rpartition("/")
        names = self._parts.get(spec_type, {})
        known = [part.qualified_name for part in self.all(spec_type)] if plugin else list(names)
        message = f"no {spec_type.kind} is called {name!r}{nearest(name, known)}"
        message += elsewhere(spec_type, plain, [record.distribution for record in self.plugins])
        if spec_type is FlowLayer and plain in _LEFT_OUT:
            message += f" ({_LEFT_OUT[plain]})"
        return message + self.not_available(plugin)

    def not_available(self, plugin: str = "") -> str:
        """The plugins that are not "ok", as the end of a sentence.

        "" if there are none.

        Args:
            plugin: the name of one of them, or of its distribution; all by default.
        """
        wanted = canonical(plugin)
        faulty = [
            str(record)
            for record in self.plugins
            if record.state != "ok" and wanted in ("", canonical(record.name), canonical(record.distribution))
        ]
        return "; not available: " + "; ".join(faulty) if faulty else ""

    def _with_clashes(self, record: PluginRecord) -> PluginRecord:
        """The record with its names that are hidden, or that it shares with other plugins."""
        clashes = [
            _clash(own, parts)
            for names in self._parts.values()
            for parts in names.values()
            for own in parts
            if len(parts) > 1 and own.plugin == record.name and record.name not in BUILTIN
        ]
        return replace(record, reason="; ".join(clashes)) if clashes and record.state == "ok" else record


def _clash(own: Registered, parts: Sequence[Registered]) -> str:
    """What a plugin's author has to know of another part of its name."""
    others = [part.plugin for part in parts if part.plugin != own.plugin]
    which, advice = f"the {own.spec.kind} {own.name!r}", f"write {own.qualified_name!r}"
    if core := [plugin for plugin in others if plugin in BUILTIN]:
        return f"{which} is hidden by {core[0]!r}, whose name this is: {advice}"
    return f"{which} is also offered by {', '.join(map(repr, others))}: {advice}"


def _spec_type(spec: Spec) -> type[Spec]:
    """The type of a spec, also of one that a plugin has derived."""
    return next((spec_type for spec_type in SPEC_TYPES if isinstance(spec, spec_type)), type(spec))


def registry() -> Registry:
    """The plugins of this process, loaded once.

    The environment variable TZK_PLUGINS=a,b loads only these installed plugins (names of plugins or distributions;
    none where it is empty). TZK_PLUGINS_STRICT=1 raises `FaultyPlugins` if one of them is faulty.
    """
    return _registry(os.environ.get("TZK_PLUGINS"), os.environ.get("TZK_PLUGINS_STRICT", ""))


@functools.cache
def _registry(listed: str | None, strict: str) -> Registry:
    if strict not in ("", "0", "1"):
        raise TzkError(f"the environment variable TZK_PLUGINS_STRICT should be 1 or 0; got {strict!r}")
    allow = None if listed is None else [name.strip() for name in listed.split(",") if name.strip()]
    return Registry.discover(allow, strict=strict == "1")
