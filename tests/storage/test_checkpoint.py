"""A checkpoint gives the model back bit for bit, and the hash of its core is that of what decides densities."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpointed import FLOWS, assert_same, made, of
from folders import contents

import tzk_core
from tzk_core.build import build_flow, build_knowledge
from tzk_core.distributions.standard import StandardGaussian
from tzk_core.errors import TzkError
from tzk_core.knowledge.gaussian import GaussianKnowledge
from tzk_core.model import SharedFlow, TzK
from tzk_core.storage.checkpoint import load_checkpoint, load_trainer, save_checkpoint
from tzk_core.storage.shared_flow import core_hash
from tzk_core.transforms.affine import Affine
from tzk_core.transforms.composite import Composite

# there and back


@pytest.mark.filterwarnings("ignore:torch.triangular_solve")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("flow", FLOWS)
def test_it_comes_back_bit_for_bit(tmp_path: Path, flow: str, dtype: torch.dtype) -> None:
    model = made(flow, dtype=dtype)
    save_checkpoint(model, tmp_path / "checkpoint")
    loaded = tzk_core.load(tmp_path).eval()
    assert_same(model, loaded)
    T = of(model)
    assert torch.equal(model.log_prob(T), loaded.log_prob(T))
    for name, knowledge in model.named_knowledge():
        assert torch.equal(model.log_prob(T, name), loaded.log_prob(T, name))
        assert torch.equal(model.sample(3, name, seed=0), loaded.sample(3, name, seed=0))
        assert loaded.find(name).implies == knowledge.implies and loaded.find(name).part == knowledge.part
    assert loaded.flow.parts == model.flow.parts


def test_a_second_save_writes_the_same_bytes(tmp_path: Path) -> None:
    save_checkpoint(made(), tmp_path / "first", {"step": 3})
    save_checkpoint(load_checkpoint(tmp_path / "first"), tmp_path / "second", {"step": 3})
    assert contents(tmp_path / "first") == contents(tmp_path / "second")


def test_a_loaded_flow_is_not_initialised_again(tmp_path: Path) -> None:
    model = made()
    save_checkpoint(model, tmp_path / "c")
    loaded = load_checkpoint(tmp_path / "c")
    loaded.flow.initialise(torch.rand(64, *model.shape) ** 3)
    assert_same(model, loaded)


def test_each_knowledge_type_has_its_own_file_and_the_manifest_every_hash(tmp_path: Path) -> None:
    save_checkpoint(made(), tmp_path / "c", {"step": 3})
    files = contents(tmp_path / "c")
    assert set(files) == {
        "manifest.json",
        "core.safetensors",
        "trainer.pt",
        "knowledge/a.safetensors",
        "knowledge/digit 7.safetensors",
    }
    manifest = json.loads(files.pop("manifest.json"))
    entries = [manifest["core"], manifest["trainer"], *manifest["knowledge"].values()]
    assert {entry["file"]: entry["sha256"] for entry in entries} == {
        name: hashlib.sha256(content).hexdigest() for name, content in files.items()
    }
    part = manifest["knowledge"]["a"]["part"]
    assert (part["plugin"], part["distribution"], part["name"]) == ("tzk", "tzk-core", "flow")
    assert part["arguments"]["characteristics"] == 2 and part["state_version"] == 2


def test_the_trainers_state_is_read_without_running_anything(tmp_path: Path) -> None:
    state = {"step": 7, "optimizer": {"exp_avg": torch.arange(3.0)}, "multipliers": {"a": 0.1}}
    save_checkpoint(made(), tmp_path / "c", state)
    loaded = load_trainer(tmp_path / "c")
    assert loaded["step"] == 7 and torch.equal(loaded["optimizer"]["exp_avg"], torch.arange(3.0))
    assert torch.load(tmp_path / "c/trainer.pt", weights_only=True)["multipliers"] == {"a": 0.1}
    save_checkpoint(made(), tmp_path / "c")
    with pytest.raises(TzkError, match="without the state of its training: it cannot be resumed"):
        load_trainer(tmp_path / "c")


def test_what_a_gpu_wrote_is_read_onto_the_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_checkpoint(made(), tmp_path / "c", {"step": 7})
    asked: dict[str, Any] = {}
    monkeypatch.setattr(torch, "load", lambda path, **options: asked.update(options) or {})
    load_trainer(tmp_path / "c")
    assert asked == {"map_location": "cpu", "weights_only": True}


def test_parts_of_python_are_given_back_by_hand(tmp_path: Path) -> None:
    def flow() -> SharedFlow:
        return SharedFlow((4,), Composite([Affine((4,))]), StandardGaussian((4,)))

    model = TzK(flow(), {"a": GaussianKnowledge((4,), hidden=8)})
    model.flow.initialise(torch.randn(50, 4))
    save_checkpoint(model, tmp_path / "c")
    with pytest.raises(TzkError, match=r"built in Python: pass it, tzk_core.load\(path, flow=...\)"):
        tzk_core.load(tmp_path / "c")
    loaded = tzk_core.load(tmp_path / "c", flow())
    T = torch.randn(3, 4)
    assert torch.equal(loaded.log_prob(T), model.log_prob(T))
    with pytest.raises(TzkError, match="'a' was built in Python"):
        loaded.log_prob(T, "a")
    wrong = SharedFlow((4,), Composite([Affine((4,)), Affine((4,))]), StandardGaussian((4,)))
    with pytest.raises(TzkError, match="core.safetensors does not fit the model: .*first .*expected as .*found as"):
        tzk_core.load(tmp_path / "c", wrong)


# the hash of a core


def test_the_core_hash_is_that_of_weights_base_and_preprocessing() -> None:
    def hashed(seed: int = 0, **changes: Any) -> str:
        return core_hash(build_flow(**{"shape": (4,), "steps": 1, "initialisation": "orthogonal"} | changes, seed=seed))

    assert hashed() == hashed()
    others = [
        hashed(base="logistic"),
        hashed(alpha=0.05),
        hashed(steps=2),
        hashed(initialisation="identity"),
        hashed(shape=(4, 1, 1), tile=1),
    ]
    assert len({hashed(), *others}) == 6
    flow = build_flow((4,), steps=1)
    before = core_hash(flow)
    with torch.no_grad():
        next(flow.parameters()).view(-1)[0] += 1e-7
    assert core_hash(flow) != before


def test_the_core_hash_does_not_depend_on_versions_or_knowledge(tmp_path: Path) -> None:
    model = made()
    before = core_hash(model.flow)
    model.add("another", build_knowledge("gaussian", model.latent_shape))
    recipe = model.flow.parts.recipe
    model.flow.parts = replace(model.flow.parts, recipe=replace(recipe, version="99"))
    assert core_hash(model.flow) == before
    save_checkpoint(model, tmp_path / "c")
    assert core_hash(load_checkpoint(tmp_path / "c").flow) == before
    manifest = json.loads((tmp_path / "c/manifest.json").read_text())
    assert {manifest["core"]["hash"]} | {each["core"] for each in manifest["knowledge"].values()} == {before}
