"""A size in a file is not believed: nothing much larger than the file itself is made for it."""

from __future__ import annotations

import resource
import tracemalloc
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from manifests import rewritten
from torch import nn

import tzk_core
from tzk_core import TzK, build_flow, build_knowledge
from tzk_core.config.signatures import signature
from tzk_core.errors import TzkError
from tzk_core.plugins import FlowLayer, Registered, registry
from tzk_core.storage.budget import SCRATCH, Budget, TooLarge
from tzk_core.storage.checkpoint import knowledge_file, save_checkpoint
from tzk_core.storage.knowledge_files import import_knowledge, list_knowledge
from tzk_core.storage.knowledge_format import KnowledgeFile
from tzk_core.storage.shared_flow import core_hash

SHAPE = (1, 4, 4)
KINDS: dict[str, dict[str, Any]] = {
    "gaussian": {"hidden": 4, "layers": 2},
    "flow": {"steps": 1, "tile": 2, "hidden": 4},
    "low-rank": {"dims": 4, "rank": 2, "hidden": 4},
}
HUGE = (10**6, 10**7, 10**9, 10**30)
BYTES = 2**29
"""Of Python's own memory; sizes go up to 2^24, of which a list takes half of this."""


def made(kind: str) -> TzK:
    model = TzK(build_flow(SHAPE, steps=1, tile=2))
    model.add("a", build_knowledge(kind, SHAPE, 0, name="a", **KINDS[kind]))
    return model


def whole_numbers(kind: str) -> list[str]:
    arguments = made(kind).find("a").part.arguments
    return [key for key, value in arguments.items() if type(value) is int]


CASES = [(kind, key, value) for kind in KINDS for key in whole_numbers(kind) for value in HUGE]


def refused(read: Any) -> None:
    tracemalloc.start()
    with pytest.raises(TzkError):
        read()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < BYTES


@pytest.mark.parametrize(("kind", "key", "value"), CASES)
def test_a_size_in_an_export_or_an_older_manifest_is_refused(tmp_path: Path, kind: str, key: str, value: int) -> None:
    model = made(kind)
    save_checkpoint(model, tmp_path / "checkpoint")

    def change(manifest: dict[str, Any]) -> None:
        manifest["knowledge"]["a"]["part"]["arguments"][key] = value

    rewritten(tmp_path / "checkpoint", change)
    refused(lambda: tzk_core.load(tmp_path))
    entry, file = knowledge_file("a", model.find("a"), core_hash(model.flow))
    entry["part"]["arguments"] = {**entry["part"]["arguments"], key: value}
    (tmp_path / "b.safetensors").write_bytes(KnowledgeFile("b", entry, file).sealed())
    save_checkpoint(TzK(model.flow), tmp_path / "other")
    refused(lambda: import_knowledge(tmp_path / "other", tmp_path / "b.safetensors"))


@pytest.mark.parametrize("key", ["steps", "tile"])
@pytest.mark.parametrize("value", HUGE)
def test_a_size_of_the_shared_flow_is_refused(tmp_path: Path, key: str, value: int) -> None:
    save_checkpoint(made("gaussian"), tmp_path / "checkpoint")
    rewritten(tmp_path / "checkpoint", lambda all: all["core"]["parts"]["recipe"]["arguments"].update({key: value}))
    refused(lambda: tzk_core.load(tmp_path))


GIVEN: dict[str, Any] = {
    "transform_net_create_fn": {"callable": "nflows.nn.nets:ResidualNet", "hidden_features": 4, "num_blocks": 1},
    "permutation": [0, 1, 2, 3],
    "mask": [1, 0, 1, 0],
}
"""Arguments of layers that are no numbers."""


def small_layer(part: Registered) -> tuple[TzK, dict[str, Any]] | None:
    """A flow of one small layer, and all of its whole numbers; None for one that needs more to be built."""
    arguments = [argument for argument in signature(part).arguments if argument.name not in ("shape", "features")]
    needed = {argument.name: GIVEN.get(argument.name, 2) for argument in arguments if argument.required}
    numbers = [argument.name for argument in arguments if "int" in argument.annotation or type(argument.value) is int]
    numbers += [name for name, value in needed.items() if value == 2]
    try:
        model = TzK(build_flow((4,), layers=[{"type": part.qualified_name, "arguments": needed}]))
    except TzkError:
        return None
    return model, {**dict.fromkeys(numbers, 2), **needed}


