"""A model that was opened lazily computes what the whole one does, bit for bit, with a bounded number of types read."""

from __future__ import annotations

import gc
import shutil
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from extra_plugin import OFFERED
from torch import Tensor

import tzk_core
from tzk_core.build import build_flow, build_knowledge
from tzk_core.errors import TzkError
from tzk_core.model import TzK
from tzk_core.plugins import Spec
from tzk_core.storage.checkpoint import save_checkpoint
from tzk_core.storage.lazy import LazyKnowledge, LazyTzK

FLOWS: dict[str, dict[str, Any]] = {
    "affine": {"shape": (4,), "layers": [{"type": "affine"}, {"type": "symlog"}]},
    "no parameters": {"shape": (4,), "layers": [{"type": "symlog"}]},
}


def made(flow: str = "affine", count: int = 150, dtype: torch.dtype = torch.float32) -> TzK:
    """A model with random weights: `count` types of one structure, among them two of another."""
    model = TzK(build_flow(**FLOWS[flow]))
    for number in range(count):
        type, own = ("gaussian", {}) if number in {3, 70} else ("low-rank", {"dims": 4})
        name = f"type-{number}"
        model.add(name, build_knowledge(type, (4,), name=name, hidden=6, layers=2, **own))
    model.find("type-1").describe_as(implies=("type-0",))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for _, kind in model.named_knowledge():
            for parameter in kind.parameters():
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
            kind.log_odds.normal_(generator=generator)
    return model.to(dtype)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    save_checkpoint(made(), folder / "checkpoint")
    return folder


@pytest.fixture(scope="module")
def whole(run: Path) -> TzK:
    return tzk_core.load(run)


def opened(run: Path, in_memory: int | None = None) -> LazyTzK:
    model = tzk_core.open(run, lazy=True, in_memory=in_memory)
    assert isinstance(model, LazyTzK)
    return model


