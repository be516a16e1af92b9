"""The observers that the core itself has, built from the specs of its own plugin."""

from __future__ import annotations

from typing import Any

from tzk_core.errors import TzkError
from tzk_core.plugins import Observer as ObserverSpec
from tzk_core.plugins import Registered, registry
from tzk_core.version import CORE_PLUGIN

EARLY_STOPPING, METRICS_CSV, PROGRESS = "early-stopping", "metrics-csv", "progress"


def own_observer(name: str, *arguments: Any, **keywords: Any) -> Any:
    """Build an observer of the core's, whatever plugins offer under its name."""
    return registry().find(ObserverSpec, f"{CORE_PLUGIN}/{name}").load()(*arguments, **keywords)


def refuse_own(part: Registered) -> None:
    """Refuse an observer of the core's where others are named.

    Raises:
        TzkError: with what has it instead.
    """
    if part.plugin == CORE_PLUGIN:
        raise TzkError(f"observer {part.name!r} is the core's own, and not to be named: {part.spec.summary}")
