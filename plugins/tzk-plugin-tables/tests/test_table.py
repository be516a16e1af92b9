"""Tables come out as they were written, whatever the format, and say what is wrong with them."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from tzk_plugin_tables import tzk_datasets
from tzk_plugin_tables.table import Table

from tzk_core.cli import main
from tzk_core.data.protocol import SPLITS, Dataset
from tzk_core.errors import Note, TzkError
from tzk_core.plugins import Dataset as DatasetSpec
from tzk_core.plugins import registry
from tzk_core.testing import check_dataset, check_plugin

ROWS = 60


@pytest.fixture
def frame() -> pd.DataFrame:
    generator = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "mean size": generator.normal(1000, 50, ROWS),
            "mean weight": generator.lognormal(0, 1, ROWS),
            "share": generator.uniform(0.1, 0.9, ROWS),
            "kind": np.array(["007", "b", "c"])[np.arange(ROWS) // 6 % 3],
            "year": np.arange(ROWS) % 2 + 1990,
            "age": generator.normal(40, 10, ROWS),
            "set": np.array(["train"] * 4 + ["validation", "test"])[np.arange(ROWS) % 6],
        }
    )


WRITERS: dict[str, Callable[[pd.DataFrame, Path], None]] = {
    "csv": lambda frame, path: frame.to_csv(path, index=False),
    "csv.gz": lambda frame, path: frame.to_csv(path, index=False),
    "tsv": lambda frame, path: frame.to_csv(path, index=False, sep="\t"),
    "parquet": lambda frame, path: frame.to_parquet(path),
    "feather": lambda frame, path: frame.to_feather(path),
}


@pytest.fixture
def written(frame: pd.DataFrame, tmp_path: Path) -> Callable[..., Path]:
    """Writes the frame, some of its values replaced, and returns the file."""

    def write(suffix: str = "csv", **columns: Any) -> Path:
        path = tmp_path / f"cells.{suffix}"
        WRITERS[suffix](frame.assign(**columns), path)
        return path

    return write


def everything(data: Table) -> torch.Tensor:
    return torch.cat([data.split(split).T for split in SPLITS])


@pytest.mark.parametrize("suffix", WRITERS)
def test_every_format_gives_the_same_samples(suffix: str, written: Callable[..., Path], frame: pd.DataFrame) -> None:
    data = Table(written(suffix), ["mean *", "share"], labels=["kind", "year"], characteristics=["age"], split="set")
    assert isinstance(data, Dataset) and data.shape == (3,) and data.levels is None
    assert data.columns == ["mean size", "mean weight", "share"]
    for split in SPLITS:
        rows = frame[frame["set"] == split]
        samples = data.split(split)
        np.testing.assert_array_equal(samples.T.numpy(), rows[data.columns].to_numpy(np.float32))
        assert samples.labels["kind"].tolist() == rows["kind"].tolist(), "007 is no number"
        assert samples.labels["year"].tolist() == rows["year"].astype(str).tolist()
        np.testing.assert_array_equal(samples.characteristics["age"].numpy(), rows["age"].to_numpy(np.float32))


def test_by_default_every_column_of_numbers_that_is_nothing_else_is_of_T(written: Callable[..., Path]) -> None:
    assert Table(written(), labels=["year"], characteristics=["age"]).columns == ["mean size", "mean weight", "share"]


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_what_is_missing_stays_missing(suffix: str, written: Callable[..., Path], frame: pd.DataFrame) -> None:
    hide = np.arange(ROWS) % 7 == 0
    path = written(
        suffix,
        kind=frame["kind"].where(~hide),
        year=frame["year"].astype("Int64").where(~hide),
        age=frame["age"].where(~hide),
        share=frame["share"].where(~hide),
    )
    data = Table(path, ["share", "mean size"], labels=["kind", "year"], characteristics=["age"], validation=0, test=0)
    samples = data.split("train")
    np.testing.assert_array_equal(samples.T.isnan().numpy(), np.stack([hide, np.zeros(ROWS, bool)], 1))
    assert samples.labels["kind"].tolist() == [
        "" if gone else kind for gone, kind in zip(hide, frame["kind"], strict=True)
    ]
    assert samples.labels["year"].tolist() == ["" if gone else str(1990 + i % 2) for i, gone in enumerate(hide)]
    np.testing.assert_array_equal(samples.characteristics["age"].isnan().numpy(), hide)


def test_a_seeded_split_is_whole_repeatable_and_its_own(written: Callable[..., Path], frame: pd.DataFrame) -> None:
    path = written()
    data, again, other = (Table(path, ["age"], test=10, validation=5, seed=seed) for seed in (0, 0, 1))
    assert [len(data.split(split)) for split in SPLITS] == [45, 5, 10]
    assert torch.equal(everything(data), everything(again))
    assert not torch.equal(everything(data), everything(other))
    assert sorted(everything(data).flatten().tolist()) == sorted(frame["age"].astype(np.float32).tolist())


def test_a_folder_has_a_file_a_split(frame: pd.DataFrame, tmp_path: Path) -> None:
    for split in ("train", "test"):
        frame[frame["set"] == split].to_parquet(tmp_path / f"{split}.parquet")
    data = Table(tmp_path, ["age"], validation=4)
    assert [len(data.split(split)) for split in SPLITS] == [36, 4, 10]
    frame.drop(columns="age").to_parquet(tmp_path / "test.parquet")
    with pytest.raises(TzkError, match="test has no column 'age'"):
        Table(tmp_path, ["age"])


def test_domains_go_by_column(written: Callable[..., Path]) -> None:
    data = Table(written(), ["age", "mean weight", "share"], domain={"*weight": "(0, inf)", "share": "(0, 1)"})
    assert data.domain == ["real", "(0, inf)", "(0, 1)"]
    assert Table(written(), ["mean *"], domain="(0, inf)").domain == "(0, inf)"


WRONG: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "no such column": ({}, {"columns": ["mean size", "aeg"]}, "columns: no column is called, or matches, 'aeg'.*'age'"),
    "a label in T": ({}, {"columns": ["age", "kind"], "labels": ["kind"]}, "'kind' is a label"),
    "text in T": ({}, {"columns": ["kind"]}, "column 'kind': expected numbers.* got 'b' in row 6"),
    "infinity": ({"age": np.inf}, {"columns": ["age"]}, "column 'age': expected finite numbers"),
    "constant": ({"age": 3.0}, {"columns": ["age"]}, "column 'age': it is 3 in all 48 training samples"),
    "never seen": ({"age": np.nan}, {"columns": ["age"]}, "column 'age': it has no value in the training split"),
    "domain": ({}, {"columns": ["share"], "domain": "(0.5, 1)"}, r"its domain is \(0.5, 1\).*got 0\.\d+ in row \d+"),
    "domain of nothing": ({}, {"columns": ["share"], "domain": {"x*": "real"}}, "domain: no column is called.*'x.'"),
    "no interval": ({}, {"columns": ["share"], "domain": "positive"}, "a domain is expected as"),
    "split": ({"set": "training"}, {"split": "set"}, "column 'set' is expected to say train, .*got 'training'"),
    "all given away": ({}, {"columns": []}, "no column of numbers is left for T"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_said_with_file_and_column(case: str, written: Callable[..., Path]) -> None:
    columns, arguments, message = WRONG[case]
    with pytest.raises(TzkError, match=message) as caught:
        Table(written(**columns), **arguments)
    assert case == "no interval" or "cells.csv" in str(caught.value)


def test_files_that_are_no_tables_are_refused(tmp_path: Path) -> None:
    (tmp_path / "cells.xyz").write_text("a,b\n1,2\n")
    with pytest.raises(TzkError, match=r"expected a file that ends in .csv"):
        Table(tmp_path / "cells.xyz")
    (tmp_path / "cells.parquet").write_text("a,b\n1,2\n")
    with pytest.raises(TzkError, match="cannot read .*cells.parquet"):
        Table(tmp_path / "cells.parquet")
    (tmp_path / "twice.csv").write_text("a, a\n1,2\n")
    with pytest.raises(TzkError, match="several columns called 'a'"):
        Table(tmp_path / "twice.csv")
    with pytest.raises(TzkError, match="there is no .*train.csv"):
        Table(tmp_path)


def test_a_column_that_single_precision_loses_gets_a_note(written: Callable[..., Path], frame: pd.DataFrame) -> None:
    with pytest.warns(Note, match="column 'age': values up to .* lose digits in single precision"):
        Table(written(age=1e9 + frame["age"]), ["age"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Table(written(), ["age"])


def test_the_plugin_conforms(written: Callable[..., Path]) -> None:
    names = {spec.name for spec in check_plugin("tzk_plugin_tables")}
    assert names == {"table", "power", "gas", "hepmass", "miniboone", "bsds300"}
    assert tzk_datasets()[0].target == "tzk_plugin_tables.table:Table"
    check_dataset(Table(written(), labels=["kind"], characteristics=["age"]))


@pytest.mark.slow
def test_a_table_is_run_in_nats_from_the_folder_of_its_config(
    frame: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    try:
        registry().find(DatasetSpec, "table")
    except TzkError:
        pytest.skip("tzk-plugin-tables is not installed, but only on the path")
    (tmp_path / "here").mkdir()
    frame.to_csv(tmp_path / "here" / "cells.csv", index=False)
    config = """
        name = "cells"
        flow = { recipe = "paper", steps = 2 }
        [[datasets]]
        name = "cells"
        type = "table"
        path = "cells.csv"
        columns = ["mean *", "share"]
        labels = ["kind"]
        split = "set"
        domain = { "mean weight" = "(0, inf)", share = "(0, 1)" }
        [[knowledge]]
        name = "kind-{kind}"
        type = "gaussian"
        present = { dataset = "cells", kind = "each" }
        [training]
        steps = 5
        batch_size = 16
        validate_every = 0
    """
    (tmp_path / "here" / "cells.toml").write_text(config)
    monkeypatch.chdir(tmp_path)
    assert main(["run", "here/cells.toml", "--out", "run"], standalone_mode=False) in (None, 0)
    rows = json.loads((tmp_path / "run" / "results.json").read_text())["rows"]
    assert {row["name"] for row in rows} >= {"prior", "kind-007", "full-covariance Gaussian"}
    assert all(row["bits_per_pixel"] is None for row in rows)
    text = (tmp_path / "run" / "results.md").read_text()
    assert "log p, nats" in text and "bits/pixel" not in text and "image" not in text
