"""Adding knowledge to the objective leaves the trained prior as good as a control without it; the paper's wording,
unconstrained, does not."""

from __future__ import annotations

from functools import cache

import pytest
import torch

from tzk_core.build import build_flow, build_knowledge
from tzk_core.data.toys import Rings
from tzk_core.model import TzK
from tzk_core.objective import Wording
from tzk_core.training.fit import fit

TOLERANCE = 0.05
"""Nats, of about 3.2 on test. Measured on seeds 0 to 2: after 150 steps the prior is 0.01 to 0.03 worse than the
control; by the paper's wording without multipliers, which warms no KL up either, it is 0.26 to 0.43 worse, and with
the warm-up 0.11 to 0.15."""
SEEDS = [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))]
STEPS = 150
STEP = [{"type": "tiled-convolution", "initialisation": "orthogonal"}, {"type": "affine"}, {"type": "symlog"}]


def points(seed: int, split: str) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Two rings, and presence: a knowledge type for the data set and one for each ring, as for images and digits."""
    rings = Rings(noise=0.15, train=2000, test=1000, seed=seed).split(split)
    presence = {name: torch.as_tensor(rings.labels["label"] == name).float() for name in ("inner", "outer")}
    return rings.T, {"rings": torch.ones(len(rings)), **presence}


@cache
def trained(seed: int, *, knowledge: bool = True, prior: str = "full", multiplier: float | None = None) -> float:
    """Mean log p(T) on test, in nats, after a short training; `multiplier` None: adaptive, as by default."""
    T, presence = points(seed, "train")
    presence = presence if knowledge else {}
    model = TzK(build_flow((2,), layers=[{"type": "affine"}, *3 * STEP, {"type": "affine"}], seed=seed))
    for name in presence:
        model.add(name, build_knowledge("gaussian", (2,), seed, name=name, hidden=16, layers=3))
    fixed = {} if multiplier is None else {"multiplier": multiplier, "multiplier_rate": 0.0}
    settings: dict[str, float] = {"steps": STEPS, "batch_size": 128, "learning_rate": 5e-3}
    if prior == "paper":
        settings["kl_warmup"] = 0.0
    fit(model, T, presence, seed=seed, wording=Wording(prior=prior), **settings, **fixed)
    with torch.no_grad():
        return model.log_prob(points(seed, "test")[0]).mean().item()


@pytest.mark.parametrize("seed", SEEDS)
def test_knowledge_leaves_the_prior_within_tolerance_of_a_control(seed: int) -> None:
    assert trained(seed) > trained(seed, knowledge=False) - TOLERANCE


@pytest.mark.parametrize("seed", SEEDS)
def test_the_paper_s_wording_without_multipliers_harms_the_prior(seed: int) -> None:
    """Every sample has two knowledge types present, so that log p(T) weighs nothing in the gradient."""
    assert trained(seed, prior="paper", multiplier=0.0) < trained(seed, knowledge=False) - 3 * TOLERANCE


def test_the_default_is_the_wording_that_leaves_the_prior_alone() -> None:
    assert Wording() == Wording(fill_in="bound", prior="full")
