"""A config of two data sets, and the problems of one that was changed."""

from __future__ import annotations

import tomllib

import pytest

from tzk_core.config import ConfigError, config_from

JOINT = """
name = "joint"

[flow]
steps = 3

[[datasets]]
name = "mnist"
size = 32

[[datasets]]
name = "letters"
type = "glyph-letters"

[[knowledge]]
name = "mnist"
present = { dataset = "mnist" }

[[knowledge]]
name = "digit-{label}"
present = { dataset = "mnist", label = "each" }
implies = "mnist"

[training]
steps = 100
"""


def tables(text: str = JOINT) -> dict:
    return tomllib.loads(text)


def problems(text: str, *overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        config_from(tables(text), "a.toml", overrides)
    return [str(problem) for problem in caught.value.problems]


def only_problem(text: str, *overrides: str) -> str:
    actual = problems(text, *overrides)
    assert len(actual) == 1, actual
    return actual[0]
