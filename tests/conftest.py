"""The state in which all tests start."""

import pytest
import torch
from extra_plugin import offered

__all__ = ["offered"]


@pytest.fixture(autouse=True)
def _same_numbers_whatever_ran_before() -> None:
    torch.manual_seed(0)
