"""What a knowledge type, a data set and a label may be called, wherever a name comes from."""

from __future__ import annotations

import unicodedata

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from knowledge_tables import typed

from tzk_core import TzK, build_flow, build_knowledge
from tzk_core import names as naming
from tzk_core.config import Config, ConfigError, config_from
from tzk_core.data.expansion import expand
from tzk_core.data.protocol import Samples
from tzk_core.errors import TzkError

UNUSABLE = [
    "",
    " ",
    " a",
    "a ",
    "a\u00a0",
    "-rf",
    "a*b",
    "a?b",
    "a:b",
    'a"b',
    "a|b",
    "a<b",
    "a/b",
    "a\\b",
    "a.b",
    "a.",
    "..",
    "a[b]",
    "a{b}",
    "a\nb",
    "a\x00b",
    "a\x7fb",
    "a\u202eb",  # right-to-left override
    "a\u200fb",  # right-to-left mark
    "a\u200bb",  # zero-width space
    "a\u2028b",  # line separator
    "a\udc80b",  # a byte of a file name that is no UTF-8
    "con",
    "NUL",
    "com1",
    "LPT9",
    "e\u0301",  # é in two parts
    "a" * 249,
    "\u5b57" * 90,  # 270 bytes
]
USABLE = ["κ", "digit 7", "two-moons", "UPPER", "1", "0", "_", "console", "com10", "字" * 60, "é", "a" * 200, "❤️"]


def model_of_points() -> TzK:
    return TzK(build_flow((2,), layers=[{"type": "affine"}]))


def config_of(name: str) -> Config:
    tables = {
        "name": "t",
        "datasets": [{"name": "two-moons"}],
        "knowledge": [{"name": name, "type": "gaussian", "present": {"dataset": "two-moons"}}],
        "training": {"steps": 1},
    }
    return config_from(tables)


def labelled(*labels: str) -> dict[str, Samples]:
    return {"d": Samples(torch.zeros(len(labels), 2), {"kind": np.array(labels)})}


EACH = {"name": "{kind}", "present": {"dataset": "d", "kind": "each"}}


@pytest.mark.parametrize("name", UNUSABLE)
def test_a_name_that_no_file_can_have_is_refused_in_a_model_and_in_a_config(name: str) -> None:
    model = model_of_points()
    with pytest.raises(TzkError, match="name"):
        model.add(name, build_knowledge("gaussian", model.latent_shape))
    with pytest.raises(ConfigError):
        config_of(name)


@pytest.mark.parametrize("name", USABLE)
def test_other_names_are_taken_in_a_model_a_config_and_as_labels(name: str) -> None:
    model = model_of_points()
    model.add(name, build_knowledge("gaussian", model.latent_shape))
    config_of(name)
    assert {value.name for value in expand(typed([EACH]), labelled(name, "z"))} == {name, "z"}


@pytest.mark.parametrize("label", ["con", "-rf", "a" * 300, "字" * 90, "*" * 201])
def test_a_label_of_which_no_name_can_be_made_is_refused_with_its_column(label: str) -> None:
    with pytest.raises(TzkError, match=r"\[\[knowledge\]\] '\{kind\}': of kind = .*[Rr]ename the label"):
        expand(typed([EACH]), labelled(label, "z"))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("A", "a"),
        ("Straße", "STRASSE"),
        ("é", "e\u0301"),
        ("É", "e\u0301"),
        ("a/b", "a*b"),
        ("❤", "❤\ufe0f"),
        ("x ", "x"),
    ],
)
def test_labels_whose_files_some_system_takes_for_one_are_refused_within_a_table_and_between_two(
    one: str, other: str
) -> None:
    data = labelled(one, other, "z")
    with pytest.raises(TzkError, match="would both be called"):
        expand(typed([EACH]), data)
    single = [{"name": naming.in_a_name(value), "present": {"dataset": "d", "kind": value}} for value in (one, other)]
    with pytest.raises(TzkError, match="two knowledge types are called"):
        expand(typed(single), data)


def test_a_model_has_no_two_names_of_one_file() -> None:
    model = model_of_points()
    model.add("Ä", build_knowledge("gaussian", model.latent_shape))
    with pytest.raises(TzkError, match="'ä' already, as 'Ä'"):
        model.add("ä", build_knowledge("gaussian", model.latent_shape))


@given(st.text())
def test_what_becomes_of_a_label_in_a_name_is_one_or_is_refused_and_stays_as_it_is(label: str) -> None:
    name = naming.in_a_name(label)
    assert naming.in_a_name(name) == name
    assert unicodedata.is_normalized("NFC", name)
    if not naming.problem(name):
        assert len(name.encode()) <= naming.LONGEST
        assert naming.key(name) == naming.key(unicodedata.normalize("NFD", name)) == naming.key(naming.key(name))


@pytest.mark.parametrize("column", ["0", "a.b", "a[0]", "a!r", "a:>10", "with space"])
def test_a_column_of_any_name_fills_in_a_name(column: str) -> None:
    data = {"d": Samples(torch.zeros(3, 2), {column: np.array(["x", "y", "x"])})}
    table = {"name": f"k-{{{column}}}", "present": {"dataset": "d", column: "each"}}
    assert [value.name for value in expand(typed([table]), data)] == ["k-x", "k-y"]
    assert naming.glob(table["name"]) == "k-*"
    assert naming.could_be("k-x", table["name"]) and not naming.could_be("k-", table["name"])


@pytest.mark.parametrize("column", ["", "dataset", "a{b", "a}", " a", "a\x00"])
def test_a_column_that_no_condition_could_name_is_refused(column: str) -> None:
    with pytest.raises(TzkError, match="column"):
        Samples(torch.zeros(1, 2), {column: np.array(["x"])})


@pytest.mark.parametrize("pattern", ["k-{kind", "k-kind}", "k-{{kind}}", "{k{kind}}"])
def test_braces_have_to_match(pattern: str) -> None:
    with pytest.raises(TzkError, match="brace"):
        expand(typed([{**EACH, "name": pattern}]), labelled("a"))


@pytest.mark.parametrize("name", ["con", "a.", "a" * 300, "e\u0301"])
def test_a_data_set_and_a_run_have_names_of_folders(name: str) -> None:
    tables = {"name": name, "datasets": [{"name": name, "type": "two-moons"}], "training": {"steps": 1}}
    with pytest.raises(ConfigError) as raised:
        config_from(tables)
    assert {problem.place for problem in raised.value.problems} == {"name", f'[[datasets]] "{name}" name'}


def test_data_sets_that_differ_by_case_have_one_picture_on_some_systems() -> None:
    tables = {
        "name": "t",
        "datasets": [{"name": "Moons", "type": "two-moons"}, {"name": "moons", "type": "two-moons"}],
        "training": {"steps": 1},
    }
    with pytest.raises(ConfigError, match="two data sets are called 'moons'.*'Moons'"):
        config_from(tables)
