"""A model with two knowledge types, and observations."""

from __future__ import annotations

import pytest
import torch
from models import small
from torch import Tensor

from tzk_core.model import TzK


@pytest.fixture
def model() -> TzK:
    return small(("gaussian", "flow"), spread=0.02)


@pytest.fixture
def T() -> Tensor:
    return torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
