"""The plugins that installed distributions announce in their metadata, read before any import."""

from __future__ import annotations

import importlib.metadata
import operator
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from tzk_core.plugins.records import PluginRecord, canonical
from tzk_core.plugins.validation import GROUP
from tzk_core.version import DISTRIBUTION, installed_version

ENTRY_POINTS = "entry_points.txt"
_OURS = re.compile(r"tzk(\.|\b)")
_FIELD = re.compile(r"^(Name|Version|Requires-Dist):(.*)", re.IGNORECASE | re.MULTILINE)
_CLAUSE = re.compile(r"(>=|<=|==|!=|>|<)\s*(\d+(?:\.\d+)*)")
_COMPARISONS = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
}


class _Metadata(NamedTuple):
    """The metadata of one distribution.

    fault: what is wrong with its METADATA.
    """

    name: str
    version: str
    requires: Sequence[str] = ()
    fault: str = ""


def announced(path: Sequence[str] | None) -> Iterator[PluginRecord]:
    """Records of all announced plugins, before any import; "broken" where metadata cannot be read.

    Distributions are read one by one. `importlib.metadata.entry_points()` would stop at unreadable metadata of any
    package, and would parse all of them (4.6 ms for 71 distributions, here 0.7 ms).

    Args:
        path: replaces `sys.path` in the search for installed distributions.
    """
    seen: set[str] = set()
    core = installed_version() or ""
    for distribution in importlib.metadata.distributions(path=list(sys.path if path is None else path)):
        text, fault = _entry_points(distribution)
        if not _OURS.search(text):
            continue
        metadata = _metadata(distribution)
        if canonical(metadata.name) in seen:
            continue  # installed twice: Python imports the one that comes first on the path
        seen.add(canonical(metadata.name))
        yield from _records(metadata, text, fault or metadata.fault, core=core)


def _entry_points(distribution: importlib.metadata.Distribution) -> tuple[str, str]:
    """The text of a distribution's entry points, and what is wrong with it.

    Bytes that are no text are replaced.
    """
    try:
        return distribution.read_text(ENTRY_POINTS) or "", ""
    except Exception as error:  # what another's files hold is not ours to foresee
        fault = f"its {ENTRY_POINTS} cannot be read ({error}): install it again"
    try:
        return (_folder(distribution) / ENTRY_POINTS).read_bytes().decode(errors="replace"), fault
    except (OSError, TypeError, AttributeError):
        return "", fault


def _folder(distribution: importlib.metadata.Distribution) -> Path:
    """The folder of a distribution's metadata, for which importlib has no public name."""
    return Path(getattr(distribution, "_path", ""))


def _metadata(distribution: importlib.metadata.Distribution) -> _Metadata:
    """Of its head alone.

    Each property of `Distribution` parses METADATA anew, and with it the whole README.
    """
    folder = _folder(distribution).name.rpartition(".")[0] or "unknown"
    name, _, version = folder.partition("-")
    try:
        text = distribution.read_text("METADATA") or distribution.read_text("PKG-INFO") or ""
        head, _, _ = text.partition("\n\n")
        fields = [(field.lower(), value.strip()) for field, value in _FIELD.findall(head)]
        of = dict(reversed(fields))
        if of.get("name"):
            requires = [value for field, value in fields if field == "requires-dist"]
            return _Metadata(of["name"], of.get("version", ""), requires)
        return _Metadata(name, version, fault="its METADATA has no Name: install it again")
    except Exception as error:  # as above
        return _Metadata(name, version, fault=f"its METADATA cannot be read ({error}): install it again")


def _records(metadata: _Metadata, text: str, fault: str, *, core: str) -> list[PluginRecord]:
    """The plugins of one distribution, and one record for whatever is wrong with its metadata.

    `core` is the version of the core that is installed; "" if it is not known.
    """
    broken = PluginRecord(metadata.name, metadata.name, metadata.version, "", state="broken", reason=fault)
    if fault:
        return [broken]
    pairs, faults = _parsed(text)
    unmet = _unmet(metadata.requires, core)
    state = replace(broken, state="incompatible" if unmet else "ok", reason=unmet)
    records = [replace(state, name=name, entry_point=value, group=group) for group, name, value in pairs]
    readable = [record for record in records if record.group == GROUP]
    wanted = readable or records  # a distribution may also have a plugin for another version of the core
    return wanted + ([replace(broken, reason="; ".join(faults))] if faults else [])


def _parsed(text: str) -> tuple[list[tuple[str, str, str]], list[str]]:
    """(group, name, value) of each entry point in a group of ours, and faults.

    The faults are what is wrong with other lines.
    """
    pairs, faults, group = [], [], ""
    for number, written in enumerate(text.splitlines(), 1):
        line = written.strip()
        if not line or line[0] in "#;":
            continue
        if line.startswith("[") and line.endswith("]"):
            group = line[1:-1].strip()
            continue
        name, sign, value = (part.strip() for part in line.partition("="))
        ours = group == "tzk" or group.startswith("tzk.")
        if not sign or not group:
            expected = "expected a [group], or name = package.module in one"
            faults.append(f"line {number} of its {ENTRY_POINTS} is broken: {expected}; got {line!r}")
        elif ours:
            pairs.append((group, name, value))
    return pairs, faults


def _unmet(requires: Sequence[str], core: str) -> str:
    """A sentence on the requirement of the core that the installed one fails; "" without.

    Only the clauses that compare plain releases are read, as in `tzk-core>=0.2,<0.3`. pip checks the others, and a
    library that reads them all would take longer to import than the plugins.
    """
    installed = re.match(r"\d+(\.\d+)*", core)
    if not installed:
        return ""
    for requirement in requires:
        wanted, _, marker = requirement.partition(";")
        name, specifiers = re.match(r"\s*([\w.-]*)\s*(?:\[[^\]]*\])?(.*)", wanted).groups()  # type: ignore[union-attr]
        if canonical(name) != DISTRIBUTION or "extra" in marker:
            continue
        clauses = [_CLAUSE.fullmatch(clause.strip()) for clause in specifiers.strip(" ()").split(",")]
        for clause in filter(None, clauses):
            if not _COMPARISONS[clause[1]](*_aligned(installed[0], clause[2])):
                newer = clause[1] in (">=", ">", "==")
                advice = f"upgrade {DISTRIBUTION}" if newer else "upgrade the plugin"
                return f"it requires {wanted.strip()!r}, and {DISTRIBUTION} {installed[0]} is installed: {advice}"
    return ""


def _aligned(one: str, other: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Two releases as numbers of one length: 0.2 is 0.2.0."""
    releases = [[int(number) for number in release.split(".")] for release in (one, other)]
    length = max(map(len, releases))
    first, second = (tuple(release + [0] * (length - len(release))) for release in releases)
    return first, second
