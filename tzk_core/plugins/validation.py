"""Calls the hooks of one plugin and checks what they return, with reasons that its author can act on."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

import pluggy

from tzk_core.errors import nearest
from tzk_core.plugins import hookspecs
from tzk_core.plugins.specs import KINDS, Spec

GROUP = "tzk.v1"
"""Group of entry points. It carries the version of the hook interface, known before anything is imported."""

HOOKS: tuple[str, ...] = tuple(kind.hook for kind in KINDS)


class FaultyPlugin(Exception):
    """A plugin breaks the rules of the hooks; the message says how."""


def specs_of(plugin: object, name: str) -> dict[str, tuple[Spec, ...]]:
    """What each hook that the plugin (a module or an object) implements returned, by the hook's name.

    Raises `FaultyPlugin` where the plugin breaks the rules, and whatever its own code raises.
    """
    manager = pluggy.PluginManager("tzk")  # one for each plugin: a call reaches nobody else
    manager.add_hookspecs(hookspecs)
    _refuse_misspelt(plugin, manager)
    manager.register(plugin, name)
    specs = {
        kind.hook: _call(manager, kind) for kind in KINDS if getattr(manager.hook, kind.hook).get_hookimpls()
    }
    if not specs:
        raise FaultyPlugin(f"it implements no hook: mark one of {', '.join(HOOKS)} with @hookimpl")
    return specs


def shortened(text: str, length: int) -> str:
    """`text` on one line of at most `length` characters."""
    line = " ".join(text.split())
    return line if len(line) <= length else line[: length - 1] + "…"


def _refuse_misspelt(plugin: object, manager: pluggy.PluginManager) -> None:
    """pluggy takes a marked function of any name, and leaves an unmarked one alone: neither is called."""
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
            raise FaultyPlugin(
                f"{name!r} is not a hook of {GROUP}{nearest(name, HOOKS)}; hooks: {', '.join(HOOKS)}"
            )


def _call(manager: pluggy.PluginManager, kind: type[Spec]) -> tuple[Spec, ...]:
    expected = f"{kind.hook} should return a list of {kind.__name__}"
    results = getattr(manager.hook, kind.hook)()
    if not results:  # pluggy leaves None out
        raise FaultyPlugin(f"{expected}; got None")
    if isinstance(results[0], str | Mapping | Spec) or not isinstance(results[0], Iterable):
        raise FaultyPlugin(f"{expected}; got {_shown(results[0])}")
    specs = tuple(results[0])
    names = set()
    for spec in specs:
        if not isinstance(spec, kind):
            raise FaultyPlugin(f"{expected}; one of its items is {_shown(spec)}")
        if spec.name in names:
            raise FaultyPlugin(f"{kind.hook} offers the {kind.kind} {spec.name!r} more than once")
        names.add(spec.name)
    return specs


def _shown(value: object) -> str:
    return f"{shortened(repr(value), 80)} (a {type(value).__name__})"
