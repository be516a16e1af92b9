"""A training in several processes is that of one: the same steps, log, validation and checkpoints."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from in_processes import in_processes
from models import LAYERS, small
from nflows.transforms import CompositeTransform, Transform
from nflows.transforms.normalization import BatchNorm
from torch import Tensor, nn

from tzk_core import Observations, SharedFlow, TzK, TzkError, build_flow, build_knowledge, fit
from tzk_core.distributions.standard import StandardGaussian
from tzk_core.errors import Note
from tzk_core.objective import Wording
from tzk_core.objective.shard import Shard
from tzk_core.random_streams import stream
from tzk_core.storage.checkpoint import load_trainer
from tzk_core.training.observers import Logged, Observer, Progress
from tzk_core.training.reduction import check_independent, shard_of
from tzk_core.training.settings import Settings
from tzk_core.training.trainer import Trainer
from tzk_core.training.validation import Validation
from tzk_core.world import ALONE, Lost, World

NAN = math.nan
STEPS = 20
SIZE = 13  # odd, so that shards differ
GROUP = ("k0", "k1", "k2")


class Batches:
    """Batches of three dimensions, with the presence of each sample by `table`; of some, T and C are missing."""

    def __init__(
        self, table: list[list[float]], *, missing: int = 0, characteristics: bool = False, exclusive: bool = False
    ) -> None:
        self.table = torch.tensor([table[i % len(table)] for i in range(SIZE)], dtype=torch.float64)
        self.missing, self.characteristics, self.exclusive = missing, characteristics, exclusive

    def batch(self, step: int) -> Observations:
        source = stream(step, "batches")
        T = torch.randn(SIZE, 3, generator=source).double()
        T[torch.randperm(SIZE, generator=source)[: self.missing]] = NAN
        names = tuple(f"k{number}" for number in range(self.table.shape[1]))
        order = torch.randperm(SIZE, generator=source)
        C = torch.randn(SIZE, 2, generator=source).double()
        C[::3] = NAN
        return Observations(
            T,
            self.table[order],
            names,
            {"k0": C} if self.characteristics else {},
            (GROUP,) if self.exclusive else (),
        )

    def sources(self, step: int) -> Mapping[str, slice]:
        return {"first": slice(0, 6), "second": slice(6, SIZE)}


class Coupling(Transform):
    """Shifts one dimension by a network of the two others, wide enough for Muon."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 1))

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        shifted = inputs[:, 2:] + self.network(inputs[:, :2])
        return torch.cat([inputs[:, :2], shifted], 1), inputs.new_zeros(len(inputs))


def wide() -> TzK:
    torch.manual_seed(3)
    flow = SharedFlow((3,), Coupling(), StandardGaussian((3,)))
    return TzK(flow, {"k0": build_knowledge("gaussian", (3,), 0, name="k0", hidden=6)}).double()


def many(count: int = 40) -> TzK:
    """So many types of one structure that they share a table."""
    model = TzK(build_flow((3,), layers=LAYERS, seed=0))
    for number in range(count):
        model.add(f"k{number}", build_knowledge("gaussian", (3,), number, name=f"k{number}", hidden=4))
    return model.double()


TWO = [[1, 0], [0, 1], [NAN, 0], [0, NAN], [1, NAN], [0, 0]]
THREE = [[1, 0, 0], [0, 1, 0], [NAN, NAN, NAN], [0, NAN, NAN]]
RARE = [[float(number in (row, row + 1)) for number in range(40)] for row in range(6)]
HELD_OUT = Observations(torch.randn(1100, 3, generator=stream(9, "held out")).double(), torch.zeros(1100, 0))

CASES: dict[str, dict[str, Any]] = {
    "missing κ and C, clipped": {"batches": Batches(TWO, characteristics=True), "settings": {"clip": 0.5}},
    "missing T, and some hidden": {
        "batches": Batches(TWO, missing=4, characteristics=True),
        "settings": {"hidden_share": 0.2, "emphasis": 2.0},
    },
    "the paper's wording, with missing T": {
        "batches": Batches(TWO, missing=3),
        "settings": {"wording": Wording("literal", "paper", "sum")},
    },
    "unlabelled samples left out": {"batches": Batches(TWO), "settings": {"unlabelled": "skip"}},
    "exclusive": {"model": lambda: small(["gaussian"] * 3), "batches": Batches(THREE, exclusive=True)},
    "exclusive, with missing T": {
        "model": lambda: small(["gaussian"] * 3),
        "batches": Batches(THREE, exclusive=True, missing=5),
    },
    "a table of many": {"model": many, "batches": Batches(RARE), "settings": {"negatives": 6, "clip": 0.1}},
    "Muon": {"model": wide, "batches": Batches([[1], [0], [NAN]]), "settings": {"optimizer": "muon"}},
    "knowledge alone": {"batches": Batches(TWO), "trained": ["k1"]},
    "validated": {
        "batches": Batches([[1, 0], [0, 1]]),
        "settings": {"validate_every": 5, "minutes": 60.0},
        "validation": Validation({"first": HELD_OUT}, {"first": 1.0}, levels=None),
    },
}


