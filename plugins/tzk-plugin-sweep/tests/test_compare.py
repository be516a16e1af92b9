"""Runs in one table: differences where figures are of the same samples, units apart."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from tzk_plugin_sweep import compare
from tzk_plugin_sweep.compare import comparison, markdown
from tzk_plugin_sweep.figures import evaluated

CONFIG = """
name = "{name}"
seed = {seed}

[[datasets]]
name = "digits"
size = {size}

[evaluation]
{more}
"""
PRIOR = {"dataset": "digits", "split": "test", "kind": "prior", "name": "p(T)", "knowledge": None, "count": 50}
PRIOR |= {"bits_per_image": 100.0, "bits_per_dim": 2.0, "bits_per_pixel": 4.0, "log_prob_nats": None}
PRIOR |= {"standard_error": 5.0}
BASELINE = PRIOR | {"kind": "baseline", "name": "per-pixel histogram", "bits_per_image": 300.0, "bits_per_dim": 6.0}


def run(folder: Path, *changes: dict[str, Any], size: int = 8, seed: int = 0, more: str = "", **row: Any) -> Path:
    """A run folder with a prior and a baseline; `row` changes the prior, `changes` are further rows."""
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text(CONFIG.format(name=folder.name, size=size, seed=seed, more=more))
    results = {"rows": [copy.deepcopy(PRIOR) | row, copy.deepcopy(BASELINE), *changes]}
    (folder / "results.json").write_text(json.dumps(results))
    return folder


def compared(*folders: Path) -> dict[str, Any]:
    return comparison([evaluated(folder) for folder in folders])


def prior_of(found: dict[str, Any]) -> dict[str, Any]:
    return next(row for row in found["rows"] if row["kind"] == "prior")


def test_a_difference_is_that_of_the_figures_with_the_bound_of_its_error(tmp_path: Path) -> None:
    first = run(tmp_path / "a")
    other = run(tmp_path / "b", seed=1, bits_per_image=90.0, bits_per_dim=1.8, bits_per_pixel=3.6, standard_error=4.5)
    row = prior_of(compared(first, other))
    for unit, scale in (("bits_per_dim", 50), ("bits_per_pixel", 25)):
        _, figure = row["figures"][unit]
        assert figure["difference"] == pytest.approx(-10 / scale)
        assert figure["standard_error"] == pytest.approx(4.5 / scale)
        assert figure["largest_error"] == pytest.approx((5 + 4.5) / scale)
    assert "log_prob_nats" not in row["figures"]
    text = markdown(compared(first, other))
    assert "-0.200 ± 0.190" in text and "-0.400 ± 0.380" in text
    bits_per_dim, bits_per_pixel = text.split("## ")[1:]
    assert "2.000" in bits_per_dim and "4.000" not in bits_per_dim and "4.000" in bits_per_pixel


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"size": 16}, "another size"),
        ({"count": 49}, "49 samples, not 50"),
        ({"more": "limit = 50"}, "limit differs"),
        ({"more": "dequantisations = 4"}, "dequantisations differs"),
    ],
)
def test_other_data_are_marked_and_have_no_difference(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    found = compared(run(tmp_path / "a"), run(tmp_path / "b", **change))
    row = prior_of(found)
    assert words in row["not_the_same_data"][1]
    assert row["figures"]["bits_per_dim"][1]["difference"] is None and row["figures"]["bits_per_dim"][1]["value"] == 2
    assert "other data" in markdown(found) and words in markdown(found)


def test_a_limit_chooses_by_the_seed(tmp_path: Path) -> None:
    one, other, same = (run(tmp_path / f"{i}", seed=i % 2, more="limit = 50") for i in range(3))
    assert "another seed" in prior_of(compared(one, other))["not_the_same_data"][1]
    assert prior_of(compared(one, same))["not_the_same_data"] == ["", ""]


def test_another_baseline_tells_other_data_of_the_same_config(tmp_path: Path) -> None:
    first, other = run(tmp_path / "a"), run(tmp_path / "b")
    results = json.loads((other / "results.json").read_text())
    results["rows"][1]["bits_per_image"] += 1e-3
    (other / "results.json").write_text(json.dumps(results))
    assert "baseline" in prior_of(compared(first, other))["not_the_same_data"][1]


def test_splits_rows_and_units_are_never_mixed(tmp_path: Path) -> None:
    real = PRIOR | {"bits_per_pixel": None, "log_prob_nats": -3.0, "dataset": "table"}
    mine = PRIOR | {"kind": "knowledge", "name": "a", "knowledge": "a", "count": 20}
    first = run(tmp_path / "a", PRIOR | {"split": "validation"}, real, mine, PRIOR | {"kind": "published", "name": "p"})
    found = compared(first, run(tmp_path / "b", mine | {"count": 10}))
    rows = {(row["dataset"], row["split"], row["name"]): row for row in found["rows"]}
    assert len(rows) == len(found["rows"]) == 5
    assert rows["digits", "validation", "p(T)"]["figures"]["bits_per_dim"][1]["value"] is None
    assert set(rows["table", "test", "p(T)"]["figures"]) == {"bits_per_dim", "log_prob_nats"}
    assert rows["digits", "test", "a"]["figures"]["bits_per_dim"][1]["difference"] is None, "other samples have it"
    assert "log p (nats)" in markdown(found) and "digits (validation), bits/dim" in markdown(found)


def test_the_command(tmp_path: Path) -> None:
    first, other = run(tmp_path / "a"), run(tmp_path / "b")

    def call(*words: str) -> Any:
        return CliRunner().invoke(compare.command, list(words))

    assert json.loads(call(str(first), str(other), "--json").output)["runs"] == [str(first), str(other)]
    assert "+0.000" in call(str(first), str(other)).output or " 0.000" in call(str(first), str(other)).output
    assert "two runs or more" in str(call(str(first)).exception)
    (other / "results.json").unlink()
    assert "was not evaluated" in str(call(str(first), str(other)).exception)
    assert "not a run folder" in str(call(str(first), str(tmp_path / "none")).exception)
