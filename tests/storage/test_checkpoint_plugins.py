"""A checkpoint whose plugins are missing, older or newer opens as far as it can."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpointed import assert_same, made, of
from extra_plugin import OFFERED, Versioned, VersionedLayer
from folders import contents
from manifests import rewritten
from torch import Tensor

from tzk_core.build import build_flow, build_knowledge
from tzk_core.errors import TzkError
from tzk_core.model import SharedFlow, TzK
from tzk_core.plugins import Spec
from tzk_core.storage import tensors
from tzk_core.storage.checkpoint import load_checkpoint, save_checkpoint
from tzk_core.storage.stored import read_stored


def test_knowledge_without_its_plugin_stays_byte_for_byte(tmp_path: Path, offered: list[Spec]) -> None:
    model = made()
    model.add("x", build_knowledge("versioned", model.latent_shape, name="x"))
    save_checkpoint(model, tmp_path / "c")
    offered.clear()
    without = load_checkpoint(tmp_path / "c")
    assert [name for name, _ in without.named_knowledge()] == ["a", "digit 7"] and list(without.opaque) == ["x"]
    with pytest.raises(TzkError, match="'x' needs tzk-plugin-extra 1.5"):
        without.log_prob(of(model), "x")
    with pytest.raises(TzkError, match="has a knowledge type 'x' already"):
        without.add("x", build_knowledge("gaussian", model.latent_shape))
    save_checkpoint(without, tmp_path / "again")
    assert contents(tmp_path / "again") == contents(tmp_path / "c")
    offered[:] = OFFERED
    assert_same(model, load_checkpoint(tmp_path / "again"))


def test_knowledge_of_another_shared_flow_is_not_mixed_in(tmp_path: Path) -> None:
    """A file copied from a run with the same architecture and other weights fits by its shapes and means nothing."""
    model, other = made(), made(seed=1)
    for saved, folder in ((model, "c"), (other, "other")):
        save_checkpoint(saved, tmp_path / folder)
    theirs = read_stored(tmp_path / "other").manifest["knowledge"]["a"]
    (tmp_path / "c/knowledge/a.safetensors").write_bytes((tmp_path / "other/knowledge/a.safetensors").read_bytes())
    rewritten(tmp_path / "c", lambda manifest: manifest["knowledge"].update(a=theirs), headers=False)
    loaded = load_checkpoint(tmp_path / "c")
    assert list(loaded.opaque) == ["a"] and [name for name, _ in loaded.named_knowledge()] == ["digit 7"]
    with pytest.raises(TzkError, match="'a' was trained with another shared flow than the one in"):
        loaded.log_prob(of(model), "a")


def test_a_missing_part_of_the_flow_names_the_one_distribution_to_install(tmp_path: Path, offered: list[Spec]) -> None:
    inside = {"type": "inverse-transform", "transform": {"type": "versioned-layer"}}
    for number, layer in enumerate((inside, {"type": "versioned-layer"})):
        model = TzK(build_flow((4,), layers=[{"type": "lu-linear"}, layer, {"type": "symlog"}]))
        save_checkpoint(model, tmp_path / str(number))
    offered.clear()
    for number in range(2):
        with pytest.raises(TzkError, match="was built with tzk-plugin-extra 1.5: install that") as raised:
            load_checkpoint(tmp_path / str(number))
        assert "nflows" not in str(raised.value).partition("(")[0]


def test_an_older_state_of_knowledge_is_upgraded(
    tmp_path: Path, offered: list[Spec], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = made()
    knowledge = build_knowledge("versioned", model.latent_shape, name="x")
    model.add("x", knowledge)
    expected = {key: value.clone() for key, value in knowledge.state_dict().items()}
    knowledge.describe_as(part=replace(knowledge.part, state_version=1))
    monkeypatch.setattr(tensors, "of", older(tensors.of, Versioned, new="latent.", old="old_latent."))
    save_checkpoint(model, tmp_path / "c")
    loaded = load_checkpoint(tmp_path / "c").find("x")
    assert loaded.part.state_version == 2
    assert all(torch.equal(value, expected[key]) for key, value in loaded.state_dict().items())


def older(of: Any, owner: type, *, new: str, old: str) -> Any:
    """How an older version of `owner` would have named its tensors."""

    def named(module: torch.nn.Module) -> dict[str, Tensor]:
        state = of(module)
        if isinstance(module, owner):
            return {key.replace(new, old): value for key, value in state.items()}
        return state

    return named


def test_an_older_state_of_a_layer_is_upgraded(
    tmp_path: Path, offered: list[Spec], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = TzK(build_flow((4,), layers=[{"type": "affine"}, {"type": "versioned-layer"}]))
    model.flow.initialise(torch.randn(20, 4))
    parts = model.flow.parts
    model.flow.parts = replace(parts, layers=(parts.layers[0], replace(parts.layers[1], state_version=1)))
    with monkeypatch.context() as before:
        before.setattr(tensors, "of", older(tensors.of, SharedFlow, new="1.shift", old="1.offset"))
        save_checkpoint(model, tmp_path / "c")
    loaded = load_checkpoint(tmp_path / "c")
    assert_same(model, loaded)
    assert loaded.flow.parts == parts


def test_a_newer_state_asks_for_the_newer_plugin(
    tmp_path: Path, offered: list[Spec], monkeypatch: pytest.MonkeyPatch
) -> None:
    layers = [{"type": "affine"}, {"type": "versioned-layer"}]
    model = TzK(build_flow((4,), layers=layers))
    save_checkpoint(model, tmp_path / "flow")
    plain = TzK(build_flow((4,), layers=layers[:1]))
    plain.add("x", build_knowledge("versioned", (4,), name="x"))
    save_checkpoint(plain, tmp_path / "knowledge")
    monkeypatch.setattr(Versioned, "state_version", 1)
    monkeypatch.setattr(VersionedLayer, "state_version", 1)
    with pytest.raises(TzkError, match="built with tzk-plugin-extra 1.5: install that .*'versioned-layer' is older"):
        load_checkpoint(tmp_path / "flow")
    with pytest.raises(TzkError, match="'x' was written by tzk-plugin-extra 1.5: install that or a later one"):
        load_checkpoint(tmp_path / "knowledge").find("x")
