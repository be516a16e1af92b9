"""Values are split at commas that TOML would see as such, and every combination is one run."""

from __future__ import annotations

import tomllib

import pytest
from tzk_plugin_sweep.grid import points, split

from tzk_core.errors import TzkError


@pytest.mark.parametrize(
    "values",
    [
        ["1", "2.5", "1e-3"],
        ['"a,b"', "'c,d'", '"e\\",f"', "'g\\'"],
        ["[1, 2]", "[3]", "[]"],
        ['[{type = "affine"}, {type = "symlog"}]', "[{ a = [1, 2], b = ']' }]"],
        ["true", '{ type = "adam", betas = [0.9, 0.99] }'],
        ["bare words", "others"],
        ['"],["', "'{'"],
    ],
)
@pytest.mark.parametrize("between", [",", " , "])
def test_joined_values_are_split_into_the_same_ones(values: list[str], between: str) -> None:
    found = split(between.join(values), "key=...")
    assert found == values
    for value in found:
        if not value.startswith(("bare", "others")):
            tomllib.loads(f"value = {value}")  # each is whole


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1,,2", "empty value"),
        ("1,", "empty value"),
        ("", "empty value"),
        ("1,2,1", "value 1 twice"),
        ("[1,2", "not closed"),
        ("1],[2", "not closed, or not opened"),
        ('"a,b', "not closed"),
        ("'a,b", "not closed"),
    ],
)
def test_what_cannot_be_split_is_refused(text: str, words: str) -> None:
    with pytest.raises(TzkError, match=words):
        split(text, f"key={text}")


def test_all_combinations_with_all_seeds_once() -> None:
    found = points(["a=1,2", 'training.b="x","y,z",w'], 3)
    assert len(found) == len({point.name for point in found}) == 2 * 3 * 3
    seen = {(point.values["a"], point.values["training.b"], point.seed) for point in found}
    assert seen == {(a, b, seed) for a in "12" for b in ('"x"', '"y,z"', "w") for seed in range(3)}
    assert found[0].overrides == ["a=1", 'training.b="x"', "seed=0"]
    assert points([], None)[0].overrides == [] and len(points([], 2)) == 2


def test_a_run_keeps_its_folder_when_values_and_seeds_are_added() -> None:
    before = {(str(point.values), point.seed): point.name for point in points(["a=1,2"], 2)}
    after = {(str(point.values), point.seed): point.name for point in points(["a=0,2,1"], 5)}
    assert before.items() <= after.items()
    assert {point.name for point in points(["a=1", "seed=0,1"], None)} == {p.name for p in points(["a=1"], 2)}
    assert {p.name for p in points(["a=1", "b=2"], 1)} != {p.name for p in points(["a=2", "b=1"], 1)}


def test_names_are_those_of_files_however_long_or_strange_values_are() -> None:
    values = ["../../x", "a/b", "'" + "x" * 500 + "'", "'" + "x" * 499 + "y'", "π"]
    names = [point.name for point in points([f"flow.k={','.join(values)}"], 1)]
    assert len(set(names)) == len(values)
    assert all(len(name) < 150 and "/" not in name and not name.startswith(".") for name in names)


@pytest.mark.parametrize(
    ("overrides", "seeds", "words"),
    [
        (["a"], None, "expected as key=value"),
        (["=1"], None, "expected as key=value"),
        (["a=1", "a=2"], None, "given twice"),
        (["seed=1,2"], 3, "leave out one"),
        (["seed=x"], None, "whole numbers"),
    ],
)
def test_what_is_no_grid_is_refused(overrides: list[str], seeds: int | None, words: str) -> None:
    with pytest.raises(TzkError, match=words):
        points(overrides, seeds)
