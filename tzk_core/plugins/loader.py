"""Finds the installed plugins and loads each one by itself: a bad one costs nothing but its own parts.

pluggy checks hooks but isolates nothing: one failing import or one raising hook would end the program, and a
second plugin of the same name would be dropped in silence.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import re
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from tzk_core.errors import nearest
from tzk_core.plugins.specs import Spec
from tzk_core.plugins.validation import GROUP, FaultyPlugin, shortened, specs_of
from tzk_core.version import DISTRIBUTION, installed_version

State = Literal["ok", "disabled", "broken", "incompatible", "shadowed"]
_ENTRY_POINT = re.compile(r"(?!\d)\w+(\.(?!\d)\w+)*(:(?!\d)\w+(\.(?!\d)\w+)*)?")


@dataclass(frozen=True)
class PluginRecord:
    """What became of a plugin: the `hooks` it implements, the `reason` why it is not ok or what clashes."""

    name: str
    distribution: str
    version: str
    entry_point: str
    """What the distribution announced: "package.module" or "package.module:object"."""
    group: str = GROUP
    state: State = "ok"
    hooks: tuple[str, ...] = ()
    reason: str = ""

    def __str__(self) -> str:
        source = f"{self.distribution} {self.version}".strip() or "no distribution"
        place = f"plugin {self.name!r} ({source}, {self.entry_point or 'no entry point'})"
        return f"{place} is {self.state}" + (f": {self.reason}" if self.reason else "")


@dataclass(frozen=True)
class Builtin:
    """A plugin that is always there, and the distribution that it comes with."""

    distribution: str
    plugin: object


@dataclass(frozen=True)
class Loaded:
    """A plugin's record and the specs that its hooks returned; none unless its state is "ok"."""

    record: PluginRecord
    specs: tuple[Spec, ...] = ()


def load_all(
    builtin: Mapping[str, Builtin], allow: Collection[str] | None = None, path: Sequence[str] | None = None
) -> list[Loaded]:
    """Every plugin, built-in ones first, then the installed ones in alphabetical order.

    Of the installed ones, `allow` (names of plugins or of distributions) are loaded and the others are
    "disabled"; None stands for all. Of several with one name, the first distribution in the alphabet wins and
    the others are "shadowed". `path` replaces `sys.path` in the search for installed distributions.
    """
    loaded = [_load_builtin(name, each) for name, each in builtin.items()]
    taken = {each.record.name: each.record for each in loaded}
    allowed = None if allow is None else {canonical(name) for name in allow}
    for record in sorted(_installed(path), key=lambda found: (found.name, canonical(found.distribution))):
        if allowed is not None and not allowed & _names(record):
            reason = "not in the allow-list TZK_PLUGINS"
            loaded.append(Loaded(replace(record, state="disabled", reason=reason)))
        elif record.group != GROUP:
            loaded.append(Loaded(replace(record, state="incompatible", reason=_versions_apart(record.group))))
        elif record.name in taken:
            reason = _shadowed(record, by=taken[record.name], builtin=builtin)
            loaded.append(Loaded(replace(record, state="shadowed", reason=reason)))
        else:
            loaded.append(_load_installed(record))
            taken[record.name] = record
    found = {name for each in loaded for name in _names(each.record)}
    return loaded + [_not_installed(name, loaded) for name in allow or () if canonical(name) not in found]