def trainer(case: str, world: World = ALONE, *, owners_from: int = 0) -> Trainer:
    chosen = CASES[case]
    model = chosen.get("model", lambda: small(["gaussian", "flow"]))()
    more = chosen.get("settings", {})
    settings = Settings(steps=STEPS, compile=False, log_every=7, owners_from=owners_from, **more)
    return Trainer(
        model,
        chosen["batches"],
        settings,
        levels=None,
        trained=chosen.get("trained"),
        validation=chosen.get("validation"),
        world=world,
    )


def outcome(made: Trainer, log: list[Mapping[str, float]]) -> dict[str, Any]:
    rows = [{key: value for key, value in row.items() if key != "seconds"} for row in log]
    optimizer = {key: made._state()[key] for key in ("optimizer", "banks", "multipliers")}
    best = made.watch.best
    return {"model": made.model.state_dict(), "log": rows, "best": best and best.step, **optimizer}


def trained(made: Trainer, folder: Path | None = None, observers: Sequence[Observer] = ()) -> dict[str, Any]:
    log: list[Mapping[str, float]] = []

    class Log(Observer):
        def on_log(self, logged: Logged) -> None:
            log.append(dict(logged.values))

    made.run(folder, observers=[Log(), *observers])
    return outcome(made, log)


STOPPED = 8
"""The step after which trainings are interrupted that are to be resumed."""


def interrupted(made: Trainer, folder: Path) -> None:
    """Train until it is interrupted, in all processes at once; the first leaves a checkpoint."""

    def stop(progress: Progress) -> None:
        if progress.step == STOPPED:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        made.run(folder if made.world.first else None, stop)


def resumed(made: Trainer, folder: Path) -> dict[str, Any]:
    if made.world.first:
        made.resume(folder)
    return trained(made)


RESUMED = "validated"


def interrupted_everywhere(world: World, make: Callable[[str, World], Trainer], folder: Path) -> None:
    """In each process, `interrupted` of what `make` makes."""
    interrupted(make(RESUMED, world), folder)


def resumed_everywhere(world: World, make: Callable[[str, World], Trainer], folder: Path) -> dict[str, Any]:
    return weights(resumed(make(RESUMED, world), folder))


def resumed_and_interrupted(world: World, of_one: Path, of_several: Path) -> dict[str, Any]:
    """Resume what one process has left, and leave something to resume."""
    interrupted(trainer("a table of many", world), of_several / "a table of many")
    interrupted(trainer(RESUMED, world), of_several / RESUMED)
    return resumed(trainer(RESUMED, world), of_one)


def every_case(world: World, cases: list[str], folder: Path) -> dict[str, Any]:
    """In each process; the first writes checkpoints, as in a run."""
    return {case: trained(trainer(case, world), folder / case if world.first else None) for case in cases}


def assert_same(actual: Any, expected: Any, where: str) -> None:
    if isinstance(expected, Mapping):
        assert actual.keys() == expected.keys(), where
        for key in expected:
            assert_same(actual[key], expected[key], f"{where}: {key}")
    elif isinstance(expected, list | tuple):
        assert len(actual) == len(expected), where
        for number, (one, other) in enumerate(zip(actual, expected, strict=True)):
            assert_same(one, other, f"{where}: {number}")
    elif isinstance(expected, Tensor | float):
        torch.testing.assert_close(
            actual, expected, rtol=1e-12, atol=1e-12, equal_nan=True, msg=lambda m: f"{where}: {m}"
        )
    else:
        assert actual == expected, where


def assert_trains_as_one(cases: list[str], count: int, folder: Path) -> None:
    for case in cases:
        (folder / case).mkdir()
    first, *others = in_processes(count, every_case, cases, folder)
    for case in cases:
        expected = trained(trainer(case))
        assert_same(first[case], expected, case)
        for other in others:  # to the bit, or they would drift apart
            for key, value in first[case]["model"].items():
                assert torch.equal(other[case]["model"][key], value), (case, key)
        assert len(expected["log"]) >= 3 and not math.isnan(expected["log"][-1]["objective"])


@pytest.mark.slow
def test_two_processes_train_as_one_does(tmp_path: Path) -> None:
    assert_trains_as_one(list(CASES), 2, tmp_path)


@pytest.mark.slow
def test_four_processes_train_as_one_does(tmp_path: Path) -> None:
    assert_trains_as_one(["missing T, and some hidden", "a table of many", "validated"], 4, tmp_path)


