"""Knowledge types that processes divide among them train as those of one process do."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from in_processes import in_processes
from models import LAYERS
from test_world import (
    NAN,
    SIZE,
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

from tzk_core import Observations, TzK, TzkError, build_flow, build_knowledge
from tzk_core.knowledge.elsewhere import Elsewhere
from tzk_core.objective import Wording
from tzk_core.objective.owned import Owners, owners_of
from tzk_core.random_streams import stream
from tzk_core.storage.checkpoint import load_trainer
from tzk_core.training.observers import Observer, Progress
from tzk_core.training.settings import Settings
from tzk_core.training.soundness import Diverged
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
    },
    "added": {"batches": Labelled(), "trained": [f"k{number}" for number in range(36)], "settings": {"clip": 0.1}},
    "owners given": {
        "batches": Labelled(exclusive=EXCLUSIVE),
        "settings": {"negatives": 5, "owners": {"k3": 7, "k1?": 0}},
    },
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


class DividedAtTheEnd(Observer):
    """Whether the tables of a training were divided in its last step."""

    def __init__(self, made: Trainer) -> None:
        self.made, self.divided = made, False

    def on_step(self, progress: Progress) -> None:
        self.divided = self.made.parameter_tables.divided


def every_case(world: World, cases: list[str], folder: Path) -> dict[str, Any]:
    """What each process has in the end, and whether it divided knowledge with the others on the way."""
    found = {}
    for case in cases:
        made = trainer(case, world)
        seen = DividedAtTheEnd(made)
        found[case] = trained(made, folder / case if world.first else None, [seen]) | {"divided": seen.divided}
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


@pytest.mark.slow
def test_checkpoints_of_divided_knowledge_are_of_any_number_of_processes(tmp_path: Path) -> None:
    """Three leave one, two resume it, and so does one; and two resume what one left. Files are those of one process."""
    of_one, of_three, again = (tmp_path / name for name in ("one", "three", "again"))
    for folder in (of_one, of_three):
        folder.mkdir()
    expected = weights(trained(trainer("validated")))
    in_processes(3, interrupted_everywhere, trainer, of_three)
    for part in ("checkpoint", "best"):
        assert "nan" not in str(load_trainer(of_three / part)) and (of_three / part / "core.safetensors").exists()
    one = trainer("validated")
    one.resume(of_three)
    one.save(again)
    assert files(again / "checkpoint") == files(of_three / "checkpoint")
    assert_same_to_the_bit(load_trainer(again / "checkpoint"), load_trainer(of_three / "checkpoint"))
    assert_same(weights(trained(one)), expected, "three, then one")
    interrupted(trainer("validated"), of_one)
    for found in in_processes(2, resumed_everywhere, trainer, of_one):
        assert_same(found, expected, "one, then two")
    assert_same(in_processes(2, resumed_everywhere, trainer, of_three)[0], expected, "three, then two")


def diverged(world: World, folder: Path) -> dict[str, Any]:
    """A training whose knowledge is spoilt in its one owner, between two rows of the log."""
    made = trainer("rare", world)
    advance = made.advance
    owner = owners_of([f"k{number}" for number in range(TYPES)], (), world.size)["k3"]

    def spoiling() -> Any:
        capacity = advance()
        if made.step == 10 and world.rank == owner:
            made.parameter_tables.tensors[1][:] = math.inf  # moments, which no objective shows
        return capacity

    made.advance = spoiling  # type: ignore[method-assign]
    with pytest.raises(Diverged) as raised:
        made.run(folder if world.first else None)
    return {"said": str(raised.value), "step": made.step, **outcome(made, [])}


@pytest.mark.slow
def test_what_spoils_one_owner_sends_all_back(tmp_path: Path) -> None:
    first, second = in_processes(2, diverged, tmp_path)
    assert first["said"].startswith("training diverged at step") and "The last checkpoint is sound" in first["said"]
    assert first["step"] == second["step"] < 14
    assert_same_to_the_bit(second["model"], first["model"])
    assert all(value.isfinite().all() for value in second["model"].values())
    one = trainer("rare")
    one.resume(tmp_path)
    assert one.step == first["step"]
    assert_same_to_the_bit(one.model.state_dict(), first["model"])


def sizes(world: World) -> dict[str, Any]:
    """What a process has and sends, before, during and after it divides knowledge with others."""
    made = trainer("all absences", world)

    def numbers() -> int:
        return sum(tensor.numel() for tensor in made.parameter_tables.tensors)

    found: dict[str, Any] = {"whole": numbers()}
    made.divide()
    found["own"], found["sent"] = numbers(), world.sent
    made.advance()
    found["sent"] = world.sent - found["sent"]
    own = made.parameter_tables._tables[0].rows
    found["rows"] = list(own)
    members = dict(made.model.named_knowledge())
    found["absent"] = [name for name, kind in members.items() if isinstance(kind, Elsewhere)]
    assert not any(members[name].state_dict() or list(members[name].parameters()) for name in found["absent"])
    kept = made.model.state_dict()
    of_types = [key for key, _ in made.model.named_parameters() if key in kept and kept[key].numel() > 1]
    found["kept"] = sorted({key.split(".")[1] for key in of_types if key.startswith("knowledge.")})
    made.unite()
    found["again"] = numbers()
    return found


@pytest.mark.slow
def test_a_process_has_its_own_types_and_sends_rows_of_z() -> None:
    processes = in_processes(2, sizes)
    rows = [found["rows"] for found in processes]
    assert sorted(rows[0] + rows[1]) == list(range(TYPES)) and all(rows)
    for rank, found in enumerate(processes):
        assert found["own"] * TYPES == found["whole"] * len(rows[rank]) and found["again"] == found["whole"]
        assert found["absent"] == [f"k{row}" for row in rows[1 - rank]]
        assert found["kept"] == sorted(f"k{row}" for row in rows[rank])
        # all absences are evaluated: every z and log p(z) goes to the other process, and its gradient comes back
        here, there = SIZE // 2 + rank * (SIZE % 2), SIZE // 2 + (1 - rank) * (SIZE % 2)
        assert found["sent"] == (here + there) * (3 + 1) * 8


def test_owners_are_by_name_alone_and_of_whole_groups() -> None:
    names = [f"k{number}" for number in range(1000)]
    alone = owners_of(names, (), 4)
    assert alone == {name: owners_of([name], (), 4)[name] for name in names}
    assert alone["k0"] == 3 and alone["k1"] == 0  # as in any version of Python, of which `hash` would say others
    counts = [list(alone.values()).count(rank) for rank in range(4)]
    assert sum(counts) == 1000 and min(counts) > 200
    grouped = owners_of(names, EXCLUSIVE, 4)
    assert grouped["k1"] == grouped["k2"] == grouped["k3"] == grouped["k4"] == alone["k1"]
    assert grouped["k30"] == grouped["k31"] and all(grouped[name] == alone[name] for name in names[32:])


def test_owners_are_given_by_name_or_pattern() -> None:
    names = [f"k{number}" for number in range(100)]
    given = {"k1*": 5, "k17": 2, "k?": 3}
    for size in (2, 3, 4):
        owners = owners_of(names, (), size, given=given)
        assert owners["k17"] == 2 % size and owners["k1"] == owners["k15"] == 5 % size and owners["k2"] == 3 % size
        assert owners["k20"] == owners_of(["k20"], (), size)["k20"]
    grouped = owners_of(names, EXCLUSIVE, 4, given={"k3": 6})
    assert {grouped[name] for name in ("k1", "k2", "k3", "k4")} == {2}
    with pytest.raises(TzkError, match="k1, k2, k3, k4 have one owner, and owners .* gives several: 'k2' 1, 'k3' 0"):
        owners_of(names, EXCLUSIVE, 4, given={"k3": 0, "k2": 1})


def test_a_process_divides_as_owners_are_given() -> None:
    made = trainer("owners given", World(1, 2))
    made.divide()
    own = {f"k{row}" for row in made.parameter_tables._tables[0].rows}
    assert own >= {"k1", "k2", "k3", "k4"} and own.isdisjoint(f"k{number}" for number in range(10, 20))
    assert made.owners is not None and made.owners.of["k3"] == 1


def test_owners_of_nothing_are_refused() -> None:
    with pytest.raises(TzkError, match="'no-such', and no knowledge type that is trained is called so"):
        Trainer(many(), Labelled(), Settings(steps=1, owners_from=1, owners={"k1": 0, "no-such": 1}), levels=None)
    with pytest.raises(TzkError, match="expected owners_from above 0"):
        Settings(steps=1, owners={"k1": 0}, owners_from=0)


def test_an_exclusive_group_of_several_owners_is_refused() -> None:
    owners = Owners(World(0, 2), {"a": 0, "b": 1, "c": 0})
    owners.check_whole([("a", "c"), ("x", "y")])
    for split in (("a", "b"), ("a", "x")):
        with pytest.raises(TzkError, match=f"knowledge types {split[0]}, {split[1]} have several owners.*owners_from"):
            owners.check_whole([split])


@pytest.mark.parametrize("owners_from", [0, TYPES + 1])
def test_few_types_are_in_every_process(owners_from: int) -> None:
    made = trainer("rare", World(0, 2), owners_from=owners_from)
    made.divide()
    assert made.owners is None and not made.parameter_tables.divided


def test_one_process_divides_nothing() -> None:
    made = trainer("rare")
    made.divide()
    assert made.owners is None and made.world.exchange(torch.ones(2), [2], [2]).tolist() == [1, 1]
