"""The state in which all tests start."""

import pytest
import torch
from extra_plugin import offered
from parts_offered import core_alone, parts

__all__ = ["core_alone", "offered", "parts"]


@pytest.fixture(autouse=True)
def _same_numbers_whatever_ran_before() -> None:
    torch.manual_seed(0)
    torch.set_flush_denormal(False)  # programs of examples/ that a test runs in this process set it for their own
