"""Few-shot knowledge in files: those of a core that had it, sizes that are not believed, and what it is added to."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from manifests import rewritten
from models import small

import tzk_core
from tzk_core import Knowledge, TzK, TzkError, build_flow, build_knowledge
from tzk_core.plugins import KnowledgeType, registry
from tzk_core.storage.checkpoint import knowledge_file, save_checkpoint
from tzk_core.storage.knowledge_files import export_knowledge, import_knowledge, list_knowledge
from tzk_core.storage.knowledge_format import KnowledgeFile
from tzk_core.storage.manifest import read_manifest
from tzk_core.storage.shared_flow import core_hash
from tzk_core.version import CORE_PLUGIN

SHAPE = (1, 4, 4)
STEPS = {"steps": 2, "tile": 2}
T = torch.randn(60, 3, generator=torch.Generator().manual_seed(5)) + torch.tensor([2.0, 0.0, 0.0])
PRESENT = (torch.arange(60) < 20).float()
QUICK: dict[str, Any] = {"steps": 1, "batch_size": 16, "learning_rate": 1e-9}


def made(knee: float = 1.0) -> TzK:
    """A model whose weights do not depend on `knee`."""
    model = TzK(build_flow(SHAPE, knee=knee, **STEPS))
    model.add("few", build_knowledge("few-shot", SHAPE, name="few", hidden=8, knee=knee, **STEPS))
    source = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=source))
    return model.double()


def written_by_a_core_that_had_it(folder: Path, *, knee: float = 1.0) -> TzK:
    """A checkpoint in which `few-shot` is the core's; with a knee of 0, one from before there were any."""
    model = made(knee)
    tzk_core.save(model, folder)

    def change(manifest: dict[str, Any]) -> None:
        part = manifest["knowledge"]["few"]["part"]
        assert (part["plugin"], part["distribution"], part["state_version"]) == ("few-shot", "tzk-plugin-few-shot", 2)
        part |= {"plugin": CORE_PLUGIN, "distribution": "tzk-core", "version": "0.2.0"}
        if knee == 0:
            for old in (part, manifest["core"]["parts"]["recipe"]):
                assert old["arguments"].pop("knee") == 0.0
                old["state_version"] = 1

    rewritten(folder, change)
    return model


@pytest.mark.parametrize("knee", [1.0, 0.0])
def test_a_checkpoint_of_a_core_that_had_it_opens_unchanged(tmp_path: Path, knee: float) -> None:
    model = written_by_a_core_that_had_it(tmp_path / "old", knee=knee)
    sha256 = read_manifest(tmp_path / "old")["core"]["sha256"]
    again, images = tzk_core.load(tmp_path / "old"), torch.rand(5, *SHAPE, dtype=torch.float64)
    assert not again.opaque
    for name in ("", "few"):
        assert torch.equal(model.log_prob(images, *name.split()), again.log_prob(images, *name.split()))
    tzk_core.save(again, tmp_path / "new")
    manifest = read_manifest(tmp_path / "new")
    assert manifest["core"]["sha256"] == sha256
    assert manifest["knowledge"]["few"]["part"]["plugin"] == "few-shot"
    assert core_hash(again.flow) == core_hash(model.flow)


def test_an_export_of_a_core_that_had_it_is_imported(tmp_path: Path) -> None:
    model = written_by_a_core_that_had_it(tmp_path / "old")
    (listed,) = list_knowledge(tmp_path / "old")
    assert (listed["plugin"], listed["distribution"]) == ("few-shot", "tzk-plugin-few-shot")
    (file,) = export_knowledge(tmp_path / "old", "few", tmp_path)
    save_checkpoint(TzK(model.flow), tmp_path / "other")
    import_knowledge(tmp_path / "other", file)
    images = torch.rand(5, *SHAPE, dtype=torch.float64)
    assert torch.equal(tzk_core.load(tmp_path / "other").log_prob(images, "few"), model.log_prob(images, "few"))


@pytest.mark.parametrize("name", ["few-shot", f"{CORE_PLUGIN}/few-shot", "few-shot/few-shot"])
def test_it_is_found_by_every_name_that_it_had(name: str) -> None:
    assert registry().find(KnowledgeType, name).qualified_name == "few-shot/few-shot"


