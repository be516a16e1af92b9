"""What is known of a plugin: where it is from, its state, and why."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from tzk_core.plugins.validation import GROUP

State = Literal["ok", "disabled", "broken", "incompatible", "shadowed"]


@dataclass(frozen=True)
class PluginRecord:
    """What was loaded of a plugin.

    hooks: the hooks that it implements. reason: why its state is not "ok", or which of its names clash.
    remarks: what else is worth knowing, such as that it is slow to load.
    """

    name: str
    distribution: str
    version: str
    entry_point: str
    """As the distribution announces it: "package.module" or "package.module:object"."""
    group: str = GROUP
    state: State = "ok"
    hooks: tuple[str, ...] = ()
    reason: str = ""
    remarks: tuple[str, ...] = ()

    def __str__(self) -> str:
        source = f"{self.distribution} {self.version}".strip() or "no distribution"
        place = f"plugin {self.name!r} ({source}, {self.entry_point or 'no entry point'})"
        return f"{place} is {self.state}" + (f": {self.reason}" if self.reason else "")


def canonical(distribution: str) -> str:
    """The normal form of a distribution's name: "TzK_Plugin.X" and "tzk-plugin-x" are the same (PEP 503)."""
    return re.sub(r"[-_.]+", "-", distribution).lower()
