"""The core's distribution and version: where they are read from, and that what has its former name still opens."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from commands import output_of
from installed import install, python

import tzk_core
from tzk_core.build import build_flow, build_knowledge
from tzk_core.errors import TzkError
from tzk_core.model import TzK
from tzk_core.parts import Part
from tzk_core.plugins import registry
from tzk_core.storage.checkpoint import save_checkpoint
from tzk_core.storage.knowledge_files import export_knowledge, import_knowledge, list_knowledge
from tzk_core.storage.manifest import read_manifest
from tzk_core.version import current_name, installed_version

SHOW = """
    import sys, tzk_core
    from tzk_core.plugins import registry
    core = next(record for record in registry().plugins if record.name == "tzk")
    print(tzk_core.__version__, core.distribution, core.version)
    from tzk_core.cli import main
    main(["--version"])
"""


def test_the_version_is_that_of_the_installed_distribution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stranger's program that is called `tzk` has nothing to do with it."""
    install(tmp_path, "tzk-core", version="9.8.7", group="console_scripts")
    install(tmp_path, "tzk", version="5.0", group="console_scripts")
    (tmp_path / "tzk_core.py").unlink()  # the metadata of this folder, the package of the checkout
    monkeypatch.chdir(tmp_path)
    done = python(tmp_path, SHOW)
    assert done.stdout.splitlines() == ["9.8.7 tzk-core 9.8.7", "tzk 9.8.7"], done.stderr


def test_what_is_not_installed_has_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    assert installed_version("tzk-plugin-nobody-has") is None
    assert installed_version("click") == importlib.metadata.version("click")
    monkeypatch.setattr("tzk_core.version.installed_version", lambda: None)
    assert tzk_core.__version__ == "unknown"
    assert output_of("--version") == "tzk unknown\n"


def test_only_the_cores_former_name_is_another_now() -> None:
    names = ("tzk", "tzk-core", "nflows", "tzk-plugin-glow")
    assert [current_name(name) for name in names] == ["tzk-core", "tzk-core", "nflows", "tzk-plugin-glow"]


@pytest.mark.parametrize("name", ["tzk", "TzK", "tzk-core", "tzk_core"])
def test_a_config_that_requires_the_core_by_any_of_its_names_has_it(name: str) -> None:
    registry().require([name], wanted_by="joint.toml")


def formerly(part: Part) -> Part:
    """The part as version 0.1 wrote it, with those in its arguments."""
    arguments = {key: formerly(value) if isinstance(value, Part) else value for key, value in part.arguments.items()}
    distribution = "tzk" if part.plugin == "tzk" else part.distribution
    return replace(part, distribution=distribution, version="0.1.0", arguments=arguments)


def made(*, former: bool, names: Iterable[str] = ("a", "b")) -> TzK:
    """A model of nested layers and two knowledge types, as it is built today or as version 0.1 had it."""
    layers = [{"type": "affine"}, {"type": "inverse-transform", "transform": {"type": "symlog"}}]
    model = TzK(build_flow((4,), layers=layers, seed=1))
    for name in names:
        model.add(name, build_knowledge("gaussian", (4,), seed=1, name=name, hidden=6, layers=2))
    if former:
        assert model.flow.parts is not None
        model.flow.parts = replace(model.flow.parts, layers=tuple(map(formerly, model.flow.parts.layers)))
        for _, knowledge in model.named_knowledge():
            assert knowledge.part is not None
            knowledge.describe_as(part=formerly(knowledge.part))
    return model


def saved(folder: Path, model: TzK) -> Path:
    save_checkpoint(model, folder / "checkpoint")
    return folder


def distributions(model: TzK) -> set[str]:
    assert model.flow.parts is not None
    parts = [*model.flow.parts.layers, *(knowledge.part for _, knowledge in model.named_knowledge() if knowledge.part)]
    return {inner.distribution for part in parts for inner in part.within()}


def test_a_checkpoint_that_names_the_former_distribution_opens_and_is_the_same_model(tmp_path: Path) -> None:
    old, new = saved(tmp_path / "old", made(former=True)), saved(tmp_path / "new", made(former=False))
    written = [(run / "checkpoint/manifest.json").read_text() for run in (old, new)]
    assert '"tzk-core"' not in written[0] and '"distribution": "tzk"' in written[0]
    assert '"distribution": "tzk"' not in written[1]
    hashes = [read_manifest(run / "checkpoint")["core"]["hash"] for run in (old, new)]
    assert hashes[0] == hashes[1], "knowledge can be moved between the two"
    one, other = tzk_core.load(old), tzk_core.load(new)
    assert not one.opaque and distributions(one) == distributions(other) == {"tzk-core", "nflows"}
    T = torch.linspace(-1, 1, 12).view(3, 4)
    for name in (None, "a", "b"):
        assert torch.equal(one.log_prob(T, name), other.log_prob(T, name))
    assert [entry["distribution"] for entry in list_knowledge(old)] == ["tzk-core", "tzk-core"]


def test_knowledge_that_names_the_former_distribution_goes_from_run_to_run_unchanged(tmp_path: Path) -> None:
    old, new = saved(tmp_path / "old", made(former=True)), saved(tmp_path / "new", made(former=False, names="a"))
    (file,) = export_knowledge(old, "b", tmp_path / "files")
    import_knowledge(new, file)
    name = "checkpoint/knowledge/b.safetensors"
    assert (new / name).read_bytes() == (old / name).read_bytes()
    entries = [json.loads((run / "checkpoint/manifest.json").read_text())["knowledge"]["b"] for run in (old, new)]
    assert entries[0] == entries[1]
    assert not tzk_core.load(new).opaque


def test_what_is_to_be_installed_is_the_core_by_its_name_of_today(tmp_path: Path) -> None:
    model = made(former=True)
    assert model.flow.parts is not None
    lost = replace(model.flow.parts.layers[0], name="no-such-layer")
    model.flow.parts = replace(model.flow.parts, layers=(lost, *model.flow.parts.layers[1:]))
    with pytest.raises(TzkError, match="was built with tzk-core 0.1.0: install that"):
        tzk_core.load(saved(tmp_path, model))
