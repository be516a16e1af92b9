"""Presence and characteristics of samples are as the tables of knowledge write them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from knowledge_tables import typed
from marked_samples import DATA, DIGITS, marked

from tzk_core.build import build_flow, build_knowledge
from tzk_core.data.annotation import annotate, characteristics_of, presence
from tzk_core.data.expansion import expand
from tzk_core.data.ordering import natural_key
from tzk_core.data.protocol import Samples
from tzk_core.errors import TzkError
from tzk_core.model import TzK


def test_natural_order() -> None:
    names = ["digit-10", "digit-2", "b", "2", "10", "01", "1", "digit"]
    assert sorted(names, key=natural_key) == ["01", "1", "2", "10", "b", "digit", "digit-2", "digit-10"]


def test_each_makes_one_knowledge_type_a_value_in_natural_order() -> None:
    tables = [
        {"name": "digits", "present": {"dataset": "digits"}, "steps": 4},
        {"name": "digit-{label}", "present": {"dataset": "digits", "label": "each"}, "implies": "digits"},
    ]
    expanded = expand(typed(tables), DATA)
    assert [knowledge.name for knowledge in expanded] == ["digits", "digit-1", "digit-2", "digit-10"]
    assert [knowledge.implies for knowledge in expanded] == [(), ("digits",), ("digits",), ("digits",)]
    assert expanded[0].table.arguments == {"steps": 4}
    assert expanded[3].present == {"dataset": ("digits",), "label": ("10",)}
    assert expanded[3].table.name == "digit-{label}" and expanded[3].table.present["label"] == "each"


def test_each_over_two_columns_makes_the_combinations_that_occur() -> None:
    table = {
        "name": "{hand}-{label}",
        "present": {"dataset": "letters", "hand": "each", "label": "each"},
        "implies": ["{hand}"],
    }
    hand = {"name": "{hand}", "present": {"dataset": "letters", "hand": "each"}}
    expanded = expand(typed([hand, table]), DATA)
    assert [k.name for k in expanded] == ["left", "right", "left-a", "left-b", "right-a", "right-b"]
    assert expanded[4].implies == ("right",)


def test_what_no_name_can_hold_is_a_dash_in_names_and_stays_in_conditions() -> None:
    label = ["Greek/character24", "Greek/character3", "v1.5", "a:b*?", ""]
    tables = [
        {"name": "character-{label}", "present": {"dataset": "x", "label": "each"}},
        {"name": "again {label}", "present": {"dataset": "x", "label": "each"}, "implies": "character-{label}"},
    ]
    data = {"x": marked(5, 0, label=label)}
    annotation = annotate(typed(tables), data)
    names = ["Greek-character3", "Greek-character24", "a-b--", "v1-5"]
    assert annotation.names == (*(f"character-{name}" for name in names), *(f"again {name}" for name in names))
    model = TzK(build_flow((2,), layers=[{"type": "affine"}]))
    for table in annotation.knowledge:
        model.add(table.name, build_knowledge("gaussian", (2,), hidden=2, layers=2))
    assert annotation.knowledge[5].implies == ("character-Greek-character24",)
    column = annotation.names.index("character-Greek-character24")
    assert annotation.presence["x"][:4, column].tolist() == [1, 0, 0, 0]


def test_labels_that_only_differ_by_what_no_name_can_hold_are_refused() -> None:
    table = {"name": "c-{label}", "present": {"dataset": "x", "label": "each"}}
    with pytest.raises(TzkError, match=r"label = 'a-b' and label = 'a/b' would both be called 'c-a-b'.*rename one"):
        expand(typed([table]), {"x": marked(3, 0, label=["a/b", "c", "a-b"])})


def test_presence_is_one_nan_or_zero_as_written() -> None:
    tables = [
        {"name": "digits", "present": {"dataset": "digits"}},
        {"name": "two", "present": {"dataset": "digits", "label": 2}},
        {"name": "a", "present": {"label": "a"}, "unobserved": {"dataset": "digits"}},
        {"name": "some", "present": {"dataset": "letters", "label": ["a", "b"], "hand": "left"}},
        {"name": "unknown", "unobserved": {"dataset": ["digits", "letters"]}},
    ]
    annotation = annotate(typed(tables), DATA)
    assert annotation.names == ("digits", "two", "a", "some", "unknown")
    nan = float("nan")
    digits = [[1, 0, nan, 0, nan] for _ in DIGITS]
    digits[0][1] = digits[3][1] = 1
    digits[4][1] = nan  # its label is not known
    letters = [[0, 0, float(label == "a"), float(i < 3), nan] for i, label in enumerate("ababa")]
    torch.testing.assert_close(annotation.presence["digits"], torch.tensor(digits), equal_nan=True)
    torch.testing.assert_close(annotation.presence["letters"], torch.tensor(letters), equal_nan=True)
    assert annotation.presence["digits"].dtype == torch.float32


def test_a_value_absent_from_another_split_is_absent_there() -> None:
    annotation = annotate(typed([{"name": "{label}", "present": {"dataset": "digits", "label": "each"}}]), DATA)
    test = annotation.of({"digits": marked(2, 0, label=["1", "77"])})
    assert annotation.names == test.names == ("1", "2", "10")
    assert test.presence["digits"].tolist() == [[1, 0, 0], [0, 0, 0]]


def test_no_knowledge_gives_no_columns() -> None:
    assert presence([], "digits", DATA["digits"]).shape == (7, 0)


def test_characteristics_are_nan_where_not_supplied() -> None:
    slant = torch.tensor([1.0, 2.0, torch.nan])
    data = {
        "glyphs": Samples(
            T=torch.zeros(3, 2, dtype=torch.uint8),
            labels={"label": np.array(["x", "y", "x"])},
            characteristics={"slant": slant, "thickness": torch.tensor([4.0, 5.0, 6.0])},
        ),
        "plain": Samples(T=torch.zeros(2, 2, dtype=torch.uint8)),
    }
    tables = [
        {"name": "all", "present": {"dataset": ["glyphs", "plain"]}, "observed": ["thickness", "slant"]},
        {"name": "x", "present": {"dataset": "glyphs", "label": "x"}, "observed": ["thickness"]},
        {"name": "free", "present": {"dataset": "glyphs"}},
    ]
    expanded = expand(typed(tables), data)
    nan = torch.nan
    glyphs = characteristics_of(expanded, "glyphs", data["glyphs"])
    assert set(glyphs) == {"all", "x"}
    expected = torch.tensor([[4.0, 1.0], [5.0, 2.0], [nan, nan]])
    torch.testing.assert_close(glyphs["all"], expected, equal_nan=True)
    torch.testing.assert_close(glyphs["x"], torch.tensor([[4.0], [nan], [6.0]]), equal_nan=True)
    assert characteristics_of(expanded, "plain", data["plain"])["all"].isnan().all()


BAD_TABLES = [
    (
        {"name": "x", "present": {"dataset": "digit"}},
        r"'x': present: no data set 'digit'.*did you mean 'digits'",
    ),
    ({"name": "x", "present": {"dataset": "digits", "labl": "1"}}, r"no label column 'labl'.*'label'"),
    ({"name": "x", "present": {"dataset": "digits", "hand": "left"}}, r"no label column 'hand' in 'digits'"),
    ({"name": "x", "present": {"dataset": "digits", "label": "3"}}, r"label = '3': there is '1', '2', '10'"),
    ({"name": "x", "unobserved": {"dataset": "nothing"}}, r"unobserved: no data set 'nothing'"),
    ({"name": "x", "present": {}}, r"nothing says in which samples it is present"),
    ({"name": "x", "present": {"dataset": "digits", "label": "each"}}, r"as in 'label-\{label\}'"),
    ({"name": "x-{label}", "present": {"dataset": "digits"}}, r"must say label = \"each\""),
    ({"name": "x-{label", "present": {"dataset": "digits"}}, r"unmatched brace"),
    ({"name": "x", "present": {"dataset": "digits"}, "implies": "y"}, r"implies 'y', which is not"),
    ({"name": "x", "present": {"dataset": "digits"}, "implies": "x"}, r"implies itself"),
    ({"name": "x", "present": {"dataset": "digits"}, "observed": ["slant"]}, r"no data set has a .* 'slant'"),
]


@pytest.mark.parametrize(("table", "message"), BAD_TABLES, ids=[message for _, message in BAD_TABLES])
def test_bad_tables_are_refused_with_what_to_do(table: dict, message: str) -> None:
    with pytest.raises(TzkError, match=message):
        expand(typed([table]), DATA)


def test_what_a_type_implies_may_come_from_a_column_that_its_own_name_leaves_out() -> None:
    """As a character belongs to one alphabet."""
    labels = {"alphabet": np.array(["A", "A", "B"]), "character": np.array(["A/1", "A/2", "B/1"])}
    samples = {"signs": Samples(torch.zeros(3, 1), labels)}
    tables = [
        {"name": "alphabet-{alphabet}", "present": {"alphabet": "each"}},
        {
            "name": "character-{character}",
            "present": {"character": "each", "alphabet": "each"},
            "implies": "alphabet-{alphabet}",
        },
    ]
    actual = {table.name: table.implies for table in expand(typed(tables), samples)}
    assert actual["character-A-2"] == ("alphabet-A",) and actual["character-B-1"] == ("alphabet-B",)
    assert len(actual) == 5


def test_two_of_one_name_are_refused() -> None:
    table = {"name": "x", "present": {"dataset": "digits"}}
    with pytest.raises(TzkError, match="two knowledge types are called 'x'"):
        expand(typed([table, table]), DATA)


def test_observed_must_have_as_many_values_as_characteristics() -> None:
    data = {"d": Samples(torch.zeros(1, 2), characteristics={"slant": torch.zeros(1)})}
    table = {"name": "x", "present": {"dataset": "d"}, "observed": ["slant"], "characteristics": 2}
    with pytest.raises(TzkError, match="expected characteristics = 1"):
        expand(typed([table]), data)
