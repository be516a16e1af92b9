"""A checkpoint gives the model back bit for bit, survives a kill at any moment, and names what is wrong with it."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from extra_plugin import OFFERED, Versioned, VersionedLayer
from kills import Killed, killing
from manifests import rewritten
from torch import Tensor

import tzk_core
from tzk_core.build import build_flow, build_knowledge
from tzk_core.distributions.standard import StandardGaussian
from tzk_core.errors import TzkError
from tzk_core.knowledge.gaussian import GaussianKnowledge
from tzk_core.model import SharedFlow, TzK
from tzk_core.plugins import Spec
from tzk_core.storage import tensors
from tzk_core.storage.checkpoint import load_checkpoint, load_trainer, save_checkpoint
from tzk_core.storage.shared_flow import core_hash
from tzk_core.storage.stored import read_stored
from tzk_core.transforms.affine import Affine
from tzk_core.transforms.composite import Composite

NFLOWS: list[dict[str, Any]] = [
    {"type": "random-permutation"},
    {"type": "composite-transform", "transforms": [{"type": "lu-linear", "identity_init": False}, {"type": "affine"}]},
    {
        "type": "piecewise-rational-quadratic-coupling-transform",
        "mask": [1, 0, 1, 0],
        "transform_net_create_fn": {"callable": "nflows.nn.nets:ResidualNet", "hidden_features": 8},
        "tails": "linear",
        "tail_bound": 3.0,
    },
    {"type": "batch-norm"},
]
FLOWS: dict[str, dict[str, Any]] = {
    "paper": {"shape": (1, 4, 4), "steps": 2, "tile": 2},
    "paper, orthogonal and logistic": {
        "shape": (4,),
        "steps": 1,
        "initialisation": "orthogonal",
        "base": "logistic",
    },
    "nflows": {"shape": (4,), "layers": NFLOWS},
    "no parameters": {"shape": (4,), "layers": [{"type": "symlog"}]},
}


def made(flow: str = "paper", seed: int = 3, dtype: torch.dtype = torch.float32) -> TzK:
    """A model with random weights and two knowledge types."""
    model = TzK(build_flow(**FLOWS[flow], seed=seed))
    model.add("a", build_knowledge("flow", model.latent_shape, seed, name="a", steps=1, tile=2, hidden=8))
    model.add("digit 7", build_knowledge("gaussian", model.latent_shape, seed, name="digit 7", characteristics=3))
    model.find("digit 7").describe_as(implies=("a",))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
        model.flow.initialise(torch.rand(64, *model.shape, generator=generator))
        model.find("a").log_odds.fill_(-1.0)
    return model.to(dtype).eval()


def of(model: TzK, count: int = 3) -> Tensor:
    return torch.rand(count, *model.shape).to(next(model.parameters()).dtype)


def assert_same(model: TzK, other: TzK) -> None:
    states = model.state_dict(), other.state_dict()
    assert list(states[0]) == list(states[1])
    for key, value in states[0].items():
        assert value.dtype == states[1][key].dtype and torch.equal(value, states[1][key]), key


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
    for name, kind in model.named_knowledge():
        assert torch.equal(model.log_prob(T, name), loaded.log_prob(T, name))
        assert torch.equal(model.sample(3, name, seed=0), loaded.sample(3, name, seed=0))
        assert loaded.find(name).implies == kind.implies and loaded.find(name).part == kind.part
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


# damage


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


FILES = ("core.safetensors", "knowledge/a.safetensors", "knowledge/digit 7.safetensors")


@pytest.mark.parametrize("file", FILES)
def test_a_truncated_altered_or_missing_file_is_refused_by_its_name(tmp_path: Path, file: str) -> None:
    save_checkpoint(made(), tmp_path / "c")
    path = tmp_path / "c" / file
    whole = path.read_bytes()
    altered = bytearray(whole)
    altered[-1] ^= 1
    for content in (whole[:-1], whole[: len(whole) // 2], b"", bytes(altered)):
        path.write_bytes(content)
        with pytest.raises(TzkError, match=f"{file} is truncated or altered"):
            load_checkpoint(tmp_path / "c")
    path.unlink()
    with pytest.raises(TzkError, match=f"{file} is missing from the checkpoint"):
        load_checkpoint(tmp_path / "c")


def test_a_damaged_trainer_is_refused_by_its_name_and_the_model_still_opens(tmp_path: Path) -> None:
    save_checkpoint(made(), tmp_path / "c", {"step": 7})
    path = tmp_path / "c/trainer.pt"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(TzkError, match="trainer.pt is truncated or altered"):
        load_trainer(tmp_path / "c")
    load_checkpoint(tmp_path / "c")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "manifest.json is damaged"),
        ('{"format": 1, "core"', "manifest.json is damaged"),
        ("[]", "manifest.json has format None"),
        ('{"format": 2}', "manifest.json has format 2; this version of TzK reads format 1"),
        ('{"format": 1}', "manifest.json is damaged"),
        ('{"format": 1, "core": {"file": "x", "sha256": "y"}, "knowledge": {"a": 3}}', "manifest.json is damaged"),
    ],
)
def test_a_damaged_manifest_is_refused_by_its_name(tmp_path: Path, content: str, words: str) -> None:
    save_checkpoint(made(), tmp_path / "c")
    (tmp_path / "c/manifest.json").write_text(content)
    with pytest.raises(TzkError, match=words):
        load_checkpoint(tmp_path / "c")


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(TzkError, match="there is no run or checkpoint at .*nowhere"):
        tzk_core.load(tmp_path / "nowhere")
    with pytest.raises(TzkError, match="no checkpoint in .*: manifest.json is not there"):
        tzk_core.load(tmp_path)


# kills


def tiny(seed: int) -> TzK:
    model = TzK(build_flow((2,), layers=[{"type": "lu-linear", "identity_init": False}], seed=seed))
    model.add("a", build_knowledge("gaussian", (2,), seed, hidden=2, layers=2))
    return model


@pytest.mark.parametrize("earlier", [0, 1])
def test_a_kill_at_any_moment_leaves_the_last_good_one(tmp_path: Path, earlier: int) -> None:
    """Then the next save, killed anywhere too, and so on: whatever opens is a whole checkpoint of one of the models.

    earlier: how many saves went well before the first kill.
    """
    first, second = tiny(1), tiny(2)
    T = of(first)
    known = [model.log_prob(T) for model in (first, second)]
    start = tmp_path / "start"
    start.mkdir()
    for _ in range(earlier):
        save_checkpoint(first, start / "checkpoint", {"step": 1})
    moment, finished = 0, False
    while not finished:
        run = shutil.copytree(start, tmp_path / f"{moment}")
        finished = save_unless_killed(second, run, moment)
        killed = shutil.copytree(run, tmp_path / f"{moment} killed")
        assert_opens(run, T, known=known, expected=earlier > 0 or finished)
        between = not (killed / "checkpoint").exists() or any(each.name.endswith(".aside") for each in killed.iterdir())
        again, survived = 0, not between
        while not survived:  # a second kill, wherever the first left more or less than one checkpoint
            run = shutil.copytree(killed, tmp_path / f"{moment} {again}")
            survived = save_unless_killed(second, run, again)
            assert_opens(run, T, known=known, expected=earlier > 0 or survived)
            again += 1
        moment += 1
    assert moment >= 9, "the kills reached nothing"
    assert torch.equal(tzk_core.load(run).log_prob(T), known[1])
    assert [path.name for path in run.iterdir()] == ["checkpoint"]


def save_unless_killed(model: TzK, run: Path, moment: int) -> bool:
    """Whether the save came through a kill at its `moment`-th change of the disk."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        killing(monkeypatch, moment)
        try:
            save_checkpoint(model, run / "checkpoint", {"step": 2})
        except Killed:
            return False
    return True


