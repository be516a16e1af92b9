"""Signatures read from source text say what the imported object would say."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path

import pytest

from tzk_core.config.arguments import type_problem
from tzk_core.config.signatures import signature
from tzk_core.plugins import Dataset, FlowLayer, FlowRecipe, KnowledgeType, Registered, registry

PARTS = [part for spec_type in (KnowledgeType, Dataset, FlowLayer, FlowRecipe) for part in registry().all(spec_type)]


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.qualified_name)
def test_text_and_object_agree(part: Registered):
    parameters = inspect.signature(part.load()).parameters.values()
    named = [p for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
    read = signature(part)
    assert [a.name for a in read.arguments] == [p.name for p in named]
    assert [a.required for a in read.arguments] == [p.default is p.empty for p in named]
    assert read.open == any(p.kind is p.VAR_KEYWORD for p in parameters)
    for argument, parameter in zip(read.arguments, named, strict=True):
        if argument.value is not inspect.Parameter.empty:
            assert argument.value == parameter.default


MODULE = '''
import functools
from collections import OrderedDict

class Base:
    """A base."""
    def __init__(self, size: int, *, name: str = "a", **others): ...

class Derived(Base):
    """Derived."""

class Elsewhere(OrderedDict):
    pass

@functools.lru_cache
def cached(width: float = 2.0): ...

def plain(height, depth=-1): ...
'''


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "some_parts").mkdir()
    (tmp_path / "some_parts/__init__.py").write_text("raise RuntimeError('imported')")
    (tmp_path / "some_parts/inner.py").write_text(MODULE)
    (tmp_path / "flat_parts.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    return "some_parts.inner"


def read(target: str) -> list[tuple[str, str, str]]:
    part = Registered(Dataset("part", target, "a part"), "tests", "tests", "1")
    return [(a.name, a.annotation, a.default) for a in signature(part).arguments]


def test_no_package_is_imported_for_what_its_text_shows(module: str):
    inherited = [("size", "int", ""), ("name", "str", "'a'")]
    assert read(f"{module}:Base") == read(f"{module}:Derived") == inherited
    assert read(f"{module}:plain") == [("height", "", ""), ("depth", "", "-1")]
    assert "some_parts" not in sys.modules


def test_what_the_text_does_not_show_is_imported(module: str):
    assert read("flat_parts:cached") == [("width", "float", "2.0")]
    with pytest.raises(Exception, match="imported"):
        read(f"{module}:cached")


@pytest.mark.parametrize(
    ("annotation", "value", "problem"),
    [
        ("int", 3, ""),
        ("int", True, "expected a whole number, got true"),
        ("float", 3, ""),
        ("float | None", "x", 'expected a number, got "x"'),
        ("Path | None", "a/b", ""),
        ("Path | None", 3, "expected a string, got 3"),
        ("tuple[int, ...]", [1, 2], ""),
        ("tuple[int, int]", [1, "b"], 'expected a whole number, got [1, "b"]'),
        ("tuple[int, int]", [1], "expected one more item, got [1]"),
        ("Literal['a', 'b']", "c", "expected 'a' or 'b', got \"c\""),
        ("Sequence[str]", ["a"], ""),
        ("'int | None'", "x", 'expected a whole number, got "x"'),
        ("Optional[int]", 1.5, "expected a whole number, got 1.5"),
        ("Union[bool, str]", 3, "expected true or false or a string, got 3"),
        ("dict[str, tuple[int, ...]]", {"a": [1, 2]}, ""),
        ("dict[str, tuple[int, ...]]", {"a": [1, "b"]}, "expected a whole number, got a table"),
        ("list[Literal[-1, 2]]", [3], "expected -1 or 2, got [3]"),
        ("int | 3", "x", ""),
        ("torch.Tensor", 3, ""),
        ("", 3, ""),
    ],
)
def test_values_are_checked_against_annotations(annotation: str, value: object, problem: str):
    assert type_problem(annotation, value) == problem


def test_an_annotation_is_read_and_never_run(tmp_path: Path):
    left = tmp_path / "left"
    for call in (f"open({str(left)!r}, 'w')", f"int if open({str(left)!r}, 'w') else str", "().__class__", "[int][0]"):
        assert type_problem(call, "x") == ""
    assert not left.exists()
