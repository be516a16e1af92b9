"""A packed run is a run folder: smaller, in half precision where that is enough, and used as any other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import output_of, refused, tzk
from safetensors.torch import load_file

import tzk_core
from tzk_core import TzkError
from tzk_core.build import build_flow, build_knowledge
from tzk_core.config import config_from
from tzk_core.model import TzK
from tzk_core.runs.experiment import Experiment
from tzk_core.storage.checkpoint import load_checkpoint, save_checkpoint
from tzk_core.storage.manifest import read_manifest
from tzk_core.storage.packing import RELATIVE_ERROR, pack_checkpoint, round_to_half
from tzk_core.storage.shared_flow import core_hash

CONFIG: dict[str, Any] = {
    "name": "made",
    "device": "cpu",
    "datasets": [{"name": "glyphs", "type": "glyph-digits", "size": 8, "train": 80, "test": 40, "validation": 20}],
    "flow": {"steps": 2, "tile": 4},
    "knowledge": [{"name": "digit-{label}", "type": "low-rank", "dims": 16, "rank": 2, "present": {"label": "each"}}],
    "training": {"steps": 2, "batch_size": 16, "initialisation": 64},
    "evaluation": {"importance_samples": 2, "partitions": {"digits": ["digit-*"]}},
}
ADDITION = """
name = "more"
pictures = { draw = [] }
datasets = [{ name = "signs", type = "glyph-signs", size = 8, train = 40, test = 20, validation = 10 }]
[[knowledge]]
name = "signs"
type = "low-rank"
dims = 16
present = { dataset = "signs" }
[training]
steps = 1
batch_size = 16
own_samples = 16
[evaluation]
importance_samples = 2
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder as training leaves one, whose best checkpoint has random weights, unlike the last."""
    folder = tmp_path_factory.mktemp("runs") / "made"
    folder.mkdir()
    experiment = Experiment(config_from(CONFIG))
    experiment.train(folder)
    with torch.no_grad():
        for number, parameter in enumerate(experiment.model.parameters()):
            parameter += 0.01 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number))
    save_checkpoint(experiment.model, folder / "best", {"multipliers": {"digit-1": 0.25}})
    (folder / "config.toml").write_text(experiment.config.to_toml())
    (folder / "run.json").write_text(json.dumps({"format": 1, "name": "made", "status": "finished"}))
    (folder / "results.json").write_text(json.dumps(experiment.evaluate()))
    (folder / "results.md").write_text("the table")
    return folder


def test_without_half_all_but_the_training_is_the_same_byte_for_byte(run: Path, tmp_path: Path) -> None:
    packed = tmp_path / "packed"
    assert "MB" in output_of("pack", run, packed, "--limit", 0)
    expected = {"config.toml", "results.json", "results.md", "run.json", "checkpoint"}
    assert {file.name for file in packed.iterdir()} == expected
    assert not (packed / "checkpoint" / "trainer.pt").exists() and (run / "checkpoint" / "trainer.pt").exists()
    for file in (run / "best").rglob("*.safetensors"):
        assert file.read_bytes() == (packed / "checkpoint" / file.relative_to(run / "best")).read_bytes()
    assert [each["action"] for each in json.loads((packed / "run.json").read_text())["lineage"]] == ["pack"]


def test_in_half_precision_its_figures_stay_and_are_kept_beside_it(run: Path, tmp_path: Path) -> None:
    packed = tmp_path / "half"
    output = output_of("pack", run, packed, "--half", "--limit", 30)
    assert "of 30 images" in output
    record = json.loads((packed / "run.json").read_text())["half"]
    assert record["limit"] == 30 and record["bits_per_dim"] < 0.001
    kept = json.loads((packed / "results-30.json").read_text())
    again = json.loads(tzk("eval", packed, "--limit", 30, "--json").stdout)
    assert kept == again, "what it gives here is what it gave when it was packed"
    original = json.loads(tzk("eval", run, "--limit", 30, "--json").stdout)
    gap = [abs(a["bits_per_dim"] - b["bits_per_dim"]) for a, b in zip(again["rows"], original["rows"], strict=True)]
    assert max(gap) == pytest.approx(record["bits_per_dim"], abs=1e-9) and max(gap) > 0
    size = sum(file.stat().st_size for file in (packed / "checkpoint").rglob("*.safetensors"))
    assert size < 0.75 * sum(file.stat().st_size for file in (run / "checkpoint").rglob("*.safetensors"))


def test_a_packed_run_is_sampled_added_to_and_taken_apart(run: Path, tmp_path: Path) -> None:
    packed, spec = tmp_path / "packed", tmp_path / "more.toml"
    output_of("pack", run, packed, "--half", "--limit", 0)
    before = {file: file.read_bytes() for file in packed.rglob("*") if file.is_file()}
    output_of("sample", packed, "--knowledge", "digit-3", "-n", 2, "-o", tmp_path / "samples.npz")
    spec.write_text(ADDITION)
    output_of("add", packed, spec, "--out", tmp_path / "more")
    assert "signs" in tzk_core.load(tmp_path / "more").knowledge
    output_of("knowledge", "export", packed, "digit-3", "-o", tmp_path / "three.safetensors")
    three_file = tmp_path / "three.safetensors"
    output_of("knowledge", "import", tmp_path / "more", three_file, "--as", "three", "--out", tmp_path / "again")
    three = tzk_core.load(tmp_path / "again")
    for key, value in three.find("three").state_dict().items():
        assert value.dtype == torch.float32 and torch.equal(value, three.find("digit-3").state_dict()[key])
    assert "nothing to resume" in output_of("run", packed, "--resume")
    assert {file: file.read_bytes() for file in packed.rglob("*") if file.is_file()} == before


def test_figures_that_change_by_more_than_allowed_are_refused_and_nothing_is_left(run: Path, tmp_path: Path) -> None:
    assert "half precision changes glyphs" in refused("pack", run, tmp_path / "x", "--half", "--tolerance", 0)
    assert not list(tmp_path.iterdir())
    (tmp_path / "x").mkdir()
    assert "there already" in refused("pack", run, tmp_path / "x")


def made() -> TzK:
    model = TzK(build_flow((1, 4, 4), steps=1, tile=2))
    model.add("a", build_knowledge("low-rank", (1, 4, 4), dims=8))
    with torch.no_grad():
        for parameter in model.flow.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0))
    return model


def test_loading_gives_the_rounded_weights_in_float32_and_their_hash(tmp_path: Path) -> None:
    model = made()
    save_checkpoint(model, tmp_path / "whole")
    assert pack_checkpoint(tmp_path / "whole", tmp_path / "half", half=True) == []
    loaded = load_checkpoint(tmp_path / "half")
    for key, value in model.state_dict().items():
        rounded = value.half().float() if value.is_floating_point() else value
        assert loaded.state_dict()[key].dtype == value.dtype and torch.equal(loaded.state_dict()[key], rounded)
    manifest = read_manifest(tmp_path / "half")
    assert manifest["core"]["hash"] == manifest["knowledge"]["a"]["core"] == core_hash(loaded.flow)
    assert manifest["core"]["hash"] != read_manifest(tmp_path / "whole")["core"]["hash"]
    files = [tmp_path / "half" / "core.safetensors", tmp_path / "half" / "knowledge" / "a.safetensors"]
    types = {value.dtype for file in files for value in load_file(file).values() if value.is_floating_point()}
    assert types == {torch.float16}
    pack_checkpoint(tmp_path / "half", tmp_path / "twice", half=True)
    for file in files:
        assert (tmp_path / "twice" / file.relative_to(tmp_path / "half")).read_bytes() == file.read_bytes()


@pytest.mark.parametrize("value", [1e5, 1e-7, 3e-6])
def test_what_half_precision_cannot_hold_stays_as_it_is(tmp_path: Path, value: float) -> None:
    model = made()
    with torch.no_grad():
        model.find("a").discriminator.slope.fill_(1.2345 * value)
    wanted = model.find("a").discriminator.slope.clone()
    assert round_to_half(model) == ["knowledge.a.discriminator.slope"]
    assert torch.equal(model.find("a").discriminator.slope, wanted)
    save_checkpoint(model, tmp_path / "half", half=True)
    assert torch.equal(load_checkpoint(tmp_path / "half").find("a").discriminator.slope, wanted)


def test_the_stated_error_holds() -> None:
    model, other = made(), made()
    round_to_half(other)
    for key, value in model.state_dict().items():
        if value.is_floating_point():
            assert (value - other.state_dict()[key]).norm() <= RELATIVE_ERROR * value.norm()


def test_a_model_in_float64_is_not_rounded(tmp_path: Path) -> None:
    save_checkpoint(made().double(), tmp_path / "double")
    assert pack_checkpoint(tmp_path / "double", tmp_path / "half", half=True) == []
    assert load_checkpoint(tmp_path / "half").like.dtype == torch.float64


def test_knowledge_that_cannot_be_used_here_cannot_be_rounded(tmp_path: Path) -> None:
    model = made()
    model.find("a").part = None
    save_checkpoint(model, tmp_path / "whole")
    with pytest.raises(TzkError, match="pack without --half"):
        pack_checkpoint(tmp_path / "whole", tmp_path / "half", half=True)
    pack_checkpoint(tmp_path / "whole", tmp_path / "same")
    assert load_checkpoint(tmp_path / "same").opaque
