"""The hooks of one plugin, called and checked, with reasons for its author."""

from __future__ import annotations

import functools
import inspect
import itertools
from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import Any

import pluggy

from tzk_core.errors import nearest
from tzk_core.plugins import hookspecs
from tzk_core.plugins.specs import SPEC_TYPES, Spec

GROUP = "tzk.v1"
"""The group of entry points, with the version of the hook interface, known before any import."""

HOOKS: tuple[str, ...] = tuple(spec_type.hook for spec_type in SPEC_TYPES)


MOST_PARTS = 1000
"""Of one hook of one plugin; more come from a generator that never ends."""


class FaultyPlugin(Exception):
    """A plugin breaks a rule of the hooks, which the message names."""


def specs_of(plugin: object, name: str) -> dict[str, tuple[Spec, ...]]:
    """Call the hooks that a plugin implements.

    Args:
        plugin: a module or an object.
        name: of the plugin.

    Returns:
        The specs of each hook, by its name.

    Raises:
        FaultyPlugin: if the plugin breaks a rule. Exceptions of its own code are raised as they are.
    """
    manager = _manager()
    _refuse_misspelt(plugin, manager)
    try:
        manager.register(plugin, name)
        specs = {
            spec_type.hook: _call(manager, spec_type)
            for spec_type in SPEC_TYPES
            if getattr(manager.hook, spec_type.hook).get_hookimpls()
        }
    finally:
        manager.unregister(name=name)  # so that a call reaches one plugin alone
    if not specs:
        raise FaultyPlugin(f"it implements no hook: mark one of {', '.join(HOOKS)} with @hookimpl")
    return specs


class _Manager(pluggy.PluginManager):
    """pluggy's, which looks up all attributes with `inspect.getattr_static`; of modules only functions."""

    def parse_hookimpl_opts(self, plugin: object, name: str) -> Any:
        if isinstance(plugin, ModuleType) and not inspect.isroutine(vars(plugin).get(name)):
            return None
        return super().parse_hookimpl_opts(plugin, name)


@functools.cache
def _manager() -> _Manager:
    """The manager with the hooks, which takes a while to make, and no plugins."""
    manager = _Manager("tzk")
    manager.add_hookspecs(hookspecs)
    return manager


def shortened(text: str, length: int) -> str:
    """`text` on one line of at most `length` characters."""
    line = " ".join(text.split())
    return line if len(line) <= length else line[: length - 1] + "…"


def _refuse_misspelt(plugin: object, manager: pluggy.PluginManager) -> None:
    """Refuse hooks with a wrong name or without a mark, which pluggy would never call."""
    for attribute in dir(plugin):
        options: Any = manager.parse_hookimpl_opts(plugin, attribute)
        name = (options and options.get("specname")) or attribute
        if options is None:
            function = inspect.isroutine(inspect.getattr_static(plugin, attribute, None))
            if not function or not name.startswith("tzk_"):
                continue
            if name in HOOKS:
                raise FaultyPlugin(f"its function {name} is not marked: put @hookimpl above it")
        if name not in HOOKS:
            raise FaultyPlugin(f"{name!r} is not a hook of {GROUP}{nearest(name, HOOKS)}; hooks: {', '.join(HOOKS)}")


def _call(manager: pluggy.PluginManager, spec_type: type[Spec]) -> tuple[Spec, ...]:
    expected = f"{spec_type.hook} should return a list of {spec_type.__name__}"
    results = getattr(manager.hook, spec_type.hook)()
    if not results:  # pluggy leaves None out
        raise FaultyPlugin(f"{expected}; got None")
    if isinstance(results[0], str | Mapping | Spec) or not isinstance(results[0], Iterable):
        raise FaultyPlugin(f"{expected}; got {_shown(results[0])}")
    specs = tuple(itertools.islice(results[0], MOST_PARTS + 1))
    if len(specs) > MOST_PARTS:
        raise FaultyPlugin(f"{expected} of at most {MOST_PARTS:,}; it goes on beyond that")
    names = set()
    for spec in specs:
        if not isinstance(spec, spec_type):
            raise FaultyPlugin(f"{expected}; one of its items is {_shown(spec)}")
        if spec.name in names:
            raise FaultyPlugin(f"{spec_type.hook} offers the {spec_type.kind} {spec.name!r} more than once")
        names.add(spec.name)
    return specs


def _shown(value: object) -> str:
    return f"{shortened(repr(value), 80)} (a {type(value).__name__})"
