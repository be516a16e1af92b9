"""Run folders with three knowledge types, for tests of files that go from one to another."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from folders import contents
from models import LAYERS

from tzk_core.build import build_flow, build_knowledge
from tzk_core.errors import TzkError
from tzk_core.model import TzK
from tzk_core.storage.checkpoint import save_checkpoint

TYPES: dict[str, dict[str, Any]] = {
    "all": {"type": "flow", "steps": 1, "tile": 1},
    "a é": {"type": "gaussian", "characteristics": 3},
    "b": {"type": "gaussian"},
}
T = torch.linspace(-1, 1, 12).view(3, 4)


def made(names: tuple[str, ...] = tuple(TYPES), seed: int = 0) -> TzK:
    """A model with random weights, those of every part from `seed` and its name; "a é" and "b" imply "all"."""
    model = TzK(build_flow((4,), layers=LAYERS, seed=seed))
    _shake(model.flow, seed)
    for name in names:
        knowledge = build_knowledge(latent_shape=(4,), seed=seed, name=name, hidden=6, layers=2, **TYPES[name])
        _shake(knowledge, seed + len(name))
        knowledge.log_odds.fill_(-len(name))
        knowledge.describe_as(implies=() if name == "all" else ("all",))
        model.add(name, knowledge)
    return model


@torch.no_grad()
def _shake(module: torch.nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter += 0.1 * torch.randn(parameter.shape, generator=generator)


def saved(path: Path, model: TzK, trainer: dict[str, Any] | None = None) -> Path:
    """A run folder with that model in it."""
    path.mkdir()
    save_checkpoint(model, path / "checkpoint", trainer)
    return path


def answers(model: TzK, name: str) -> tuple[torch.Tensor, ...]:
    """What a model says by way of one knowledge type: densities, samples and posterior."""
    posterior = model.posterior(T)[name]
    return (
        model.log_prob(T, name),
        model.sample(5, name, seed=1),
        posterior.presence,
        posterior.mean,
        posterior.deviation,
    )


def assert_says_the_same(one: TzK, other: TzK, name: str, *, other_name: str | None = None) -> None:
    for left, right in zip(answers(one, name), answers(other, other_name or name), strict=True):
        assert torch.equal(left, right)


def refused(run: Path, pattern: str, change: Callable[[], Any]) -> str:
    before = contents(run)
    with pytest.raises(TzkError, match=pattern) as raised:
        change()
    assert contents(run) == before and [path.name for path in run.iterdir()] == ["checkpoint"]
    return str(raised.value)


def flipped(content: bytes, at: int) -> bytes:
    changed = bytearray(content)
    changed[at] ^= 1
    return bytes(changed)
