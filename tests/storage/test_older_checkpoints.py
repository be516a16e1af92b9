"""Checkpoints written before SymLog had a knee open as what they were, and stay it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from manifests import rewritten
from torch import Tensor

import tzk_core
from tzk_core import TzK, build_flow, build_knowledge
from tzk_core.recipes.entrance import entrance_of
from tzk_core.storage.manifest import read_manifest
from tzk_core.storage.shared_flow import core_hash
from tzk_core.transforms.logit import Logit
from tzk_core.transforms.symlog import SymLog

SHAPE = (1, 4, 4)
RECIPE = {"steps": 2, "tile": 2, "alpha": 1e-6, "initialisation": "identity"}
"""Every argument that the recipe had."""
STEPS = {"steps": 2, "tile": 2}


def made(knee: float) -> TzK:
    """A model whose weights do not depend on `knee`."""
    model = TzK(build_flow(SHAPE, knee=knee, **RECIPE))
    model.add("flow", build_knowledge("flow", SHAPE, name="flow", hidden=8, knee=knee, **STEPS))
    source = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=source))
    return model.double()


def written_before_the_knee(folder: Path) -> Path:
    """A checkpoint as it was written then: parts of state version 1, whose arguments know of no knee and no domain."""
    tzk_core.save(made(knee=0.0), folder)

    def change(manifest: dict[str, Any]) -> None:
        recipe = manifest["core"]["parts"]["recipe"]
        assert recipe["arguments"].pop("domain") == "levels" and recipe["state_version"] == 3
        for part in (recipe, *(each["part"] for each in manifest["knowledge"].values())):
            assert part["arguments"].pop("knee") == 0.0 and part["state_version"] >= 2
            part["state_version"] = 1

    rewritten(folder, change)
    return folder


def hash_before_the_knee(model: TzK) -> str:
    """The core's hash by the formula that it had: of parts without versions, shapes, base and tensors."""
    recipe = {"name": "paper", "plugin": "tzk", "arguments": RECIPE}
    parts: dict[str, Any] = {"shape": SHAPE, "base": "gaussian", "recipe": recipe, "layers": []}
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode())
    digest.update(repr((SHAPE, model.latent_shape, "StandardGaussian")).encode())
    for name, tensor in sorted(model.flow.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def knees(model: TzK) -> set[float]:
    return {part.knee for part in model.modules() if isinstance(part, SymLog)}


def log_probs(model: TzK, T: Tensor) -> dict[str, Tensor]:
    with torch.no_grad():
        return {name: model.log_prob(T, *name.split()) for name in ("", "flow")}


@pytest.mark.parametrize("rounds", [1, 3], ids=["opened", "saved and opened again"])
def test_an_older_checkpoint_keeps_its_density_and_its_hash(rounds: int, tmp_path: Path) -> None:
    T = torch.rand(5, *SHAPE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    expected = log_probs(made(knee=0.0), T)
    folder = written_before_the_knee(tmp_path / "0")
    for number in range(1, rounds + 1):
        model = tzk_core.load(folder)
        folder = tmp_path / str(number)
        tzk_core.save(model, folder)
    assert knees(model) == {0.0}
    for name, found in log_probs(model, T).items():
        assert torch.equal(found, expected[name]), name
    assert core_hash(model.flow) == read_manifest(folder)["core"]["hash"] == hash_before_the_knee(made(knee=0.0))


def test_a_checkpoint_from_before_the_domain_begins_with_its_logit(tmp_path: Path) -> None:
    """Also of vectors, whose flows began with one then."""
    flow = build_flow((4,), steps=1, domain="levels")
    tzk_core.save(TzK(flow), tmp_path / "old")

    def change(manifest: dict[str, Any]) -> None:
        recipe = manifest["core"]["parts"]["recipe"]
        del recipe["arguments"]["domain"]
        recipe["state_version"] = 2

    rewritten(tmp_path / "old", change)
    opened = tzk_core.load(tmp_path / "old").flow
    assert isinstance(entrance_of(opened.transform), Logit)
    assert core_hash(opened) == core_hash(flow) == read_manifest(tmp_path / "old")["core"]["hash"]
    real = build_flow((4,), steps=1, domain="real")
    assert core_hash(real) != core_hash(flow)


def test_the_knee_is_part_of_what_a_core_is() -> None:
    """The same weights with a knee are another density, and its hash says so."""
    plain, kneed = made(knee=0.0), made(knee=1.0)
    T = torch.rand(5, *SHAPE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert all(torch.equal(value, kneed.state_dict()[key]) for key, value in plain.state_dict().items())
    assert all(not torch.allclose(log_probs(plain, T)[name], value) for name, value in log_probs(kneed, T).items())
    assert core_hash(plain.flow) != core_hash(kneed.flow) != core_hash(made(knee=0.5).flow)


def test_a_new_version_is_written_with_its_knee(tmp_path: Path) -> None:
    tzk_core.save(made(knee=0.5), tmp_path / "new")
    manifest = read_manifest(tmp_path / "new")
    parts = [manifest["core"]["parts"]["recipe"], *(each["part"] for each in manifest["knowledge"].values())]
    assert [(part["arguments"]["knee"], part["state_version"]) for part in parts] == [(0.5, 3), (0.5, 2)]
    assert knees(tzk_core.load(tmp_path / "new")) == {0.5}
