"""The state in which all tests start."""

import pytest
import torch
from extra_plugin import offered
from parts_offered import core_alone, parts

__all__ = ["core_alone", "offered", "parts"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests begin first, so that no worker is left alone with one at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(autouse=True)
def _same_numbers_whatever_ran_before() -> None:
    torch.manual_seed(0)
    torch.set_flush_denormal(False)  # programs of examples/ that a test runs in this process set it for their own
