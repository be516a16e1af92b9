"""A flow in shards is trained as a whole one: the same steps, log, validation and checkpoints."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from in_processes import in_processes
from models import small
from test_owners import CASES as OWNED
from test_owners import assert_same_to_the_bit
from test_owners import many as owned
from test_world import (
    CASES,
    STOPPED,
    TWO,
    Batches,
    assert_same,
    files,
    interrupted,
    interrupted_everywhere,
    outcome,
    resumed_everywhere,
    trained,
    weights,
)

from tzk_core import TzkError, build_flow
from tzk_core.storage.checkpoint import load_trainer
from tzk_core.training import sharding
from tzk_core.training.observers import Observer, Progress
from tzk_core.training.settings import Settings
from tzk_core.training.sharding import Gathered, ShardedFlow, layers_of
from tzk_core.training.soundness import Diverged
from tzk_core.training.steps import Steps
from tzk_core.training.trainer import Trainer
from tzk_core.world import ALONE, World

WHOLE = ["missing κ and C, clipped", "unlabelled samples left out", "exclusive", "a table of many", "validated"]
"""Cases of `test_world` whose T is all observed."""

gathers = pytest.mark.skipif(
    not hasattr(torch.cpu.Stream, "record_event"), reason="torch before 2.7 cannot gather shards on CPUs"
)

DIVIDED = "exclusive"
"""One of `test_owners`, whose knowledge types have one owner each."""


def trainer(case: str, world: World = ALONE, *, shard: bool = True, dtype: torch.dtype = torch.float64) -> Trainer:
    """A training of a case, with every layer of its flow in shards where there are several processes."""
    if world.size > 1:  # of a process that ends with the test
        sharding.LEAST = 1
    chosen, more = (CASES[case], {}) if case in WHOLE else (OWNED[DIVIDED], {"owners_from": 1})
    settings = Settings(steps=20, compile=False, log_every=7, shard=shard, **more, **chosen.get("settings", {}))
    model = chosen["model"]() if "model" in chosen else None
    return Trainer(
        (model or (small(["gaussian", "flow"]) if case in WHOLE else owned())).to(dtype),
        chosen["batches"],
        settings,
        levels=None,
        validation=chosen.get("validation"),
        world=world,
    )


class InShards(Observer):
    """The largest part of the flow's numbers that a process had after a step, and whether it moved no others."""

    def __init__(self, made: Trainer) -> None:
        self.made, self.most, self.numbers = made, 0, sum(p.numel() for p in made.model.flow.parameters())

    def on_step(self, progress: Progress) -> None:
        assert self.made.sharded is not None
        own = sum(piece.own.numel() for piece in self.made.sharded.pieces)
        assert self.numbers == sum(piece.sharded.numel() for piece in self.made.sharded.pieces)
        moments = sum(state["exp_avg"].numel() for state in self.made.optimizer.state.values())  # type: ignore[attr-defined]
        others = sum(p.numel() for p in self.made.model.knowledge.parameters())
        assert own <= moments <= own + others
        assert all(piece.whole.untyped_storage().nbytes() <= 8 for piece in self.made.sharded.pieces)
        self.most = max(self.most, own)


def every_case(world: World, cases: list[str], folder: Path) -> dict[str, Any]:
    found = {}
    for case in cases:
        made = trainer(case, world)
        seen = InShards(made)
        found[case] = trained(made, folder / case if world.first else None, [seen])
        assert made.sharded is None and not any(isinstance(part, Gathered) for part in made.model.modules())
        found[case]["share"] = seen.most / seen.numbers
    return found


def assert_train_as_one(cases: list[str], count: int, folder: Path) -> None:
    for case in cases:
        (folder / case).mkdir()
    first, *others = in_processes(count, every_case, cases, folder)
    for case in cases:
        expected = trained(trainer(case, shard=False))
        shares = [found[case].pop("share") for found in (first, *others)]
        assert sum(shares) == pytest.approx(1) and max(shares) < 0.7
        assert_same(first[case], expected, case)
        for other in others:
            assert_same_to_the_bit(other[case]["model"], first[case]["model"])
            assert_same_to_the_bit(other[case]["optimizer"], first[case]["optimizer"])
        assert not math.isnan(expected["log"][-1]["objective"])


@gathers
@pytest.mark.slow
def test_two_processes_train_a_flow_in_shards_as_one_does(tmp_path: Path) -> None:
    assert_train_as_one([*WHOLE, "owned"], 2, tmp_path)


@gathers
@pytest.mark.slow
def test_four_processes_of_which_one_has_no_row_of_a_layer(tmp_path: Path) -> None:
    assert_train_as_one(["missing κ and C, clipped", "validated"], 4, tmp_path)