def assert_opens(run: Path, T: Tensor, *, known: list[Tensor], expected: bool) -> None:
    try:
        log_prob = tzk_core.load(run).log_prob(T)
        step = load_trainer(run / "checkpoint")["step"]
    except TzkError:
        assert not expected, sorted(str(path.relative_to(run)) for path in run.rglob("*"))
        return
    assert torch.equal(log_prob, known[step - 1])


# plugins that are missing, older, newer


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
    for each, folder in ((model, "c"), (other, "other")):
        save_checkpoint(each, tmp_path / folder)
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
    kind = build_knowledge("versioned", model.latent_shape, name="x")
    model.add("x", kind)
    expected = {key: value.clone() for key, value in kind.state_dict().items()}
    kind.describe_as(part=replace(kind.part, state_version=1))
    monkeypatch.setattr(tensors, "of", older(tensors.of, Versioned, new="latent.", old="old_latent."))
    save_checkpoint(model, tmp_path / "c")
    loaded = load_checkpoint(tmp_path / "c").find("x")
    assert loaded.part.state_version == 2
    assert all(torch.equal(value, expected[key]) for key, value in loaded.state_dict().items())


def older(of: Any, kind: type, *, new: str, old: str) -> Any:
    """How an older version of `kind` would have named its tensors."""

    def named(module: torch.nn.Module) -> dict[str, Tensor]:
        state = of(module)
        if isinstance(module, kind):
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
