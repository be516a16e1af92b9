"""Knowledge types that processes divide among them train as those of one process do."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from in_processes import in_processes
from models import LAYERS
from test_world import NAN, SIZE, Batches, assert_same, files, interrupted, outcome, resumed, trained, weights

from tzk_core import Observations, TzK, TzkError, build_flow, build_knowledge
from tzk_core.objective import Wording
from tzk_core.objective.owned import Owners, owners_of
from tzk_core.random_streams import stream
from tzk_core.storage.checkpoint import load_trainer
from tzk_core.training.settings import Settings
from tzk_core.training.trainer import Trainer
from tzk_core.training.validation import Validation
from tzk_core.world import ALONE, World

TYPES = 40
EXCLUSIVE = (("k1", "k2", "k3"), ("k3", "k4"), ("k30", "k31"))
MIXED = (("k0", "flow"),)


def many(*, other: bool = False) -> TzK:
    """So many types of one structure that they share a table, and perhaps one that is in none."""
    model = TzK(build_flow((3,), layers=LAYERS, seed=0))
    for number in range(TYPES):
        model.add(f"k{number}", build_knowledge("gaussian", (3,), 2, name=f"k{number}", hidden=4))
    if other:
        model.add("flow", build_knowledge("flow", (3,), 1, name="flow"))
    return model.double()


class Labelled:
    """Batches in which some of the types are present, some are missing and most are absent."""

    def __init__(
        self, *, names: int = TYPES, exclusive: tuple[tuple[str, ...], ...] = (), missing: int = 0, other: bool = False
    ) -> None:
        self.names = (*(f"k{number}" for number in range(names)), *(["flow"] if other else []))
        self.exclusive, self.missing = exclusive, missing

    def batch(self, step: int) -> Observations:
        source = stream(step, "labelled")
        T = torch.randn(SIZE, 3, generator=source).double()
        presence = (torch.rand(SIZE, len(self.names), generator=source) < 0.08).double()
        presence[torch.rand(presence.shape, generator=source) < 0.05] = NAN
        for group in self.exclusive:
            columns = [self.names.index(name) for name in group]
            presence[:, columns] = 0
            which = torch.randint(len(group), (SIZE,), generator=source)
            for row in range(0, SIZE, 2):
                presence[row, columns[int(which[row])]] = 1
        for group in self.exclusive:
            presence[1::2, [self.names.index(name) for name in group]] = NAN
        if step >= 6:
            T[torch.randperm(SIZE, generator=source)[: self.missing]] = NAN
        C = torch.randn(SIZE, 2, generator=source).double()
        C[::3] = NAN
        return Observations(T, presence, self.names, {"k0": C, "k7": C.flip(0)}, self.exclusive)

    def sources(self, step: int) -> dict[str, slice]:
        return {"all": slice(0, SIZE)}


def held_out(count: int = 513) -> Observations:
    """One more than are evaluated at once, so that there is a chunk of one."""
    source = stream(9, "held out")
    presence = (torch.rand(count, 4, generator=source) < 0.2).double()
    return Observations(torch.randn(count, 3, generator=source).double(), presence, ("k0", "k1", "k20", "k39"))


def validation() -> Validation:
    return Validation({"all": held_out()}, {"all": 1.0}, levels=None)


CASES: dict[str, dict[str, Any]] = {
    "missing κ and C, clipped": {"batches": Labelled(), "settings": {"clip": 0.1}},
    "few absences, labels emphasised": {"batches": Labelled(), "settings": {"negatives": 3, "emphasis": 2.0}},
    "all absences": {"batches": Labelled(), "settings": {"negatives": 100}},
    "the paper's wording": {
        "batches": Labelled(),
        "settings": {"wording": Wording("literal", "paper", "sum"), "negatives": 5},
    },
    "unlabelled samples left out": {"batches": Labelled(), "settings": {"unlabelled": "skip", "negatives": 5}},
    "exclusive": {"batches": Labelled(exclusive=EXCLUSIVE), "settings": {"clip": 1.0}},
    "exclusive, and one in no table": {
        "model": lambda: many(other=True),
        "batches": Labelled(exclusive=EXCLUSIVE, other=True),
        "settings": {"negatives": 4, "emphasis": 1.0},
    },
    "exclusive with one in no table": {
        "model": lambda: many(other=True),
        "batches": Labelled(exclusive=MIXED, other=True),
        "settings": {"negatives": 4},
        "divided": False,
    },
    "added": {"batches": Labelled(), "trained": [f"k{number}" for number in range(36)], "settings": {"clip": 0.1}},
    "rare": {"batches": Batches([[float(number == 3) for number in range(TYPES)]]), "settings": {"negatives": 1}},
    "rare, added": {
        "batches": Batches([[float(number == 3) for number in range(TYPES)]]),
        "settings": {"negatives": 1},
        "trained": [f"k{number}" for number in range(TYPES)],
    },
    "T missing from a step on": {"batches": Labelled(missing=3), "settings": {"negatives": 5}, "divided": False},
    "T hidden": {"batches": Labelled(), "settings": {"hidden_share": 0.2}, "divided": False},
    "validated": {
        "batches": Labelled(exclusive=EXCLUSIVE),
        "settings": {"validate_every": 5, "minutes": 60.0, "negatives": 4},
        "validation": validation,
    },
}

STEPS = 20


def trainer(case: str, world: World = ALONE, *, steps: int = STEPS, owners_from: int = 1) -> Trainer:
    chosen = CASES[case]
    made = chosen.get("validation")
    settings = Settings(steps=steps, compile=False, log_every=7, owners_from=owners_from, **chosen.get("settings", {}))
    return Trainer(
        chosen.get("model", many)(),
        chosen["batches"],
        settings,
        levels=None,
        trained=chosen.get("trained"),
        validation=made() if made else None,
        world=world,
    )


def every_case(world: World, cases: list[str], folder: Path) -> dict[str, Any]:
    """What each process has in the end, and whether it divided knowledge with the others on the way."""
    found = {}
    for case in cases:
        made = trainer(case, world)
        divided = []
        advance = made.advance
        made.advance = lambda advance=advance, made=made, divided=divided: (  # type: ignore[method-assign]
            advance(),
            divided.append(made.parameter_tables.divided),
        )[0]
        found[case] = trained(made, folder / case if world.first else None) | {"divided": divided[-1]}
    return found


def assert_train_as_one(cases: list[str], count: int, folder: Path) -> None:
    for case in cases:
        (folder / case).mkdir()
    first, *others = in_processes(count, every_case, cases, folder)
    for case in cases:
        expected = trained(trainer(case))
        for found in (first[case], *(other[case] for other in others)):
            assert found.pop("divided") is CASES[case].get("divided", True), case
        assert_same(first[case], expected, case)
        for other in others:  # to the bit, once all have come together
            assert_same_to_the_bit(other[case]["model"], first[case]["model"])
            assert_same_to_the_bit(other[case]["banks"], first[case]["banks"])
        assert not math.isnan(expected["log"][-1]["objective"])


def assert_same_to_the_bit(actual: Any, expected: Any) -> None:
    if isinstance(expected, torch.Tensor):
        assert torch.equal(actual, expected)
    elif isinstance(expected, dict):
        assert actual.keys() == expected.keys()
        for key in expected:
            assert_same_to_the_bit(actual[key], expected[key])
    elif isinstance(expected, list):
        for one, other in zip(actual, expected, strict=True):
            assert_same_to_the_bit(one, other)
    else:
        assert actual == expected


@pytest.mark.slow
def test_two_processes_train_what_they_divide_as_one_does(tmp_path: Path) -> None:
    assert_train_as_one(list(CASES), 2, tmp_path)


@pytest.mark.slow
def test_four_processes_train_what_they_divide_as_one_does(tmp_path: Path) -> None:
    cases = ["few absences, labels emphasised", "exclusive, and one in no table", "rare, added", "validated"]
    assert_train_as_one(cases, 4, tmp_path)