@gathers
@pytest.mark.slow
def test_checkpoints_of_shards_are_of_any_number_of_processes(tmp_path: Path) -> None:
    """What two have left, one reads and writes again to the byte; either resumes what the other left."""
    of_one, of_two, again = (tmp_path / name for name in ("one", "two", "again"))
    of_one.mkdir()
    of_two.mkdir()
    expected = weights(trained(trainer("validated", shard=False)))
    in_processes(2, interrupted_everywhere, trainer, of_two)
    one = trainer("validated", shard=False)
    one.resume(of_two)
    assert one.step == STOPPED
    one.save(again)
    assert files(again / "checkpoint") == files(of_two / "checkpoint")
    assert_same_to_the_bit(load_trainer(again / "checkpoint"), load_trainer(of_two / "checkpoint"))
    assert_same(weights(trained(one)), expected, "two, then one")
    interrupted(trainer("validated", shard=False), of_one)
    for found in in_processes(2, resumed_everywhere, trainer, of_one):
        assert_same(found, expected, "one, then two")


def in_float32(world: World = ALONE) -> dict[str, Any]:
    made = trainer("missing κ and C, clipped", world, dtype=torch.float32)
    made.run()
    return made.model.state_dict()


@gathers
@pytest.mark.slow
def test_float32_is_trained_in_shards_too() -> None:
    """By another reduction of torch's than float64."""
    expected = in_float32()
    for found in in_processes(2, in_float32):
        for key, value in expected.items():
            torch.testing.assert_close(found[key], value, rtol=1e-3, atol=1e-4)


def diverged(world: World) -> dict[str, Any]:
    """A training in which one process spoils a row that it alone has, between two rows of the log."""
    made = trainer("missing κ and C, clipped", world)
    advance = made.advance

    def spoiling() -> Any:
        capacity = advance()
        if made.step == 10 and world.rank == 1:
            assert made.sharded is not None
            made.optimizer.state[made.sharded.pieces[0].own]["exp_avg_sq"].fill_(math.inf)  # type: ignore[attr-defined]
        return capacity

    made.advance = spoiling  # type: ignore[method-assign]
    with pytest.raises(Diverged) as raised:
        made.run()
    return {"said": str(raised.value), "step": made.step, **outcome(made, [])}


@gathers
@pytest.mark.slow
def test_what_spoils_one_shard_sends_all_back() -> None:
    first, second = in_processes(2, diverged)
    assert first["said"].startswith("training diverged at step") and first["step"] == second["step"] < 14
    assert_same_to_the_bit(second["model"], first["model"])
    assert all(value.isfinite().all() for value in first["model"].values())


def test_one_process_has_the_whole_flow() -> None:
    made = trainer("exclusive")
    made.run()
    assert (
        made.settings.shard
        and made.sharded is None
        and not any(isinstance(part, Gathered) for part in made.model.modules())
    )


def test_layers_that_are_large_and_alone_are_divided(monkeypatch: pytest.MonkeyPatch) -> None:
    flow = build_flow((1, 32, 32), "paper", steps=3, tile=16)
    large = list(layers_of(flow.transform))
    assert len(large) == 3 and all(holder[number] is layer for holder, number, layer in large)
    assert {type(layer).__name__ for _, _, layer in large} == {"TiledConvolution"}
    monkeypatch.setattr(sharding, "LEAST", 1)
    every = {id(layer) for _, _, layer in layers_of(flow.transform)}
    assert every == {id(layer) for layer in flow.transform._transforms if any(True for _ in layer.parameters())}
    first, second = large[0][2], large[1][2]
    second.triangles = first.triangles  # two layers have one parameter
    left = {id(layer) for _, _, layer in layers_of(flow.transform)}
    assert id(first) not in left and id(second) not in left


def test_what_cannot_be_in_shards_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    world, flow = World(0, 2), small(()).flow
    adam = torch.optim.Adam(flow.parameters())

    def refused(**settings: Any) -> str:
        with pytest.raises(TzkError) as refusal:
            sharding.sharded_flow(flow, adam, settings=Settings(steps=1, shard=True, **settings), world=world)  # type: ignore[arg-type]
        return str(refusal.value)

    assert "'muon' takes whole matrices" in refused(optimizer="muon")
    assert "write hidden_share = 0" in refused(hidden_share=0.5)
    assert sharding.sharded_flow(flow, adam, settings=Settings(steps=1), world=world) is None  # type: ignore[arg-type]
    steps = Steps(small(), Batches(TWO, missing=2), Settings(steps=1, compile=False, shard=True), levels=None)
    steps.sharded = ShardedFlow(world, steps.optimizer)
    with pytest.raises(TzkError, match="T is all observed, and some of this one is missing"):
        steps.advance()


def test_a_torch_that_cannot_gather_shards_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "Stream", object)
    with pytest.raises(TzkError, match="shard = true needs torch 2.7 or later on CPUs, and this is"):
        sharding._check_torch(torch.device("cpu"))
    sharding._check_torch(torch.device("cuda"))
