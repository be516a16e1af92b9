"""Every setting is defined once: the tables of a file, keywords, the reference and the JSON Schema agree."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import output_of
from json_schemas import fits

from tzk_core.config import ConfigError, config_from
from tzk_core.config.json_schema import json_schema, table_schema
from tzk_core.config.keys import as_json
from tzk_core.config.schema import ADDITION_MODELS, MODELS, Addition, Config
from tzk_core.errors import TzkError
from tzk_core.objective import Wording
from tzk_core.settings import NegativesTable, ObjectiveTable, Table, TrainingTable, WholeTable, own_keys
from tzk_core.training.adding.negatives import Negatives
from tzk_core.training.settings import Settings

ROOT = Path(__file__).parents[2]
VALUES = [
    *(-1, 0, 1, 2, 1024, 1025, 2**20, 2**20 + 1, 10**7, 10**12, 10**12 + 1, True, False, "auto", "cosine", "muon", "x"),
    *("literal", "paper", "skip", "bfloat16"),
    *(-0.5, 0.0, 1e-3, 0.45, 0.5, 0.999, 1.0, 1.5, 100.0, 100.5, 1e6, 2e6, [], {}),
]
SPARE = {"steps": 1, "validate_every": 1, "multiplier": 0.0}
"""What goes together with any value of another key."""
KEYS = [(ObjectiveTable, key) for key in own_keys(ObjectiveTable)] + [
    (TrainingTable, key) for key in own_keys(TrainingTable)
]
EVERY_KEY = pytest.mark.parametrize(("table", "key"), KEYS, ids=[key for _, key in KEYS])


def in_a_file(table: type[Table], key: str, value: Any) -> bool:
    """Whether a table of a file takes the value."""
    required = {"steps": 1} if table is TrainingTable else {}
    try:
        table.model_validate_json(as_json({**required, key: value}), strict=True)
    except ValueError:
        return False
    return True


def as_keyword(key: str, value: Any) -> bool:
    try:
        Settings(**{**SPARE, key: value})
    except TzkError as error:
        assert key in str(error)
        return False
    return True


@EVERY_KEY
def test_the_schema_takes_what_a_file_takes(table: type[Table], key: str) -> None:
    whole = json_schema(Config)
    schema = table_schema(whole, "training" if table is TrainingTable else "objective")["properties"][key]
    taken = [in_a_file(table, key, value) for value in VALUES]
    assert [fits(value, schema, whole) for value in VALUES] == taken
    assert any(taken) and not all(taken)


@EVERY_KEY
def test_a_keyword_takes_what_a_file_takes(table: type[Table], key: str) -> None:
    if key == "labelled_share":
        pytest.skip("is of data sets, which a call has none of")
    for value in VALUES:
        is_none_at_all = key in ("steps", "minutes") and value == 0 and value is not False
        is_over_the_largest = key == "multiplier" and isinstance(value, int | float) and value > 0.45
        if not (is_none_at_all or is_over_the_largest):  # what a keyword alone takes, and what two keys decide
            assert as_keyword(key, value) == in_a_file(table, key, value), value


def test_a_call_may_ask_for_no_step_and_no_time_and_a_file_may_not() -> None:
    assert as_keyword("steps", 0) and as_keyword("minutes", 0.0) and not as_keyword("minutes", -1)
    assert not in_a_file(TrainingTable, "steps", 0) and not in_a_file(TrainingTable, "minutes", 0.0)


def test_keywords_have_the_defaults_of_a_file() -> None:
    settings, training, objective = Settings(steps=3), TrainingTable(steps=3), ObjectiveTable()
    for table in (training, objective):
        for key in own_keys(type(table)):
            if key != "labelled_share":
                assert getattr(settings, key) == getattr(table, key), key
    assert settings.wording == Wording() == Wording(objective.fill_in, objective.prior, objective.unlabelled)
    assert settings.model_fields_set == {"steps"}
    assert Negatives() == Negatives(0.5) and Negatives().model_dump() == NegativesTable().model_dump()


def test_numbers_of_numpy_are_numbers() -> None:
    settings = Settings(steps=np.int64(3), learning_rate=np.float32(0.5), clip=np.int8(2))
    assert (settings.steps, settings.learning_rate, settings.clip) == (3, 0.5, 2.0)
    assert type(settings.steps) is int and type(settings.learning_rate) is float


def test_a_wording_takes_the_place_of_its_keys() -> None:
    literal = Settings(steps=1, wording=Wording("literal"))
    assert literal == Settings(steps=1, fill_in="literal") and literal.wording == Wording("literal")
    assert Settings(**vars(literal)) == literal
    with pytest.raises(TzkError, match="prior: said twice"):
        Settings(steps=1, wording=Wording("literal"), prior="paper")
    with pytest.raises(TzkError, match="wording is expected as a Wording; got str"):
        Settings(steps=1, wording="literal")  # type: ignore[arg-type]


def test_all_that_is_wrong_is_named_at_once_with_the_nearest_name() -> None:
    with pytest.raises(TzkError) as refused:
        Settings(stepz=3, schedule=3, beta2=1.0)  # type: ignore[call-arg]
    problems = str(refused.value)
    for part in (
        "there is no setting 'stepz'; did you mean 'steps'?",
        "steps has to be given",
        "schedule: expected the name of a part, or a table with its name as type and its arguments, got 3",
        "beta2: expected a number below 1.0, got 1.0",
    ):
        assert part in problems


@pytest.mark.parametrize(
    ("table", "keys", "message"),
    [
        ("training", {"patience": 2, "validate_every": 0}, "patience: 2 counts validations"),
        ("training", {"compile": True, "processes": 2}, "compile: true is for one process"),
        ("objective", {"multiplier": 0.3, "multiplier_max": 0.2}, "multiplier: expected at most multiplier_max = 0.2"),
    ],
)
def test_a_file_and_a_call_refuse_what_does_not_go_together(table: str, keys: dict[str, Any], message: str) -> None:
    tables: dict[str, Any] = {"name": "x", "datasets": [{"name": "two-moons"}], "training": {"steps": 1}}
    tables[table] = {**tables.get(table, {}), **keys}
    with pytest.raises(ConfigError, match=rf"\[{table}\] {message}"):
        config_from(tables)
    with pytest.raises(TzkError, match=message):
        Settings(**{"steps": 1, **keys})


def test_every_key_has_help_and_every_default_fits() -> None:
    for models, whole in ((MODELS, json_schema(Config)), (ADDITION_MODELS, json_schema(Addition))):
        for model in models.values():
            schema = whole if model in (Config, Addition) else whole["$defs"][model.__name__]
            for key in own_keys(model):
                written = schema["properties"][key]
                assert written.get("description") or "$ref" in written or "$ref" in written.get("items", ()), key
                if "default" in written:
                    assert fits(written["default"], written, whole), key


@pytest.mark.parametrize("file", sorted(ROOT.glob("examples/**/*.toml")), ids=lambda file: file.stem)
def test_every_example_fits_the_schema(file: Path) -> None:
    tables = tomllib.loads(file.read_text(encoding="utf-8"))
    assert any(fits(tables, whole, whole) for whole in (json_schema(Config), json_schema(Addition)))


@pytest.mark.parametrize(
    "wrong",
    [
        {"nme": "x"},
        {"device": "gpu"},
        {"objective": {"tolerance": 0}},
        {"datasets": []},
        {"datasets": [{"size": 32}]},
        {"knowledge": [{"name": "a", "implies": 3}]},
        {"knowledge": [{"name": "a", "labelled": 1.5}]},
    ],
    ids=str,
)
def test_the_schema_refuses_what_a_config_may_not_hold(wrong: dict[str, Any]) -> None:
    right = {"name": "x", "datasets": [{"name": "mnist", "size": 32}], "training": {"steps": 1}}
    short = {"knowledge": [{"name": "a", "implies": "b", "labelled": 0.5}], "objective": {"dreams": 0.1}}
    whole = json_schema(Config)
    assert fits({**right, **short}, whole, whole)
    assert not fits({**right, **wrong}, whole, whole)


@pytest.mark.parametrize("table", ["training", "objective", "evaluation", "pictures", "[flow]", "[[knowledge]]"])
def test_describe_prints_every_key_with_default_and_help(table: str) -> None:
    output = output_of("describe", table)
    words = " ".join(output.split())
    model = MODELS[(table.strip("[]"),)]
    for key in own_keys(model):
        assert f"\n  {key} " in output
        assert " ".join((model.model_fields[key].description or "?").split()) in words
    assert ("above 0, at most 100 Adam's" in words) == (table == "training")


def test_describe_training_says_what_a_spec_holds_too_and_a_part_of_that_name_comes_first() -> None:
    assert "present_share" in output_of("describe", "training").partition("of a spec, for `tzk add`")[2]
    output = output_of("describe", "flow")
    assert output.startswith("flow: knowledge type") and "\n\n[flow]: the shared flow" in output


def test_schema_prints_that_of_a_config_and_of_a_spec() -> None:
    assert json.loads(output_of("schema")) == json_schema(Config)
    assert json.loads(output_of("schema", "--addition")) == json_schema(Addition)


def test_whole_training_and_its_table_differ_by_what_a_call_has_no_data_sets_for() -> None:
    assert set(own_keys(TrainingTable)) - set(own_keys(WholeTable)) == {"labelled_share"}
