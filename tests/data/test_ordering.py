"""Natural order: of numbers by value, whatever their length, and of a tree as of its paths."""

from __future__ import annotations

import os
import random
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tzk_core.data import listing
from tzk_core.data.listing import images_below
from tzk_core.data.ordering import natural_key


@given(st.lists(st.tuples(st.integers(0, 10**30), st.integers(0, 3)), max_size=20))
def test_numbers_compare_by_value_and_then_by_their_zeros(numbers: list[tuple[int, int]]) -> None:
    texts = [f"x{'0' * zeros}{number}y" for number, zeros in numbers]
    by_value = [texts[i] for i in sorted(range(len(texts)), key=lambda i: numbers[i][0])]
    values = [int(text[1:-1]) for text in sorted(texts, key=natural_key)]
    assert values == [int(text[1:-1]) for text in by_value]


def test_a_number_of_more_digits_than_python_reads_is_one() -> None:
    long = "9" * 6000
    assert sorted([long + "0", "a", long, "8", "08"], key=natural_key)[-3:] == [long, long + "0", "a"]


@given(st.text(max_size=8), st.text(max_size=8))
def test_other_texts_have_other_keys(one: str, other: str) -> None:
    assert (natural_key(one) == natural_key(other)) == (one == other)


def test_a_tree_is_in_the_order_of_its_paths(tmp_path: Path) -> None:
    draw = random.Random(0)
    for _ in range(60):
        parts = [draw.choice(["a", "a1", "a01", "a10", "b", "2", "10"]) for _ in range(draw.randint(0, 3))]
        file = tmp_path.joinpath(*parts, f"{draw.choice(['', 'x'])}{draw.randint(0, 30)}.png")
        os.makedirs(file.parent, exist_ok=True)
        file.touch()
    found = images_below(tmp_path)
    assert found == sorted(found, key=lambda file: [natural_key(part) for part in file.relative_to(tmp_path).parts])
    assert set(found) == set(tmp_path.rglob("*.png")) and len(found) > 40


def test_little_is_held_of_many_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"image-{i}.png" for i in range(5000)]
    monkeypatch.setattr(listing, "_entries", lambda folder: (names, set(), set()))
    tracemalloc.start()
    held = listing.image_names_below(tmp_path)
    assert tracemalloc.get_traced_memory()[0] < 5000 * (80 + len(str(tmp_path)) + 20)
    tracemalloc.stop()
    assert len(held) == 5000
