"""The core's distribution: its name on a package index, its former names, and the version that is installed."""

from __future__ import annotations

import importlib.metadata

DISTRIBUTION = "tzk-core"
FORMER_NAMES = frozenset({"tzk"})
"""What runs, checkpoints and configs of 0.1 call it; on a package index that is somebody else's program."""


def current_name(distribution: str) -> str:
    """The name to install a distribution by: the core's own instead of a former one, any other as it is."""
    return DISTRIBUTION if distribution in FORMER_NAMES else distribution


def installed_version(distribution: str = DISTRIBUTION) -> str | None:
    """The version of an installed distribution; None where no metadata say one, as in a source tree."""
    try:
        return importlib.metadata.version(distribution) or None
    except Exception:  # anything may be wrong with another's metadata, and a version is only shown
        return None
