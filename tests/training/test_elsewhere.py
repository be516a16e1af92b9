"""A process holds the knowledge types that it owns, and placeholders of the others."""

from __future__ import annotations

import copy
import gc
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import torch
from in_processes import in_processes
from models import LAYERS
from test_owners import TYPES, Labelled, assert_same_to_the_bit, many, validation
from test_world import STEPS, assert_same, files, interrupted, trained, weights

from tzk_core import TzK, TzkError, build_flow, build_knowledge
from tzk_core.knowledge import Knowledge
from tzk_core.knowledge.elsewhere import Elsewhere
from tzk_core.knowledge.stacking import structure
from tzk_core.objective.owned import owners_of
from tzk_core.storage.checkpoint import load_trainer
from tzk_core.training.settings import Settings
from tzk_core.training.trainer import Trainer
from tzk_core.world import ALONE, World


def like() -> Knowledge:
    return build_knowledge("gaussian", (3,), 2, name="like", hidden=4)


def of_rank(world: World) -> TzK:
    """The model of `test_owners.many` as one process of several builds it."""
    owners, first = owners_of([f"k{number}" for number in range(TYPES)], (), world.size), like()
    model = TzK(build_flow((3,), layers=LAYERS, seed=0))
    for number in range(TYPES):
        name, elsewhere = f"k{number}", owners[f"k{number}"] != world.rank
        model.add(name, Elsewhere(first) if elsewhere else build_knowledge("gaussian", (3,), 2, name=name, hidden=4))
    return model.double()


def trainer(world: World = ALONE, *, missing: int = 0, owners_from: int = 1) -> Trainer:
    settings = Settings(
        steps=STEPS, compile=False, log_every=7, negatives=4, validate_every=5, owners_from=owners_from, clip=0.5
    )
    batches = Labelled(missing=missing)
    return Trainer(of_rank(world), batches, settings, levels=None, validation=validation(), world=world)


def born_divided(world: World, folder: Path) -> dict[str, Any]:
    """Trainings of a part of a model: to the end, where nothing can be divided after all, and interrupted."""
    found = {}
    for title, made in (("to the end", trainer(world)), ("undivided", trainer(world, missing=3, owners_from=0))):
        assert len(list(made.parameter_tables._tables[0].rows)) < TYPES
        found[title] = trained(made, folder / title if world.first else None)
    interrupted(trainer(world), folder / "interrupted")
    return found


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 4])
def test_a_model_of_which_each_process_builds_a_part_trains_as_the_whole(count: int, tmp_path: Path) -> None:
    for title in ("to the end", "undivided", "interrupted"):
        (tmp_path / title).mkdir()
    first, *others = in_processes(count, born_divided, tmp_path)
    for title, missing in (("to the end", 0), ("undivided", 3)):
        expected = trained(trainer(missing=missing))
        assert_same(first[title], expected, title)
        assert list(first[title]["model"]) == list(many().state_dict())
        for other in others:
            assert_same_to_the_bit(other[title]["model"], first[title]["model"])
            assert_same_to_the_bit(other[title]["banks"], first[title]["banks"])
    one = trainer()
    one.resume(tmp_path / "interrupted")
    one.save(tmp_path / "again")
    for part in ("checkpoint",):
        assert files(tmp_path / "again" / part) == files(tmp_path / "interrupted" / part)
    assert_same_to_the_bit(
        load_trainer(tmp_path / "again" / "checkpoint"), load_trainer(tmp_path / "interrupted" / "checkpoint")
    )
    assert_same(weights(trained(one)), weights(trained(trainer())), "several, then one")


def held(world: World) -> dict[str, Any]:
    """What a process holds of knowledge in a training that began with all types, and one that began with its own."""
    found = {}
    whole = Settings(steps=1, compile=False, negatives=4, owners_from=1)
    for title, model in (("whole", many()), ("own", of_rank(world))):
        made = Trainer(model, Labelled(), whole, levels=None, world=world)
        made.divide()
        made.advance()
        table = made.parameter_tables._tables[0]
        found[title] = {
            "modules": sum(not isinstance(kind, Elsewhere) for _, kind in model.named_knowledge()),
            "parameters": sum(p.numel() for p in model.knowledge.parameters()),
            "numbers": sum(tensor.numel() for tensor in (*made.parameter_tables.tensors, table.steps)),
            "names": list(model.knowledge),
        }
    return found


@pytest.mark.slow
def test_what_processes_hold_adds_up_to_what_one_does() -> None:
    alone = held(ALONE)["whole"]
    assert alone["modules"] == TYPES
    for count in (2, 4):
        processes = in_processes(count, held)
        for title in ("whole", "own"):
            for key in ("modules", "parameters", "numbers"):
                assert sum(found[title][key] for found in processes) == alone[key], (count, title, key)
                assert max(found[title][key] for found in processes) < 2 * alone[key] / count
            assert all(found[title]["names"] == alone["names"] for found in processes)


def test_a_placeholder_costs_a_hundredth_of_what_it_stands_for() -> None:
    first, costs = like(), []
    for make in (lambda: Elsewhere(first), lambda: copy.deepcopy(first)):
        gc.collect()
        tracemalloc.start()
        made = [make().eval() for _ in range(100)]
        costs.append(tracemalloc.get_traced_memory()[0] / len(made))
        tracemalloc.stop()
    assert costs[0] < 600 and costs[0] < costs[1] / 50


def test_a_placeholder_has_names_and_structure_and_no_tensors() -> None:
    first = like()
    placeholder = Elsewhere(first, ("outer",))
    assert structure("a", placeholder) == structure("a", first)
    assert placeholder.implies == ("outer",) and placeholder.part == first.part
    assert placeholder.latent_shape == (3,) and placeholder.characteristics == first.characteristics
    assert not list(placeholder.parameters()) and not list(placeholder.modules())[1:] and not placeholder.state_dict()
    assert Elsewhere(placeholder).like is first
    model = TzK(build_flow((3,), layers=LAYERS, seed=0), {"a": placeholder, "b": Elsewhere(first)})
    model.double()
    assert {parameter.dtype for parameter in first.parameters()} == {torch.float64}
    assert not any(key.startswith("knowledge") for key in model.state_dict())


def test_a_training_is_not_resumed_with_a_part_of_its_model(tmp_path: Path) -> None:
    with pytest.raises(TzkError, match="resumed with a model of all its knowledge types: build it whole"):
        trainer(World(0, 2)).resume(tmp_path)


def test_a_model_for_other_owners_is_refused() -> None:
    made = trainer(World(0, 3))
    made.world = World(1, 3)
    with pytest.raises(TzkError, match="built for other owners"):
        made.divide()
