"""Whoever asks for a part of a plugin that is not there is told what to install."""

from __future__ import annotations

import pytest

from tzk_core.plugins import Dataset, FlowRecipe, Registry
from tzk_core.plugins.directory import elsewhere
from tzk_core.plugins.registry import UnknownPart


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("table", "it comes with 'tzk-plugin-tables': pip install tzk-plugin-tables"),
        ("csv", "write 'table'; it comes with 'tzk-plugin-tables'"),
    ],
)
def test_a_part_that_is_not_installed_has_its_distribution_named(name: str, expected: str) -> None:
    with pytest.raises(UnknownPart, match=f"is called '{name}'.*{expected}"):
        Registry.discover([], path=[]).find(Dataset, name)


@pytest.mark.parametrize(("name", "called"), [("nsf", "rq-nsf-coupling"), ("realnvp", "real-nvp"), ("maf", "")])
def test_recipes_have_it_too(name: str, called: str) -> None:
    rename = f"; write '{called}'" if called else ""
    assert elsewhere(FlowRecipe, name, []).startswith(f"{rename}; it comes with 'tzk-plugin-baselines'")


def test_where_it_is_installed_the_name_alone_is_put_right() -> None:
    assert elsewhere(Dataset, "csv", ["tzk-plugin-tables"]) == "; write 'table'"
    assert elsewhere(Dataset, "table", ["tzk-plugin-tables"]) == ""
    assert elsewhere(Dataset, "glyphs", []) == ""
