"""An incompatible plugin costs its knowledge types, as an absent one does, and no more: they stay, with the reason."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import extra_plugin
import pytest
import torch
from extra_plugin import Versioned, VersionedLayer
from torch import Tensor

from tzk_core.build import build_flow, build_knowledge
from tzk_core.errors import TzkError
from tzk_core.model import TzK
from tzk_core.plugins import Spec
from tzk_core.storage.checkpoint import load_checkpoint, save_checkpoint
from tzk_core.storage.knowledge_files import list_knowledge


class Unprintable(BaseException):
    def __str__(self) -> str:
        raise RuntimeError("no text")


def raising(error: BaseException) -> Any:
    def raises(*positional: Any, **named: Any) -> None:
        raise error

    return raises


class Renamed(Versioned):
    """Its constructor calls an argument by another name."""

    def __init__(self, latent_shape: tuple[int, ...], characteristics: int = 2, *, width: int = 70) -> None:
        super().__init__(latent_shape, characteristics, hidden=width)


class Prints(Versioned):
    """Compatible, if talkative."""

    def __init__(self, latent_shape: tuple[int, ...], characteristics: int = 2, **more: Any) -> None:
        print("hello from a constructor")
        super().__init__(latent_shape, characteristics, **more)


def same(state: dict[str, Tensor], version: int) -> dict[str, Tensor]:
    return state


def subclass(base: type = Versioned, **members: Any) -> type:
    return type("Versioned", (base,), members)


INCOMPATIBLE: dict[str, tuple[type, str]] = {
    "a newer version without an upgrade that fits": (
        subclass(state_version=3, upgrade=staticmethod(lambda state, version: {"other": torch.zeros(1)})),
        "tensors differ",
    ),
    "upgrade raises": (subclass(state_version=3, upgrade=staticmethod(raising(ValueError("no way")))), "no way"),
    "upgrade returns None": (
        subclass(state_version=3, upgrade=staticmethod(lambda state, version: None)),
        "upgrade should return the state dict of version 3 from one of version 2; got NoneType",
    ),
    "upgrade_arguments returns None": (
        subclass(
            state_version=3,
            upgrade=staticmethod(same),
            upgrade_arguments=staticmethod(lambda arguments, version: None),
        ),
        "upgrade_arguments should return a table; got NoneType",
    ),
    "a renamed argument": (Renamed, "hidden"),
    "the constructor raises": (subclass(__init__=raising(RuntimeError("no disk"))), "no disk"),
    "the constructor exits": (subclass(__init__=raising(SystemExit(3))), "SystemExit"),
    "the constructor raises what has no text": (subclass(__init__=raising(Unprintable())), "__str__ raises"),
    "initialise raises": (subclass(initialise=raising(ZeroDivisionError("by zero"))), "by zero"),
    "an older version": (subclass(state_version=1), "install that or a later one"),
}


@pytest.fixture
def saved(offered: list[Spec], tmp_path: Path) -> Path:
    model = TzK(build_flow((4,), layers=[{"type": "affine"}]))
    model.add("core", build_knowledge("gaussian", (4,), name="core"))
    model.add("x", build_knowledge("versioned", (4,), name="x"))
    save_checkpoint(model, tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


@pytest.mark.parametrize("case", INCOMPATIBLE)
def test_an_incompatible_type_is_opaque_with_its_reason(
    saved: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, case: str
) -> None:
    installed, words = INCOMPATIBLE[case]
    expected = load_checkpoint(saved)
    monkeypatch.setattr(extra_plugin, "Versioned", installed)
    model = load_checkpoint(saved)
    assert [name for name, _ in model.named_knowledge()] == ["core"]
    reason = model.opaque["x"].reason
    assert "knowledge type 'x'" in reason and "tzk-plugin-extra 1.5" in reason and words in reason
    T = torch.rand(3, 4)
    assert torch.equal(model.log_prob(T, "core"), expected.log_prob(T, "core"))
    listed = {each["name"]: each for each in list_knowledge(saved)}
    assert listed["x"]["reason"] == reason and listed["core"]["state"] == "ok"
    with pytest.raises(TzkError, match=re.escape(reason)):
        model.find("x")
    save_checkpoint(model, tmp_path / "again")  # byte for byte, so that a version that fits opens it again
    file = "knowledge/x.safetensors"
    assert (tmp_path / "again" / file).read_bytes() == (saved / file).read_bytes()
    monkeypatch.setattr(extra_plugin, "Versioned", Versioned)
    assert torch.equal(load_checkpoint(tmp_path / "again").log_prob(T, "x"), expected.log_prob(T, "x"))


def test_what_a_constructor_prints_is_no_output(
    saved: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(extra_plugin, "Versioned", Prints)
    assert not load_checkpoint(saved).opaque
    assert capsys.readouterr() == ("", "hello from a constructor\n")


@pytest.mark.usefixtures("offered")
@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"upgrade": staticmethod(raising(ValueError("no way")))}, r"its upgrade\(\) raises ValueError: no way"),
        ({"upgrade": staticmethod(lambda state, version: None)}, r"should return a state dict; got NoneType"),
        ({"upgrade": None}, r"its upgrade\(\) raises TypeError"),
    ],
)
def test_of_the_shared_flow_it_is_an_error_that_names_both_versions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, members: dict[str, Any], words: str
) -> None:
    save_checkpoint(TzK(build_flow((4,), layers=[{"type": "versioned-layer"}])), tmp_path / "checkpoint")
    monkeypatch.setattr(extra_plugin, "VersionedLayer", subclass(VersionedLayer, state_version=3, **members))
    with pytest.raises(TzkError, match=rf"built with tzk-plugin-extra 1.5: .*installed tzk-plugin-extra 1.5.*{words}"):
        load_checkpoint(tmp_path / "checkpoint")
