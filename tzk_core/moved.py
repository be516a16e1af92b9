"""What the core had up to version 0.2, and the plugins that have it now.

Checkpoints, configs and scripts name these parts and modules as the core's. They are found in the plugin where it is
installed; where it is not, the error says which distribution to install.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import sys
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any, NamedTuple, cast

from tzk_core.version import CORE_PLUGIN, current_name


class Home(NamedTuple):
    """Where a part is now."""

    plugin: str
    distribution: str


OUTSIDE = Home("outside", "tzk-plugin-outside")
FEW_SHOT = Home("few-shot", "tzk-plugin-few-shot")
GLOW = Home("glow", "tzk-plugin-glow")
KIT = Home("kit", "tzk-plugin-kit")
REPORT = Home("report", "tzk-plugin-report")

PARTS: dict[tuple[str, str], Home] = {
    ("knowledge type", "few-shot"): FEW_SHOT,
    ("command", "score"): OUTSIDE,
    ("command", "ood"): OUTSIDE,
    ("command", "new-plugin"): KIT,
    ("optimizer", "muon"): GLOW,
    ("picture", "density"): REPORT,
    ("picture", "training-curves"): REPORT,
}
"""By the kind of part, in words, and its plain name."""

MODULES: dict[str, tuple[str, Home]] = {
    **{
        f"tzk_core.{before}": (f"tzk_plugin_outside.{now}", OUTSIDE)
        for before, now in (
            ("cli.calibrated", "options"),
            ("cli.ood", "ood"),
            ("cli.score", "score"),
            ("data.reading", "reading"),
            ("evaluation.complexity", "complexity"),
            ("evaluation.detection", "detection"),
            ("evaluation.evidence", "evidence"),
            ("evaluation.novelty", "novelty"),
            ("evaluation.outside", "comparison"),
            ("evaluation.roc", "roc"),
            ("runs.calibration", "calibration"),
        )
    },
    **{
        f"tzk_core.{before}": (f"tzk_plugin_few_shot.{now}", FEW_SHOT)
        for before, now in (
            ("distributions.factors", "factors"),
            ("knowledge.few_shot", "knowledge"),
            ("knowledge.hierarchy", "hierarchy"),
            ("transforms.whitening", "whitening"),
        )
    },
    **{
        f"tzk_core.testing.{name}": (f"tzk_plugin_kit.{name}", KIT)
        for name in (
            "dataset",
            "densities",
            "draws",
            "fingerprints",
            "knowledge",
            "knowledge_densities",
            "metric",
            "observer",
            "picture",
            "recipe",
            "report",
            "stacked",
            "starting",
            "state",
            "training",
            "transform",
            "values",
        )
    },
    **{
        f"tzk_core.report.{name}": (f"tzk_plugin_report.plots.{name}", REPORT)
        for name in ("columns", "curves", "figure", "planar", "scatter", "tabular")
    },
    "tzk_core.cli.new_plugin": ("tzk_plugin_kit.command", KIT),
    "tzk_core.plugins.new": ("tzk_plugin_kit.new", KIT),
    "tzk_core.training.muon": ("tzk_plugin_glow.muon", GLOW),
}
"""By its former name, the present name of a module."""


def home(kind: str, name: str) -> Home | None:
    """The present place of a part that the core had, by its former name.

    That is its plain or qualified name. None of any other.
    """
    plugin, _, plain = name.rpartition("/")
    return PARTS.get((kind, plain)) if plugin in ("", CORE_PLUGIN) else None


def home_of(part: Mapping[str, Any]) -> Home:
    """Where a part of a checkpoint is now, by its "name", "plugin" and "distribution"."""
    former = Home(part["plugin"], current_name(part["distribution"]))
    return home("knowledge type", f"{part['plugin']}/{part['name']}") or former


class _Forward:
    """An importer of modules under their former names.

    Python asks it for modules that nothing else has. (`importlib.abc` would be most of what `import tzk_core` takes.)
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        return importlib.machinery.ModuleSpec(fullname, cast(Any, self)) if fullname in MODULES else None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        former = module.__name__
        present, where = MODULES[former]
        try:
            sys.modules[former] = importlib.import_module(present)
        except ModuleNotFoundError as error:
            if error.name is None or not present.startswith(error.name):
                raise
            raise ModuleNotFoundError(
                f"{former} is now {present}, in a plugin that is not installed: pip install {where.distribution}",
                name=former,
            ) from None


def forward_imports() -> None:
    """Have modules that moved found under their former names."""
    if not any(isinstance(finder, _Forward) for finder in sys.meta_path):
        sys.meta_path.append(_Forward())
