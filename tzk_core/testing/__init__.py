"""Conformance checks for authors of plugins: one call in a test checks a part's laws.

    from tzk_core.testing import check_plugin, check_transform

    def test_plugin():
        check_plugin("my_package.plugin")

    def test_arcsinh():
        check_transform(ArcSinh(), torch.randn(8, 5))

A check raises `NotConforming` (an `AssertionError`) that says what was expected, what it got and what to change. Checks
take few and small inputs, and calculate on copies, so that the part itself is not changed. `tzk new-plugin` writes a
plugin that passes them.
"""

from tzk_core.testing.dataset import check_dataset
from tzk_core.testing.densities import check_base, check_sampler
from tzk_core.testing.expectations import NotConforming
from tzk_core.testing.implementation import check_implementation
from tzk_core.testing.knowledge import check_knowledge
from tzk_core.testing.metric import check_metric
from tzk_core.testing.observer import check_observer
from tzk_core.testing.picture import check_picture
from tzk_core.testing.plugin import check_plugin
from tzk_core.testing.recipe import check_recipe
from tzk_core.testing.report import check_report
from tzk_core.testing.training import check_objective_term, check_optimizer, check_schedule
from tzk_core.testing.transform import check_transform

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
