"""Conformance checks for authors of plugins: one call in a test checks a part's laws.

    from tzk_core.testing import check_plugin, check_transform

    def test_plugin():
        check_plugin("my_package.plugin")

    def test_arcsinh():
        check_transform(ArcSinh(), torch.randn(8, 5))

A check raises `NotConforming` (an `AssertionError`) that says what was expected, what it got and what to change. Checks
take few and small inputs, and calculate on copies, so that the part itself is not changed.

The core checks that a plugin registers, and implementations. The laws of every other part are in `tzk-plugin-kit`,
which is installed to test a plugin, not to use it; its `tzk new-plugin` writes a plugin that passes.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from tzk_core.testing.expectations import NotConforming
from tzk_core.testing.implementation import check_implementation
from tzk_core.testing.plugin import check_plugin

if TYPE_CHECKING:
    from tzk_plugin_kit.dataset import check_dataset
    from tzk_plugin_kit.densities import check_base, check_sampler
    from tzk_plugin_kit.knowledge import check_knowledge
    from tzk_plugin_kit.metric import check_metric
    from tzk_plugin_kit.observer import check_observer
    from tzk_plugin_kit.picture import check_picture
    from tzk_plugin_kit.recipe import check_recipe
    from tzk_plugin_kit.report import check_report
    from tzk_plugin_kit.training import check_objective_term, check_optimizer, check_schedule
    from tzk_plugin_kit.transform import check_transform

__all__ = [
    "NotConforming",
    "check_base",
    "check_dataset",
    "check_implementation",
    "check_knowledge",
    "check_metric",
    "check_objective_term",
    "check_observer",
    "check_optimizer",
    "check_picture",
    "check_plugin",
    "check_recipe",
    "check_report",
    "check_sampler",
    "check_schedule",
    "check_transform",
]

_MODULES = {
    "base": "densities",
    "sampler": "densities",
    "objective_term": "training",
    "optimizer": "training",
    "schedule": "training",
}
"""The module of the kit that has a check, where it is not called as the part is."""


def __getattr__(name: str) -> Any:
    """A check of the kit.

    It is imported by its former module, so that without the kit the error names the distribution.
    """
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    part = name.removeprefix("check_")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES.get(part, part)}"), name)
