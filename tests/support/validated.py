"""A training of points in the plane that is validated on data like its own, or elsewhere."""

from __future__ import annotations

from typing import Any

import torch
from in_order import InOrder

from tzk_core import TzK, build_flow, build_knowledge
from tzk_core.observations import Observations
from tzk_core.training.settings import Settings
from tzk_core.training.trainer import Trainer
from tzk_core.training.validation import Validation

LAYERS = [{"type": "affine"}, {"type": "symlog"}, {"type": "affine"}]
DATA = torch.randn(96, 2, generator=torch.Generator().manual_seed(0)) + torch.tensor([3.0, 0.0])
DATA[::2, 0] -= 6.0
PRESENCE = (DATA[:, :1] < 0).float()


BATCHES = InOrder(Observations(DATA, PRESENCE, ("left",)), sources={"a": slice(0, 8), "b": slice(8, 16)})
"""The first half of each is the data set "a", the second "b"."""


def made(layers: Any = LAYERS) -> TzK:
    model = TzK(build_flow((2,), layers=layers))
    model.add("left", build_knowledge("gaussian", (2,), 0, name="left", hidden=6, layers=3))
    return model


def held(shift: float = 0.0) -> Validation:
    """The data themselves as they are, and those of "b" moved."""
    sets = {
        name: Observations(DATA[rows] + moved, PRESENCE[rows], ("left",))
        for name, rows, moved in (("a", slice(0, 40), 0.0), ("b", slice(40, 96), shift))
    }
    return Validation(sets, {"a": 0.25, "b": 0.5}, None)


def trainer(validation: Validation | None = None, model: TzK | None = None, **settings: Any) -> Trainer:
    options = {"steps": 12, "log_every": 4, "validate_every": 3, "learning_rate": 1e-2} | settings
    return Trainer(model or made(), BATCHES, Settings(**options), levels=None, validation=validation)
