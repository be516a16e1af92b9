"""Adding knowledge to a model with three knowledge types."""

from __future__ import annotations

from typing import Any

import torch
from models import small
from torch import Tensor
from weights import same

import tzk_core
from tzk_core import Knowledge, TzK, build_knowledge
from tzk_core.training.adding import growth

KNOWLEDGE_TYPES = ("gaussian", "flow", "gaussian")
T = torch.randn(60, 3, generator=torch.Generator().manual_seed(5)) + torch.tensor([2.0, 0.0, 0.0])
PRESENT = torch.ones(60)
QUICK: dict[str, Any] = {"steps": 4, "batch_size": 16}


def old(types: tuple[str, ...] = KNOWLEDGE_TYPES) -> TzK:
    return small(types).float()


def new(name: str = "new", knowledge_type: str = "gaussian", **arguments: Any) -> Knowledge:
    return build_knowledge(knowledge_type, (3,), 0, name=name, **{"hidden": 6, "layers": 3, **arguments})


def add(model: TzK, name: str = "new", **more: Any) -> growth.Report:
    presence = more.pop("presence", {name: PRESENT})
    return tzk_core.add(model, more.pop("knowledge", None) or {name: new(name)}, T, presence, **{**QUICK, **more})


def holds(model: TzK, before: dict[str, Tensor]) -> None:
    """The model has exactly the tensors of before, bit for bit, in their order."""
    assert same(model.state_dict(), before)
