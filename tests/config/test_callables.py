"""A function in the arguments of a layer has one form, and checking a config finds every other."""

from __future__ import annotations

from pathlib import Path

import pytest

from tzk_core.callables import FUNCTIONS, callable_problem
from tzk_core.config import load_config
from tzk_core.config.problems import ConfigError

CONFIG = """
name = "x"
[[flow.layers]]
type = "affine-coupling-transform"
mask = [1, 0]
transform_net_create_fn = {written}
[[datasets]]
name = "two-moons"
[training]
steps = 1
"""
RIGHT = '{ callable = "nflows.nn.nets:ResidualNet", hidden_features = 8, activation = { callable = "torch.nn:ELU" } }'


def test_the_right_form_is_taken(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_text(CONFIG.format(written=RIGHT))
    (layer,) = load_config(tmp_path / "x.toml").flow.layers or ()
    assert layer.arguments["transform_net_create_fn"]["hidden_features"] == 8


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ('"nflows.nn.nets:ResidualNet"', "expected a function, written as { callable = "),
        ("{ hidden_features = 8 }", "expected a function, written as { callable = "),
        ('{ callable = "nflows.nn.nets.ResidualNet" }', "'module:name'.*got 'nflows.nn.nets.ResidualNet'"),
        ('{ callable = "os:system" }', "under nflows or torch.nn; got 'os:system'"),
        ("{ callable = 3 }", "got 3"),
        ('{ callable = "nflows.nn.nets:MLP", activation = "relu" }', "expected a function.*got 'relu'"),
    ],
)
def test_every_other_form_is_found_with_its_place(written: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_text(CONFIG.format(written=written))
    with pytest.raises(ConfigError, match=rf"\[\[flow.layers\]\] #1 transform_net_create_fn: .*{message}"):
        load_config(tmp_path / "x.toml")


def test_other_arguments_are_left_to_their_types() -> None:
    assert FUNCTIONS and callable_problem("hidden", 3) == "" and callable_problem("layers", [{"type": "affine"}]) == ""