def canonical(distribution: str) -> str:
    """The normal form of a distribution's name: "TzK_Plugin.X" and "tzk-plugin-x" are the same (PEP 503)."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def _names(record: PluginRecord) -> set[str]:
    return {canonical(record.name), canonical(record.distribution)}


def _installed(path: Sequence[str] | None) -> Iterator[PluginRecord]:
    """A record for each announced plugin, nothing imported yet.

    Distributions are read one by one rather than with `importlib.metadata.entry_points()`, which unreadable
    metadata of any package would stop, and few need parsing (0.7 ms for 71 of them instead of 4.6 ms).
    """
    seen: set[str] = set()
    for distribution in importlib.metadata.distributions(path=list(sys.path if path is None else path)):
        with contextlib.suppress(Exception):  # damaged metadata are pip's to report
            if "tzk" not in (distribution.read_text("entry_points.txt") or ""):
                continue
            name = distribution.metadata["Name"] or "unknown"
            if canonical(name) in seen:
                continue  # installed twice: Python imports the one that comes first on the path
            seen.add(canonical(name))
            announced = [
                PluginRecord(entry.name, name, distribution.version or "", entry.value, entry.group)
                for entry in distribution.entry_points
                if entry.group == "tzk" or entry.group.startswith("tzk.")
            ]
            spoken = [record for record in announced if record.group == GROUP]
            yield from (
                spoken or announced
            )  # a distribution may bring a second plugin for another version of the core


def _load_builtin(name: str, builtin: Builtin) -> Loaded:
    specs = specs_of(builtin.plugin, name)
    place = f"{type(builtin.plugin).__module__}:{type(builtin.plugin).__name__}"
    version = installed_version(builtin.distribution) or ""
    record = PluginRecord(name, builtin.distribution, version, place, hooks=tuple(specs))
    return Loaded(record, _flattened(specs.values()))


def _load_installed(record: PluginRecord) -> Loaded:
    """Imports the plugin and calls its hooks. Neither an exception nor sys.exit gets out; Ctrl-C does."""
    try:
        if not _ENTRY_POINT.fullmatch(record.entry_point):
            raise FaultyPlugin("its entry point should be 'package.module' or 'package.module:object'")
        if not record.name.strip() or "/" in record.name:
            raise FaultyPlugin("the name of its entry point should be a word without '/'")
        with contextlib.redirect_stdout(sys.stderr):  # what it prints may not end up in `--json`
            plugin = importlib.metadata.EntryPoint(record.name, record.entry_point, record.group).load()
            specs = specs_of(plugin, record.name)
    except (Exception, SystemExit) as error:
        return Loaded(replace(record, state="broken", reason=_reason(error)))
    return Loaded(replace(record, hooks=tuple(specs)), _flattened(specs.values()))


def _flattened(groups: Iterable[tuple[Spec, ...]]) -> tuple[Spec, ...]:
    return tuple(spec for group in groups for spec in group)


def _reason(error: BaseException) -> str:
    """The exception on one line, and the place outside the loader that it came from."""
    if isinstance(error, FaultyPlugin):
        return str(error)
    import traceback  # only broken plugins need it

    loading = (__file__, "<frozen", importlib.__file__, "pluggy")
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not any(part in frame.filename for part in loading)
    ]
    place = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    return shortened(f"{type(error).__name__}: {error}", 300) + place


def _versions_apart(group: str) -> str:
    reason = f"its entry point is in the group {group!r}, and this {DISTRIBUTION} reads {GROUP!r}"
    written, spoken = (re.fullmatch(r"tzk\.v(\d+)", each) for each in (group, GROUP))
    if not written or not spoken:
        return reason
    return f"{reason}: upgrade {DISTRIBUTION if int(written[1]) > int(spoken[1]) else 'the plugin'}"


def _shadowed(record: PluginRecord, by: PluginRecord, builtin: Collection[str]) -> str:
    if record.name in builtin:
        return f"the name {record.name!r} is taken by the core: the plugin has to choose another"
    return (
        f"{by.distribution} {by.version} brings a plugin of the same name ({by.entry_point}):"
        f" uninstall one of them, or list the distributions to use in TZK_PLUGINS"
    )


def _not_installed(name: str, loaded: Iterable[Loaded]) -> Loaded:
    known = [known for each in loaded for known in (each.record.name, each.record.distribution)]
    reason = f"TZK_PLUGINS names it, but no such plugin or distribution is installed{nearest(name, known)}"
    return Loaded(PluginRecord(name, "", "", "", state="broken", reason=reason))