def test_without_the_plugin_its_distribution_is_named_and_its_file_is_kept(tmp_path: Path) -> None:
    written_by_a_core_that_had_it(tmp_path / "old")
    program = (
        "import sys, tzk_core\n"
        "model = tzk_core.load(sys.argv[1])\n"
        "print(model.opaque['few'].reason)\n"
        "tzk_core.save(model, sys.argv[2])\n"
    )
    environment = {"TZK_PLUGINS": "", "PYTHONPATH": ":".join(path for path in sys.path if path)}
    command = [sys.executable, "-c", program, str(tmp_path / "old"), str(tmp_path / "new")]
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    assert "knowledge type 'few' needs tzk-plugin-few-shot" in said
    old, new = (tmp_path / each / "knowledge" / "few.safetensors" for each in ("old", "new"))
    assert hashlib.sha256(old.read_bytes()).digest() == hashlib.sha256(new.read_bytes()).digest()
    assert json.loads((tmp_path / "new" / "manifest.json").read_text())["knowledge"]["few"]["part"]["plugin"] == "tzk"


BOUNDED = ("directions",)
"""Arguments that only bound what there is."""


def sizes() -> list[str]:
    arguments = made().find("few").part.arguments
    return [key for key, value in arguments.items() if type(value) is int and key not in BOUNDED]


@pytest.mark.parametrize("value", [10**6, 10**9, 10**30])
@pytest.mark.parametrize("key", sizes())
def test_a_size_in_a_file_is_not_built(tmp_path: Path, key: str, value: int) -> None:
    """A type of a plugin that cannot be opened is opaque, and the rest of the model is there; an import is refused."""
    model = made()
    save_checkpoint(model, tmp_path / "checkpoint")
    rewritten(tmp_path / "checkpoint", lambda all: all["knowledge"]["few"]["part"]["arguments"].update({key: value}))
    opened = tzk_core.load(tmp_path)
    assert "few" in opened.opaque and "tzk-plugin-few-shot" in opened.opaque["few"].reason
    entry, file = knowledge_file("few", model.find("few"), core_hash(model.flow))
    entry["part"]["arguments"] = {**entry["part"]["arguments"], key: value}
    (tmp_path / "b.safetensors").write_bytes(KnowledgeFile("b", entry, file).sealed())
    save_checkpoint(TzK(model.flow), tmp_path / "other")
    with pytest.raises(TzkError):
        import_knowledge(tmp_path / "other", tmp_path / "b.safetensors")


def old() -> TzK:
    return small(("gaussian", "flow"), spread=0.05).float()


def new(kind: str, **arguments: Any) -> Knowledge:
    return build_knowledge(kind, (3,), 0, name="new", **{"hidden": 6, "layers": 3, **arguments})


def test_what_it_is_built_on_is_its_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    """Within k0 within k1: the reference of knowledge that is built on k1 is all of k1."""
    model, kind = old(), new("few-shot", directions=2, steps=4)
    model.find("k0").describe_as(implies=("k1",))
    kind.describe_as(implies=("k0",))
    outer, inner = (torch.arange(60) < 50).float(), (torch.arange(60) < 30).float()
    seen: list[int] = []
    monkeypatch.setattr(kind, "start", lambda z, reference, groups=None: seen.append(len(reference)))
    presence = {"new": PRESENT, "k0": inner}
    tzk_core.add(model, {"new": kind}, T, presence, **QUICK)
    again = new("few-shot", directions=2, steps=4)
    again.describe_as(implies=("k0", "k1"))
    monkeypatch.setattr(again, "start", lambda z, reference, groups=None: seen.append(len(reference)))
    presence = {"newer": PRESENT, "k0": inner, "k1": outer}
    tzk_core.add(model, {"newer": again}, T, presence, start={"newer": "k1"}, **QUICK)
    assert seen == [30, 50]
    steps = again.latent.transform._transforms[0].state_dict()
    given = model.find("k1").latent.transform.state_dict()
    assert all(torch.allclose(value, given[key], atol=1e-6) for key, value in steps.items())
