"""Knowledge types in no table that processes divide among them train as those of one process do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from in_processes import in_processes
from models import small
from test_world import CASES, SIZE, TWO, Batches, assert_same, files, interrupted, resumed, trained, trainer, weights

from tzk_core import Observations, TzK
from tzk_core.objective.owned import owners_of
from tzk_core.storage.checkpoint import load_trainer
from tzk_core.training.observers import Observer, Progress
from tzk_core.training.ownership import TABLES_FROM, owners
from tzk_core.training.settings import Settings
from tzk_core.training.trainer import Trainer
from tzk_core.world import ALONE, World

UNDIVIDED = {"missing T, and some hidden", "the paper's wording, with missing T", "exclusive, with missing T"}
"""Those in which T is missing, which is sampled from knowledge types of all owners."""


def owning(case: str, world: World = ALONE) -> Trainer:
    return trainer(case, world, owners_from=1)


class Divided(Observer):
    """What a process has while it trains: whether knowledge is divided, and the types with moments of their own."""

    def __init__(self, made: Trainer) -> None:
        self.made, self.divided = made, False
        self.moved: set[str] = set()

    def on_step(self, progress: Progress) -> None:
        self.divided = self.made.owners is not None
        state = getattr(self.made.optimizer, "state", {})
        for name, member in self.made.model.named_knowledge():
            if any(parameter in state for parameter in member.parameters()):
                self.moved.add(name)


def every_case(world: World, cases: list[str], folder: Path) -> dict[str, Any]:
    found = {}
    for case in cases:
        made = owning(case, world)
        seen = Divided(made)
        found[case] = trained(made, folder / case if world.first else None, [seen])
        found[case] |= {"divided": seen.divided, "moved": seen.moved}
    return found


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 3])
def test_processes_train_as_one_does_what_they_divide(count: int, tmp_path: Path) -> None:
    cases = list(CASES) if count == 2 else ["exclusive", "Muon", "validated"]
    for case in cases:
        (tmp_path / case).mkdir()
    processes = in_processes(count, every_case, cases, tmp_path)
    for case in cases:
        expected = trained(trainer(case))
        moved = [found[case].pop("moved") for found in processes]
        for found in processes:
            assert found[case].pop("divided") is (case not in UNDIVIDED), case
            assert_same(found[case] | {"log": []}, expected | {"log": []}, case)
            for key, value in processes[0][case]["model"].items():
                assert torch.equal(found[case]["model"][key], value), (case, key)
        assert_same(processes[0][case]["log"], expected["log"], case)
        if case not in UNDIVIDED:
            assert sum(map(len, moved)) == len(set().union(*moved)), "no type has moments in two processes"


def left_by_two(world: World, folder: Path) -> dict[str, Any]:
    """Leave a checkpoint, and go on from another one."""
    interrupted(owning("validated", world), folder / "two")
    return weights(resumed(owning("validated", world), folder / "one"))


@pytest.mark.slow
def test_checkpoints_are_those_of_one_process(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    interrupted(trainer("validated"), tmp_path / "one")
    found = in_processes(2, left_by_two, tmp_path)
    expected = weights(trained(trainer("validated")))
    for each in found:
        assert_same(each, expected, "one, then two")
    again = trainer("validated")
    again.resume(tmp_path / "two")
    again.save(tmp_path / "again")
    assert files(tmp_path / "again" / "checkpoint") == files(tmp_path / "two" / "checkpoint")
    assert_same(load_trainer(tmp_path / "two" / "checkpoint"), load_trainer(tmp_path / "again" / "checkpoint"), "again")
    assert_same(weights(trained(again)), expected, "two, then one")


def sent(world: World) -> dict[str, Any]:
    """What a process sends in a step with knowledge divided, and without."""
    found: dict[str, Any] = {}
    for title, owners_from in (("divided", 1), ("everywhere", 0)):
        made = trainer("exclusive", world, owners_from=owners_from)
        made.divide()
        made.advance()
        before = world.reduced, world.sent
        made.advance()
        numbers = [sum(p.numel() for p in part.parameters()) for part in (made.model.flow, made.model.knowledge)]
        found[title] = {"summed": world.reduced - before[0], "rows": world.sent - before[1], "numbers": numbers}
    return found


@pytest.mark.slow
def test_no_parameter_of_a_divided_type_is_sent() -> None:
    for rank, found in enumerate(in_processes(2, sent)):
        divided, everywhere = found["divided"], found["everywhere"]
        own = everywhere["summed"] - divided["summed"]
        assert own >= 8 * everywhere["numbers"][1] - 100 and everywhere["rows"] == 0
        assert 0 < divided["rows"] <= 8 * 4 * SIZE, rank  # z of three dimensions with log p(z), and gradients


def batch(size: int = 4, exclusive: tuple[tuple[str, ...], ...] = ()) -> Observations:
    presence = torch.zeros(size, 2)
    presence[:3, 0] = 1
    return Observations(torch.zeros(size, 3), presence, ("k0", "k1"), exclusive=exclusive)


def test_knowledge_is_divided_by_default_where_less_is_sent_so() -> None:
    modules = dict(small().named_knowledge())
    numbers = sum(p.numel() for member in modules.values() for p in member.parameters() if p.requires_grad)
    few = (numbers - 1) // (2 * (3 + 1))
    for size, divided in ((few, True), (few + 1, False)):
        of = owners(batch(size), 2, settings=Settings(steps=1, owners_from="auto"), tabled=(), modules=modules)
        assert of.keys() == (modules.keys() if divided else set())
    many = [f"t{number}" for number in range(TABLES_FROM)]
    assert owners(
        batch(few + 1), 2, settings=Settings(steps=1, owners_from="auto"), tabled=many, modules=modules
    ).keys() == set(many)
    assert not owners(
        batch(few + 1), 2, settings=Settings(steps=1, owners_from="auto"), tabled=many[1:], modules=modules
    )
    assert not owners(batch(), 2, settings=Settings(steps=1, owners_from=0), tabled=many, modules=modules)
    assert not owners(batch(), 2, settings=Settings(steps=1, owners_from=len(modules) + 1), tabled=(), modules=modules)
    assert not owners(
        batch(exclusive=(("k0", "other"),)), 2, settings=Settings(steps=1, owners_from=1), tabled=(), modules=modules
    )


def test_owners_that_are_given_ask_for_division() -> None:
    modules = dict(small().named_knowledge())
    given = Settings(steps=1, owners={"k0": 3})
    of = owners(batch(1000), 2, settings=given, tabled=(), modules=modules)
    assert of == {"k0": 1}


def test_given_owners_count_in_what_is_shared_out() -> None:
    names = [f"k{number}" for number in range(4)]
    of = owners_of(names, (), 2, costs=dict.fromkeys(names, 1.0), given={"k[01]": 3})
    assert of == {"k0": 1, "k1": 1, "k2": 0, "k3": 0}


def test_large_types_are_shared_out_by_what_they_cost() -> None:
    names = [f"k{number}" for number in range(12)]
    of = owners_of(names, (), 3, costs={name: 1.0 + 5 * (name == "k0") for name in names})
    assert sorted(list(of.values()).count(rank) for rank in range(3)) == [1, 5, 6]
    assert of == owners_of(reversed(names), (), 3, costs={name: 1.0 + 5 * (name == "k0") for name in names})
    grouped = owners_of(names, [("k1", "k2", "k3")], 3, costs=dict.fromkeys(names, 1.0))
    assert grouped["k1"] == grouped["k2"] == grouped["k3"]
    mixed = owners_of(["a", *names], [("a", "k5")], 3, costs=dict.fromkeys(names, 1.0))
    assert mixed["a"] == mixed["k5"] == owners_of(["a"], (), 3)["a"], "as the one in a table, by its name"


@pytest.mark.parametrize("settings", [{"owners_from": 0}, {"owners_from": 1, "hidden_share": 0.5}])
def test_knowledge_stays_in_all_processes(settings: dict[str, Any]) -> None:
    model: TzK = small()
    made = Trainer(model, Batches(TWO), Settings(steps=1, compile=False, **settings), levels=None, world=World(0, 2))
    made.divide()
    assert made.owners is None
