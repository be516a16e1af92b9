"""The metric `outside` says of a run what `tzk ood` says, and refuses data that cannot be compared."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from commands import output_of, tzk
from tzk_plugin_outside.detection import NEED_DATA, STATISTICS
from tzk_plugin_outside.metric import Outside

from tzk_core.testing import check_metric, check_plugin

CONFIG = """
name = "digits"
pictures = { draw = [] }
plugins = ["tzk-plugin-outside"]
[flow]
steps = 1
tile = 4
[[datasets]]
name = "digits"
type = "glyph-digits"
train = 200
validation = 20
test = 40
[[knowledge]]
name = "digit-{label}"
type = "gaussian"
hidden = 4
present = { dataset = "digits", label = "each" }
[training]
steps = 3
batch_size = 64
initialisation = 128
[evaluation]
importance_samples = 3
[[evaluation.metrics]]
type = "outside"
dataset = "glyph-letters"
dataset_arguments = { train = 10, validation = 10, test = 30 }
[[evaluation.metrics]]
type = "outside/outside"
dataset = "glyph-letters"
dataset_arguments = { size = 20 }
"""
OUTSIDE = """
[[datasets]]
name = "glyph-letters"
train = 10
validation = 10
test = 30
"""


def test_the_plugin_conforms() -> None:
    assert [spec.name for spec in check_plugin("tzk_plugin_outside")] == ["score", "ood", "outside"]


def test_the_metric_conforms() -> None:
    letters = Outside("glyph-letters", {"size": 8, "train": 10, "validation": 2, "test": 8})
    said = {row["statistic"] for row in check_metric(letters, (1, 8, 8))}
    assert said == set(STATISTICS) - set(NEED_DATA)


def test_it_says_what_the_command_says(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(CONFIG)
    (tmp_path / "letters.toml").write_text(OUTSIDE)
    output_of("run", tmp_path / "c.toml", "--out", tmp_path / "run")
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    measured, refused = results["metrics"]
    (outside,) = json.loads(tzk("ood", tmp_path / "run", tmp_path / "letters.toml", "--json").stdout)["outside"]
    expected = {row["statistic"]: (row["area"], row["standard_error"]) for row in outside["statistics"]}
    found = {row["statistic"]: (row["area"], row["standard_error"]) for row in measured["rows"]}
    assert set(found) == set(expected) - set(NEED_DATA)
    for name, values in found.items():
        assert values == pytest.approx(expected[name]), name
    assert {(row["inside"], row["outside"]) for row in measured["rows"]} == {(40, 30)}

    assert refused["rows"] == [] and "is of shape (1, 20, 20)" in refused["error"]
    (note,) = (note for note in results["notes"] if "metric" in note)
    assert "'outside'" in note and "tzk-plugin-outside" in note
    table = (tmp_path / "run" / "results.md").read_text()
    assert "## outside (dataset = glyph-letters" in table and "area, probability ↑" in table and note[:30] in table