@pytest.mark.slow
def test_checkpoints_are_of_any_number_of_processes(tmp_path: Path) -> None:
    """What two have left, one resumes, and the other way around; files are those that one process writes."""
    of_one, of_several = tmp_path / "one", tmp_path / "several"
    for name in (RESUMED, "a table of many"):
        (of_several / name).mkdir(parents=True)
    of_one.mkdir()
    interrupted(trainer(RESUMED), of_one)
    first, _ = in_processes(2, resumed_and_interrupted, of_one, of_several)
    expected = trained(trainer(RESUMED))
    assert_same(weights(first), weights(expected), "one, then two")
    assert_same(weights(resumed(trainer(RESUMED), of_several / RESUMED)), weights(expected), "two, then one")
    for name in (RESUMED, "a table of many"):
        last = of_several / name / "checkpoint"
        again = trainer(name)
        again.resume(of_several / name)
        assert again.step == STOPPED
        again.save(tmp_path / "again" / name)
        written = tmp_path / "again" / name / "checkpoint"
        assert files(written) == files(last)
        assert_same(load_trainer(written), load_trainer(last), name)


def weights(of: dict[str, Any]) -> dict[str, Any]:
    """All but the log, whose file begins anew when a training is resumed."""
    return {key: value for key, value in of.items() if key != "log"}


def files(folder: Path) -> dict[str, bytes]:
    """All but the state of the training, in which pickle notes which texts are one object."""
    entries = json.loads((folder / "manifest.json").read_text())
    entries["trainer"] = {key: entries["trainer"][key] for key in ("file", "step")}
    del entries["sha256"]
    names = (file for file in folder.rglob("*.safetensors"))
    return {str(file.relative_to(folder)): file.read_bytes() for file in names} | {"": json.dumps(entries).encode()}


def left_alone(world: World) -> tuple[str, int]:
    """What the first process is told when the second one ends after a step, and how many steps it took."""
    made = trainer("missing T, and some hidden", world)
    made.advance()
    if world.rank == 1:
        os._exit(0)
    with pytest.raises(Lost) as lost:
        made.run()
    return str(lost.value), made.step


@pytest.mark.slow
def test_a_process_that_ends_ends_the_others() -> None:
    (said, steps), nothing = in_processes(2, left_alone)
    assert said.startswith("another process of this command ended or cannot be reached (") and "\n" not in said
    assert steps == 1 and nothing is None


@pytest.mark.parametrize("size", [1, 2, 7, 13])
@pytest.mark.parametrize("shards", [1, 2, 4, 7])
def test_shards_make_up_a_batch(size: int, shards: int) -> None:
    cut = [Shard.of(size, number, shards) for number in range(shards)]
    assert [row for shard in cut for row in range(size)[shard.rows]] == list(range(size))
    assert sum(shard.share for shard in cut) == pytest.approx(1)
    lengths = [shard.stop - shard.start for shard in cut]
    assert max(lengths) - min(lengths) <= 1


def test_the_noise_of_shards_is_that_of_the_batch() -> None:
    """By what it was drawn for: samples that have a knowledge type get it in their order."""
    chosen = {"k0": torch.tensor([True, False, True, True, False, True])}
    whole = {"k0": torch.arange(4.0)[:, None]}
    pieces = []
    for number in range(3):
        shard = Shard.of(6, number, 3)
        here = int(chosen["k0"][shard.rows].sum())
        pieces.append(shard.noise(lambda name, count: whole[name][:count], chosen)("k0", here))
    assert [len(piece) for piece in pieces] == [1, 2, 1]
    torch.testing.assert_close(torch.cat(pieces), whole["k0"])


def test_a_batch_smaller_than_the_world_is_refused() -> None:
    with pytest.raises(TzkError, match="a batch of 3 samples cannot be cut for 4 processes: start fewer"):
        shard_of(World(0, 4), 3)
    assert shard_of(ALONE, 1) is None


def test_a_flow_whose_samples_depend_on_each_other_is_refused() -> None:
    T, shards = torch.randn(6, 3).double(), [Shard.of(6, number, 2) for number in range(2)]
    flow = SharedFlow((3,), CompositeTransform([BatchNorm(3)]), StandardGaussian((3,))).double()
    before = {name: buffer.clone() for name, buffer in flow.named_buffers()}
    flow.train()
    with pytest.raises(TzkError, match="who else is in its batch.*Train it in one process"):
        check_independent(flow, T, shards)
    assert all(torch.equal(buffer, before[name]) for name, buffer in flow.named_buffers())
    check_independent(small().flow, T, shards)


def test_a_compiled_step_is_of_one_process() -> None:
    with pytest.raises(TzkError, match="compile = true is for one process"):
        Trainer(small(), Batches([[1.0]]), Settings(steps=1, compile=True), levels=None, world=World(0, 2))


def test_a_call_is_of_one_process_whatever_it_asks_for() -> None:
    T, one, two = torch.randn(8, 3), small(()), small(())
    fit(one, T.to(one.like), steps=2, batch_size=4)
    with pytest.warns(Note, match="processes = 2 is for `tzk run`; fit trains in this one"):
        fit(two, T.to(two.like), steps=2, batch_size=4, processes=2)
    assert all(torch.equal(value, two.state_dict()[name]) for name, value in one.state_dict().items())
