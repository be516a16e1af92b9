"""The core's distribution: its name on a package index, former names, and installed version."""

from __future__ import annotations

CORE_PLUGIN = "tzk"
"""The name of the built-in plugin, which offers the core's own parts."""

DISTRIBUTION = "tzk-core"
FORMER_NAMES = frozenset({"tzk"})
"""What runs, checkpoints and configs of 0.1 call it; on a package index that is somebody else's program."""


def current_name(distribution: str) -> str:
    """The name to install a distribution by.

    The core's own name stands in the place of a former one.
    """
    return DISTRIBUTION if distribution in FORMER_NAMES else distribution


def installed_version(distribution: str = DISTRIBUTION) -> str | None:
    """The version of an installed distribution; None without metadata, as in a source tree."""
    import importlib.metadata  # half of what `import tzk_core` would take

    try:
        return importlib.metadata.version(distribution) or None
    except Exception:  # anything may be wrong with another's metadata, and a version is only shown
        return None