def observations(count: int = 3, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(count, 4, generator=torch.Generator().manual_seed(5)).to(dtype)


def reads(model: LazyTzK, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of types that are read from now on."""
    names: list[str] = []
    read = model.knowledge.reader.read
    monkeypatch.setattr(model.knowledge.reader, "read", lambda name: (names.append(name), read(name))[1])
    return names


@pytest.mark.parametrize("in_memory", [1, 7, 1000])
def test_posteriors_and_scores_are_those_of_the_whole_model_bit_for_bit(run: Path, whole: TzK, in_memory: int) -> None:
    T, model = observations(), opened(run, in_memory)
    expected, found = whole.posterior(T), model.posterior(T)
    assert list(found) == list(expected) == list(model.knowledge) and len(model.knowledge) == len(expected)
    for name, posterior in dict(tzk_core.posteriors(model, T)).items():
        for own in (posterior, found[name]):
            assert torch.equal(own.presence, expected[name].presence)
            assert torch.equal(own.mean, expected[name].mean) and torch.equal(own.deviation, expected[name].deviation)
    for name, log_prob in tzk_core.log_probs(model, T, importance_samples=8, seed=2):
        assert torch.equal(log_prob, whole.log_prob(T, name, importance_samples=8, seed=2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("flow", FLOWS)
def test_it_does_what_the_whole_model_does(tmp_path: Path, flow: str, dtype: torch.dtype) -> None:
    save_checkpoint(made(flow, count=5, dtype=dtype), tmp_path / "c")
    whole, model, T = tzk_core.load(tmp_path / "c"), opened(tmp_path / "c", 1), observations(dtype=dtype)
    assert model.like.dtype == dtype
    assert torch.equal(model.log_prob(T), whole.log_prob(T)) and torch.equal(model.encode(T), whole.encode(T))
    for names in ("type-2", ("type-1", "type-0"), ("type-2", "type-4")):
        assert torch.equal(model.log_prob(T, names), whole.log_prob(T, names))
        assert torch.equal(model.sample(3, names, seed=4), whole.sample(3, names, seed=4))
    assert torch.equal(model.conditional("type-3").log_prob(T), whole.conditional("type-3").log_prob(T))
    assert not model.log_prob(T, "type-3").requires_grad
    T.requires_grad_()
    ours, theirs = (torch.autograd.grad(each.log_prob(T, "type-2").sum(), T)[0] for each in (model, whole))
    assert torch.equal(ours, theirs)


def test_types_are_read_when_they_are_asked_for_and_the_least_recently_used_goes(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = opened(run, 2)
    read = reads(model, monkeypatch)
    assert "type-5" in model.knowledge and "type-500" not in model.knowledge and len(model.knowledge) == 150
    assert model.knowledge.implied_by("type-1") == {"type-0"} and read == []
    for name in ("type-1", "type-2", "type-1", "type-3", "type-1", "type-2"):
        assert model.find(name) is model.find(name)
    assert read == ["type-1", "type-2", "type-3", "type-2"]  # type-3 displaced type-2, not type-1, which was used later
    with pytest.raises(TzkError, match="no knowledge type 'type-15O': do you mean 'type-150'|no knowledge type"):
        model.find("type-15O")


def test_no_more_types_are_alive_than_are_kept_and_evaluated_together(run: Path) -> None:
    model, alive, most = opened(run, 4), weakref.WeakSet[Any](), 0
    read = model.knowledge.reader.read

    def noted(name: str) -> Any:
        nonlocal most
        alive.add(kind := read(name))
        most = max(most, len(alive))
        return kind

    model.knowledge.reader.read = noted  # type: ignore[method-assign]
    gc.disable()  # nothing may wait for it
    try:
        for _ in tzk_core.log_probs(model, observations(), importance_samples=2):
            pass
        assert most <= 4 + 2 + 1  # what is kept, the first of each structure, and the one that is evaluated
        most = 0
        for _ in tzk_core.posteriors(model, observations()):
            pass
        assert most <= 2 * 128 + 4 + 2
    finally:
        gc.enable()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda model: model.to(torch.float64), "stays torch.float32"),
        (lambda model: model.double(), "stays torch.float32"),
        (lambda model: model.to("cpu", torch.float16), "stays torch.float32"),
        (lambda model: model.train(), "cannot be trained"),
        (lambda model: list(model.parameters()), "cannot be trained"),
        (lambda model: model.requires_grad_(), "cannot be trained"),
        (lambda model: tzk_core.fit(model, observations(), steps=1), "cannot be trained"),
        (lambda model: model.add("new", build_knowledge("gaussian", (4,))), "'new' cannot be added"),
        (lambda model: model.knowledge.pop("type-1"), "'type-1' cannot be removed"),
        (lambda model: model.state_dict(), "no state dict"),
        (lambda model: model.load_state_dict({}), "no state dict"),
    ],
)
def test_what_it_cannot_do_is_refused_with_a_sentence(run: Path, call: Any, words: str) -> None:
    model = opened(run)
    before = model.log_prob(observations(), "type-2")
    with pytest.raises(TzkError, match=rf"opened with lazy=True: .*{words}.*tzk_core\.load"):
        call(model)
    assert torch.equal(model.log_prob(observations(), "type-2"), before)
    assert model.to("cpu") is model and torch.equal(model.log_prob(observations(), "type-2"), before)


def test_saved_again_it_is_the_same_checkpoint(run: Path, tmp_path: Path) -> None:
    tzk_core.save(opened(run, 3), tmp_path / "again")
    files = sorted(path.relative_to(tmp_path / "again") for path in (tmp_path / "again").rglob("*.*"))
    assert len(files) == 152
    for file in files:
        assert (tmp_path / "again" / file).read_bytes() == (run / "checkpoint" / file).read_bytes(), file


def test_what_cannot_be_used_here_is_opaque_and_left_out(tmp_path: Path, offered: list[Spec]) -> None:
    model = made(count=5)
    model.add("x", build_knowledge("versioned", (4,), name="x"))
    with torch.no_grad():
        next(model.find("type-2").parameters()).fill_(float("nan"))
    save_checkpoint(model, tmp_path / "c")
    offered.clear()
    whole, lazy, T = tzk_core.load(tmp_path / "c"), opened(tmp_path / "c"), observations()
    assert list(lazy.opaque) == ["x"] and lazy.opaque["x"].reason == whole.opaque["x"].reason
    assert lazy.opaque["x"].file == whole.opaque["x"].file
    with pytest.raises(TzkError, match="'x' needs tzk-plugin-extra 1.5"):
        lazy.log_prob(T, "x")
    assert list(lazy.posterior(T)) == list(whole.posterior(T)) == ["type-0", "type-1", "type-3", "type-4"]
    with pytest.raises(TzkError, match="nan or infinity"):
        lazy.find("type-2")
    assert "type-2" not in lazy.knowledge and [name for name, _ in lazy.named_knowledge()] == list(lazy.knowledge)
    tzk_core.save(lazy, tmp_path / "again")
    offered[:] = OFFERED
    again = tzk_core.load(tmp_path / "again")
    assert set(again.opaque) == {"type-2"} and "x" in again.knowledge


def test_a_damaged_file_is_named_when_it_is_asked_for(run: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(run / "checkpoint", tmp_path / "c")
    model = opened(folder)
    (folder / "knowledge/type-2.safetensors").write_bytes(b"")
    (folder / "knowledge/type-4.safetensors").unlink()
    model.find("type-0")
    with pytest.raises(TzkError, match="type-2.safetensors is truncated or altered"):
        model.find("type-2")
    with pytest.raises(TzkError, match="type-4.safetensors is missing"):
        model.find("type-4")


def test_a_checkpoint_that_was_replaced_is_not_mixed_with_the_one_that_was_opened(tmp_path: Path) -> None:
    model = made(count=3)
    save_checkpoint(model, tmp_path / "c")
    lazy = opened(tmp_path / "c")
    kept = lazy.log_prob(observations(), "type-0")
    with torch.no_grad():
        next(model.find("type-1").parameters()).add_(1)
    save_checkpoint(model, tmp_path / "c")
    assert torch.equal(lazy.log_prob(observations(), "type-0"), kept)
    with pytest.raises(TzkError, match="was replaced after it was opened.*open it again"):
        lazy.find("type-1")


def test_without_lazy_it_is_load(run: Path) -> None:
    model = tzk_core.open(run)
    assert type(model) is TzK and not isinstance(model.knowledge, LazyKnowledge)
    with pytest.raises(TzkError, match="is for lazy=True"):
        tzk_core.open(run, in_memory=3)
    with pytest.raises(TzkError, match="1 or more"):
        tzk_core.open(run, lazy=True, in_memory=0)
