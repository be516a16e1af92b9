"""`tzk check` refuses, in the same words, whatever a run refuses before it reads a sample; huge sizes are refused."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tomli_w
import torch
from commands import refused

from tzk_core.config import Config, config_from
from tzk_core.data.toys import TwoMoons
from tzk_core.errors import TzkError
from tzk_core.runs.building import before_data
from tzk_core.runs.experiment import Experiment
from tzk_core.runs.observing import observers_of
from tzk_core.storage import budget

TABLES: dict[str, Any] = {
    "name": "small",
    "datasets": [{"name": "moons", "type": "two-moons", "train": 20, "validation": 4, "test": 6}],
    "training": {"steps": 1, "batch_size": 4, "initialisation": 8, "validate_every": 0},
}
GLYPHS = {"name": "glyphs", "type": "glyph-digits", "size": 8, "train": 20, "validation": 4, "test": 6}
PRESENT = {"present": {"dataset": "moons"}}
BASES: dict[str, dict[str, Any]] = {
    "paper": TABLES
    | {
        "flow": {"recipe": "paper", "steps": 1, "tile": 4},
        "datasets": [GLYPHS],
        "knowledge": [{"name": "g", "type": "flow", "steps": 1, "hidden": 4, "layers": 2, "tile": 4}],
    },
    "layers": TABLES
    | {
        "flow": {
            "layers": [
                {"type": "affine"},
                {"type": "symlog", "knee": 1.5},
                {"type": "affine-coupling-transform", "mask": [1, 0]}
                | {"transform_net_create_fn": {"callable": "nflows.nn.nets:ResidualNet", "hidden_features": 4}},
            ]
        },
        "knowledge": [
            {"name": "a", "type": "gaussian", "hidden": 4, "layers": 2, **PRESENT},
            {"name": "b", "type": "low-rank", "dims": 2, "rank": 1, "hidden": 4, **PRESENT},
        ],
    },
}
BASES["paper"]["knowledge"][0]["present"] = {"dataset": "glyphs"}
VALUES = (-1, 0, 10**8, 0.3, "x")
OF_SAMPLES = {"batch_size", "validation_samples", "validate_every", "train", "validation", "test", "weight"}
"""Keys whose values a run holds against the samples."""


def numbers(tables: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The path of every number and every name of a part."""
    items = tables.items() if isinstance(tables, dict) else enumerate(tables)
    for key, value in items:
        if isinstance(value, dict | list):
            yield from numbers(value, (*path, key))
        elif key in ("type", "recipe") or not isinstance(value, str):
            yield (*path, key)


def mutated(tables: Any, path: tuple[str | int, ...], value: Any) -> Any:
    copied = dict(tables) if isinstance(tables, dict) else list(tables)
    copied[path[0]] = mutated(copied[path[0]], path[1:], value) if len(path) > 1 else value
    return copied


MORE: list[tuple[tuple[str | int, ...], Any]] = [
    (("flow", "base"), {"type": "gaussian", "scale": 2}),
    (("training", "optimizer"), {"type": "adam", "amsgrad": "x"}),
    (("training", "schedule"), "cos"),
    (("training", "compile"), True),
    (("objective",), {"terms": [{"type": "nothing", "weight": 1.0}]}),
    (("observers",), [{"type": "progress", "every": -1}]),
    (("device",), "cuda:99"),
    (("dtype",), "float16"),
    (("plugins",), ["tzk-plugin-nowhere"]),
    (("datasets",), [*TABLES["datasets"], GLYPHS]),
]
COMMANDS = [
    ("paper", ("flow", "steps"), -1, "[flow]: steps = -1"),
    ("paper", ("flow", "tile"), 3, "[flow]: "),
    ("paper", ("knowledge", 0, "tile"), 0, '[[knowledge]] "g": '),
    ("layers", ("knowledge", 1, "dims"), -1, '[[knowledge]] "b": '),
    ("layers", ("knowledge", 0, "hidden"), 10**8, '[[knowledge]] "a": '),
    ("layers", ("device",), "cuda:99", "cuda"),
]
"""Of those, with words of the sentence."""

CASES = [
    (base, path, value)
    for base, tables in BASES.items()
    for path, value in [*((path, value) for path in numbers(tables) for value in VALUES), *MORE]
    if path[-1] not in OF_SAMPLES and (path != ("flow", "base") or base == "paper")
]


def ending(build: Callable[[Config], Any], config: Config) -> str:
    """What building from a config is refused by; "" if it is not."""
    try:
        build(config)
    except TzkError as error:
        return str(error)
    return ""


def checked(config: Config) -> None:
    observers_of(config)
    before_data(config)


def planned(config: Config) -> None:
    observers_of(config)
    Experiment(config).describe()


@pytest.mark.parametrize("base", BASES)
@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_check_refuses_what_a_run_refuses_before_it_reads_a_sample(base: str) -> None:
    count = 0
    for of, path, value in CASES:
        if of != base:
            continue
        try:
            config = config_from(mutated(BASES[base], path, value))
        except TzkError:  # by the same function of both
            continue
        of_run = ending(planned, config)
        assert ending(checked, config) == of_run, (path, value)
        count += bool(of_run)
    assert count > 15


@pytest.mark.parametrize(("base", "path", "value", "words"), COMMANDS)
def test_the_commands_say_it_alike(
    base: str, path: tuple[str | int, ...], value: Any, words: str, tmp_path: Path
) -> None:
    (tmp_path / "c.toml").write_text(tomli_w.dumps(mutated(BASES[base], path, value)))
    of_run = refused("run", tmp_path / "c.toml", "--out", tmp_path / "out")
    assert refused("check", tmp_path / "c.toml") == of_run
    assert words in of_run and not (tmp_path / "out").exists()


def test_what_is_refused_is_refused_before_a_sample_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TwoMoons, "split", lambda self, split: pytest.fail("a sample was read"))
    assert ending(Experiment, config_from(mutated(BASES["layers"], ("knowledge", 0, "layers"), -1)))
    checked(config_from(BASES["layers"]))


@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize("key", ["hidden", "layers"])
def test_a_huge_size_is_refused_before_it_is_allocated(index: int, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "MOST_TENSORS", 300)
    monkeypatch.setattr(budget, "_memory", lambda: 2**26)
    config = config_from(mutated(BASES["layers"], ("knowledge", index, key), 10**6))
    tracemalloc.start()
    assert "[[knowledge]]" in ending(checked, config)
    assert tracemalloc.get_traced_memory()[1] < 2**28
    tracemalloc.stop()


def test_the_budget_of_a_machine_is_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "_memory", lambda: 2**14)
    with pytest.raises(TzkError, match="1,025|1,100"), budget.Budget.of_machine():
        torch.zeros(1100)
    with pytest.raises(TzkError, match="more than 1,024 numbers"), budget.Budget.of_machine():
        torch.nn.ModuleList([torch.nn.Linear(20, 20) for _ in range(3)])
