"""Models with random weights, and what a folder holds."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tzk_core.build import build_flow, build_knowledge
from tzk_core.model import TzK

NFLOWS: list[dict[str, Any]] = [
    {"type": "random-permutation"},
    {"type": "composite-transform", "transforms": [{"type": "lu-linear", "identity_init": False}, {"type": "affine"}]},
    {
        "type": "piecewise-rational-quadratic-coupling-transform",
        "mask": [1, 0, 1, 0],
        "transform_net_create_fn": {"callable": "nflows.nn.nets:ResidualNet", "hidden_features": 8},
        "tails": "linear",
        "tail_bound": 3.0,
    },
    {"type": "batch-norm"},
]
FLOWS: dict[str, dict[str, Any]] = {
    "paper": {"shape": (1, 4, 4), "steps": 2, "tile": 2},
    "paper, orthogonal and logistic": {
        "shape": (4,),
        "steps": 1,
        "initialisation": "orthogonal",
        "base": "logistic",
    },
    "nflows": {"shape": (4,), "layers": NFLOWS},
    "no parameters": {"shape": (4,), "layers": [{"type": "symlog"}]},
}


def made(flow: str = "paper", seed: int = 3, dtype: torch.dtype = torch.float32) -> TzK:
    """A model with random weights and two knowledge types."""
    model = TzK(build_flow(**FLOWS[flow], seed=seed))
    model.add("a", build_knowledge("flow", model.latent_shape, seed, name="a", steps=1, tile=2, hidden=8))
    model.add("digit 7", build_knowledge("gaussian", model.latent_shape, seed, name="digit 7", characteristics=3))
    model.find("digit 7").describe_as(implies=("a",))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
        model.flow.initialise(torch.rand(64, *model.shape, generator=generator))
        model.find("a").log_odds.fill_(-1.0)
    return model.to(dtype).eval()


def of(model: TzK, count: int = 3) -> Tensor:
    return torch.rand(count, *model.shape).to(next(model.parameters()).dtype)


def assert_same(model: TzK, other: TzK) -> None:
    states = model.state_dict(), other.state_dict()
    assert list(states[0]) == list(states[1])
    for key, value in states[0].items():
        assert value.dtype == states[1][key].dtype and torch.equal(value, states[1][key]), key