def test_no_number_of_any_layer_is_believed(tmp_path: Path) -> None:
    before, tried = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, 0
    for part in registry().all(FlowLayer):
        if (small := small_layer(part)) is None:
            continue
        model, arguments = small
        save_checkpoint(model, tmp_path / part.name / "checkpoint")
        manifest = tmp_path / part.name / "checkpoint/manifest.json"
        saved = manifest.read_bytes()
        for key in (key for key, value in arguments.items() if type(value) is int):
            manifest.write_bytes(saved)

            def change(manifest: dict[str, Any], key: str = key) -> None:
                manifest["core"]["parts"]["layers"][0]["arguments"][key] = 10**6

            rewritten(manifest.parent, change)
            tried += 1
            with suppress(TzkError):  # some change no size: they may load
                tzk_core.load(manifest.parents[1])
    assert tried > 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < BYTES / 2**10


@pytest.mark.parametrize("shape", [[10**9], [10**5, 10**5], [2**62, 4], [4, 4, 4]])
def test_a_shape_of_observations_is_refused(tmp_path: Path, shape: list[int]) -> None:
    save_checkpoint(TzK(build_flow((4,), layers=[{"type": "symlog"}])), tmp_path / "checkpoint")
    rewritten(tmp_path / "checkpoint", lambda all: all["core"]["parts"].update(shape=shape))
    refused(lambda: tzk_core.load(tmp_path))


def test_a_million_layers_without_parameters_are_refused(tmp_path: Path) -> None:
    save_checkpoint(TzK(build_flow((4,), layers=[{"type": "symlog"}])), tmp_path / "checkpoint")

    def change(manifest: dict[str, Any]) -> None:
        manifest["core"]["parts"]["layers"] *= 2000

    rewritten(tmp_path / "checkpoint", change)
    refused(lambda: tzk_core.load(tmp_path))


MAKERS: Mapping[str, Any] = {
    "zeros": lambda: torch.zeros(SCRATCH, 2),
    "a tuple": lambda: torch.ones((SCRATCH, 2)),
    "by name": lambda: torch.empty(size=(2, SCRATCH)),
    "full": lambda: torch.full((SCRATCH, 3), 0.5),
    "eye": lambda: torch.eye(10**6),
    "eye of two": lambda: torch.eye(2, SCRATCH),
    "arange": lambda: torch.arange(10**10),
    "randperm": lambda: torch.randperm(10**10),
    "randint": lambda: torch.randint(0, 9, (SCRATCH, 2)),
    "linear": lambda: nn.Linear(10**6, 10**6),
    "convolution": lambda: nn.Conv2d(10**5, 10**5, 3),
    "a parameter": lambda: nn.ParameterList([nn.Parameter(torch.zeros(10**6))]),
    "many layers": lambda: nn.ModuleList([nn.Identity() for _ in range(5000)]),
    "many parameters": lambda: nn.ParameterList([nn.Parameter(torch.zeros(1)) for _ in range(5000)]),
    "many elements": lambda: [nn.Linear(1000, 5000) for _ in range(5)],
}


@pytest.mark.parametrize("name", MAKERS)
def test_the_budget_stops_what_is_larger(name: str) -> None:
    refused(lambda: _within(MAKERS[name]))


def _within(make: Any) -> None:
    with Budget(1000, 10):
        make()


def test_the_budget_lets_through_what_fits_and_leaves_nothing_behind() -> None:
    with Budget(20_000, 4):
        torch.randint(0, 2**40, (3,)), torch.full((4,), 1e30), torch.arange(5), torch.linspace(0, 1, 5)
        nn.Sequential(nn.Linear(100, 100), nn.Linear(100, 100))
    assert len(nn.ModuleList([nn.Linear(1, 1) for _ in range(2000)])) == 2000


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_not_taken(tmp_path: Path, value: float) -> None:
    model = made("gaussian")
    core = core_hash(model.flow)
    with torch.no_grad():
        next(model.find("a").parameters()).view(-1)[0] = value
    entry, file = knowledge_file("a", model.find("a"), core)
    (tmp_path / "a.safetensors").write_bytes(KnowledgeFile("a", entry, file).sealed())
    save_checkpoint(TzK(model.flow), tmp_path / "other")
    with pytest.raises(TzkError, match="a.safetensors cannot be imported: .* holds nan or infinity"):
        import_knowledge(tmp_path / "other", tmp_path / "a.safetensors")
    save_checkpoint(model, tmp_path / "it")
    (listed,) = list_knowledge(tmp_path / "it")
    assert listed["state"] == "opaque" and "holds nan or infinity" in listed["reason"]
    with torch.no_grad():
        next(model.flow.parameters()).view(-1)[0] = value
    save_checkpoint(model, tmp_path / "it")
    with pytest.raises(TzkError, match="core.safetensors holds nan or infinity"):
        tzk_core.load(tmp_path / "it")


def test_what_is_refused_says_why() -> None:
    with pytest.raises(TooLarge, match="a tensor of 1,000,000,000,000 elements, where at most"), Budget(1, 1):
        torch.zeros(10**6, 10**6)
