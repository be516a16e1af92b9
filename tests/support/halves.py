"""Points in the plane with two knowledge types, and a training of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from in_order import InOrder

from tzk_core.build import build_flow, build_knowledge
from tzk_core.model import TzK
from tzk_core.observations import Observations
from tzk_core.training.settings import Settings
from tzk_core.training.trainer import Trainer

LAYERS = [{"type": "affine"}, {"type": "tiled-convolution"}, {"type": "symlog"}, {"type": "affine"}]
DATA = torch.randn(256, 2, generator=torch.Generator().manual_seed(0))
LEFT, LOW = (DATA[:, 0] < 0).float(), (DATA[:, 1] < 0).float()
BATCHES = InOrder(Observations(DATA, torch.stack([LEFT, LOW], 1), ("left", "low")), size=32)
Uninstall = Callable[[], None]


def made(names: tuple[str, ...] = ("left", "low"), **flow: Any) -> TzK:
    model = TzK(build_flow((2,), layers=LAYERS, **flow))
    for name in names:
        model.add(name, build_knowledge("gaussian", (2,), 0, name=name, hidden=8, layers=2))
    return model


def trainer(**settings: Any) -> Trainer:
    options = {"steps": 4, "learning_rate": 1e-2, "validate_every": 0} | settings
    return Trainer(made(), BATCHES, Settings(**options), levels=None)


TABLES: dict[str, Any] = {
    "name": "taking-part",
    "device": "cpu",
    "flow": {"layers": LAYERS},
    "datasets": [{"name": "two-moons", "train": 400}],
    "knowledge": [
        {"name": "m-{label}", "type": "gaussian", "present": {"dataset": "two-moons", "label": "each"}, "hidden": 8},
    ],
    "training": {"steps": 3},
}
