"""A training in several processes is that of one: the same steps, log, validation and checkpoints."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from in_processes import in_processes
from models import LAYERS, small
from nflows.transforms import CompositeTransform, Transform
from nflows.transforms.normalization import BatchNorm
from torch import Tensor, nn

from tzk_core import Observations, SharedFlow, TzK, TzkError, build_flow, build_knowledge
from tzk_core.distributions.standard import StandardGaussian
from tzk_core.objective import Wording
from tzk_core.objective.part import Part
from tzk_core.random_streams import stream
from tzk_core.training.reduction import check_independent, part_of
from tzk_core.training.settings import Settings
from tzk_core.training.trainer import Trainer
from tzk_core.training.validation import Validation
from tzk_core.world import ALONE, World

NAN = math.nan
STEPS = 20
SIZE = 13  # odd, so that parts differ
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


def trainer(case: str, world: World = ALONE, steps: int = STEPS) -> Trainer:
    chosen = CASES[case]
    model = chosen.get("model", lambda: small(["gaussian", "flow"]))()
    settings = Settings(steps=steps, compile=False, log_every=7, **chosen.get("settings", {}))
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


def trained(made: Trainer, folder: Path | None = None) -> dict[str, Any]:
    from tzk_core.training.observers import Logged, Observer

    log: list[Mapping[str, float]] = []

    class Log(Observer):
        def on_log(self, logged: Logged) -> None:
            log.append(dict(logged.values))

    made.run(folder, observers=[Log()])
    return outcome(made, log)


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


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 4])
def test_several_processes_train_as_one_does(count: int, tmp_path: Path) -> None:
    for case in CASES:
        (tmp_path / case).mkdir()
    first, *others = in_processes(count, every_case, list(CASES), tmp_path)
    for case in CASES:
        expected = trained(trainer(case))
        assert_same(first[case], expected, case)
        for other in others:  # to the bit, or they would drift apart
            for key, value in first[case]["model"].items():
                assert torch.equal(other[case]["model"][key], value), (case, key)
        assert len(expected["log"]) >= 3 and not math.isnan(expected["log"][-1]["objective"])
