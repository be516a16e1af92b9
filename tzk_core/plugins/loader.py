"""Installed plugins, loaded one by one: a faulty one loses only its parts.

pluggy checks hooks but does not isolate plugins. One failing import or hook would end the program, and a second plugin
of the same name would be dropped silently.
"""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from tzk_core.errors import nearest
from tzk_core.plugins.announced import announced
from tzk_core.plugins.isolation import isolated, worded
from tzk_core.plugins.records import PluginRecord, State, canonical
from tzk_core.plugins.specs import Spec
from tzk_core.plugins.validation import GROUP, FaultyPlugin, specs_of
from tzk_core.plugins.waiting import LONG, Waiting
from tzk_core.version import DISTRIBUTION, installed_version

__all__ = ["Builtin", "Loaded", "PluginRecord", "State", "canonical", "load_all"]

_ENTRY_POINT = re.compile(r"(?!\d)\w+(\.(?!\d)\w+)*(:(?!\d)\w+(\.(?!\d)\w+)*)?")


@dataclass(frozen=True)
class Builtin:
    """A built-in plugin and its distribution."""

    distribution: str
    plugin: object


@dataclass(frozen=True)
class Loaded:
    """A plugin's record and specs; there are none unless it is "ok"."""

    record: PluginRecord
    specs: tuple[Spec, ...] = ()


def load_all(
    builtin: Mapping[str, Builtin], allow: Collection[str] | None = None, path: Sequence[str] | None = None
) -> list[Loaded]:
    """Load every plugin, built-in ones first, then installed ones in alphabetical order.

    Of several plugins with one name, the first distribution in alphabetical order wins; the others are "shadowed".

    Args:
        allow: names of plugins or distributions to load, None for all. Other installed plugins are "disabled".
        path: replaces `sys.path` in the search for installed distributions.
    """
    loaded = [_load_builtin(name, plugin) for name, plugin in builtin.items()]
    taken = {plugin.record.name: plugin.record for plugin in loaded}
    allowed = None if allow is None else {canonical(name) for name in allow}
    records = sorted(announced(path), key=lambda record: (record.name, canonical(record.distribution)))
    with Waiting(LONG).watching() as waiting:
        loaded += _installed(records, taken, allowed=allowed, builtin=builtin, waiting=waiting)
    known = {name for plugin in loaded for name in _names(plugin.record)}
    return loaded + [_not_installed(name, loaded) for name in allow or () if canonical(name) not in known]


def _installed(
    records: Iterable[PluginRecord],
    taken: dict[str, PluginRecord],
    *,
    allowed: set[str] | None,
    builtin: Mapping[str, Builtin],
    waiting: Waiting,
) -> list[Loaded]:
    """Load the installed plugins, of which `taken` has those whose names are taken, by name."""
    loaded = []
    for record in records:
        if allowed is not None and not allowed & _names(record):
            reason = "not in the allow-list TZK_PLUGINS"
            loaded.append(Loaded(replace(record, state="disabled", reason=reason)))
        elif record.state != "ok":  # by its metadata
            loaded.append(Loaded(record))
        elif record.group != GROUP:
            loaded.append(Loaded(replace(record, state="incompatible", reason=_versions_apart(record.group))))
        elif record.name in taken:
            reason = _shadowed(record, by=taken[record.name], builtin=builtin)
            loaded.append(Loaded(replace(record, state="shadowed", reason=reason)))
        else:
            waiting.begin(f"the plugin {record.name!r} ({record.distribution} {record.version})", _way_out(record))
            loaded.append(_load_installed(record))
            taken[record.name] = record
    return loaded


def _names(record: PluginRecord) -> set[str]:
    return {canonical(record.name), canonical(record.distribution)}


def _load_builtin(name: str, builtin: Builtin) -> Loaded:
    specs = specs_of(builtin.plugin, name)
    place = f"{type(builtin.plugin).__module__}:{type(builtin.plugin).__name__}"
    version = installed_version(builtin.distribution) or ""
    record = PluginRecord(name, builtin.distribution, version, place, hooks=tuple(specs))
    return Loaded(record, _flattened(specs.values()))


def _load_installed(record: PluginRecord) -> Loaded:
    """Import the plugin and call its hooks.

    Whatever it raises becomes the reason of a "broken" record; Ctrl-C of the user is raised.
    """
    outcome = isolated(lambda: _specs(record))
    record = replace(record, remarks=outcome.remarks)
    if (error := outcome.error) is not None:
        top = re.split(r"[.:]", record.entry_point)[0]
        reason = str(error) if isinstance(error, FaultyPlugin) else worded(error, top)
        return Loaded(replace(record, state="broken", reason=reason))
    return Loaded(replace(record, hooks=tuple(outcome.value)), _flattened(outcome.value.values()))


def _way_out(record: PluginRecord) -> str:
    """How to do without a plugin that does not return."""
    return (
        "Ctrl-C ends this program. To do without the plugin, list the others in TZK_PLUGINS (empty for none), or"
        f" pip uninstall {record.distribution}"
    )


def _specs(record: PluginRecord) -> dict[str, tuple[Spec, ...]]:
    if not _ENTRY_POINT.fullmatch(record.entry_point):
        raise FaultyPlugin("its entry point should be 'package.module' or 'package.module:object'")
    if not record.name.strip() or "/" in record.name:
        raise FaultyPlugin("the name of its entry point should be a word without '/'")
    plugin = importlib.metadata.EntryPoint(record.name, record.entry_point, record.group).load()
    return specs_of(plugin, record.name)


def _flattened(groups: Iterable[tuple[Spec, ...]]) -> tuple[Spec, ...]:
    return tuple(spec for group in groups for spec in group)


def _versions_apart(group: str) -> str:
    reason = f"its entry point is in the group {group!r}, and this {DISTRIBUTION} reads {GROUP!r}"
    written, readable = (re.fullmatch(r"tzk\.v(\d+)", name) for name in (group, GROUP))
    if not written or not readable:
        return reason
    return f"{reason}: upgrade {DISTRIBUTION if int(written[1]) > int(readable[1]) else 'the plugin'}"


def _shadowed(record: PluginRecord, by: PluginRecord, builtin: Collection[str]) -> str:
    if record.name in builtin:
        return f"the name {record.name!r} is taken by the core: the plugin has to choose another"
    return (
        f"{by.distribution} {by.version} brings a plugin of the same name ({by.entry_point}):"
        f" uninstall one of them, or list the distributions to use in TZK_PLUGINS"
    )


def _not_installed(name: str, loaded: Iterable[Loaded]) -> Loaded:
    known = [name for plugin in loaded for name in (plugin.record.name, plugin.record.distribution)]
    reason = f"TZK_PLUGINS names it, but no such plugin or distribution is installed{nearest(name, known)}"
    return Loaded(PluginRecord(name, "", "", "", state="broken", reason=reason))
