"""`tzk list` has the figures of runs, and what `tzk init` writes passes `tzk check` and can be run."""

from __future__ import annotations

import errno
import json
import tomllib
from pathlib import Path

import numpy as np
import pytest
from commands import output_of
from PIL import Image


def test_list_has_a_line_for_every_data_set_and_names_damage(run: Path, planar: Path, tmp_path: Path) -> None:
    results = json.loads((run / "results.json").read_text())
    prior = next(row for row in results["rows"] if row["kind"] == "prior")
    text = output_of("list", run, planar)
    (line,) = [line for line in text.splitlines() if line.startswith(str(run))]
    assert f"{prior['bits_per_dim']:.3f}" in line and "finished" in line and "digits" in line
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/config.toml").write_text("name = ")
    damaged = output_of("list", tmp_path, status=1)
    assert "damaged" in damaged and "cannot be read" in damaged
    assert "there is no folder" in output_of("list", tmp_path / "nowhere", status=2)


@pytest.mark.parametrize("shut", ["run", "its record", "the folder"])
def test_list_lists_the_rest_of_what_cannot_be_read(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shut: str
) -> None:
    folder = tmp_path / "closed"
    (folder / "a").mkdir(parents=True)
    (folder / "a/config.toml").write_text("")
    (folder / "a/run.json").write_text("{}")
    closed = {"run": folder / "a/config.toml", "its record": folder / "a/run.json", "the folder": folder}[shut]
    stat, read = Path.stat, Path.open

    def check(path: Path) -> None:
        if path == closed or shut == "the folder" and closed in path.parents:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "stat", lambda self, **how: (check(self), stat(self, **how))[1])
    monkeypatch.setattr(Path, "open", lambda self, *how, **more: (check(self), read(self, *how, **more))[1])
    said = output_of("list", folder, run, status=1)
    assert any(line.startswith(str(run)) and "finished" in line for line in said.splitlines())
    name = folder if shut == "the folder" else folder / "a"
    assert any(line.startswith(f"error: {name}: ") for line in said.splitlines()), said


def test_list_as_json_and_of_no_runs(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (entry,) = json.loads(output_of("list", "--json", run))
    assert entry["dataset"] == "digits" and entry["knowledge"] == 11 and 0 <= entry["told_apart"] <= 1
    monkeypatch.chdir(tmp_path)
    assert "no runs in runs" in output_of("list")


def pictures(folder: Path, *, size: tuple[int, int], mode: str = "L", labels: tuple[str, ...] = ("cat", "dog")) -> Path:
    rng = np.random.default_rng(0)
    channels = (3,) if mode == "RGB" else ()
    for label in labels:
        (folder / label).mkdir(parents=True, exist_ok=True)
        for i in range(20):
            pixels = rng.integers(0, 256, (size[1], size[0], *channels), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / label / f"{i}.png")
    return folder


@pytest.mark.parametrize(
    ("size", "mode", "expected"),
    [((16, 16), "L", {"size": 16, "colour": "grey"}), ((50, 30), "RGB", {"size": 32, "colour": "rgb"})],
)
def test_a_folder_of_images_becomes_a_config_that_runs(
    tmp_path: Path, size: tuple[int, int], mode: str, expected: dict[str, object]
) -> None:
    pictures(tmp_path / "pets", size=size, mode=mode)
    file = tmp_path / "pets.toml"
    assert "written and checked" in output_of("init", tmp_path / "pets", "-o", file)
    tables = tomllib.loads(file.read_text())
    (dataset,) = tables["datasets"]
    assert {key: dataset[key] for key in expected} == expected
    assert tables["knowledge"][0]["present"] == {"dataset": "pets", "label": "each"}
    assert "ok" in output_of("check", file)
    output_of("run", file, "--dry-run")
    assert "never overwritten" in output_of("init", tmp_path / "pets", "-o", file, status=2)


def test_an_npz_file_has_its_labels_and_characteristics_taken(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays = {
        "T": rng.normal(size=(80, 5)).astype(np.float32),
        "labels.species": np.array(["a", "b"] * 40),
        "labels.id": np.array([str(i) for i in range(80)])[:80],
        "characteristics.mass": rng.normal(size=80),
    }
    np.savez(tmp_path / "mine.npz", **arrays)  # type: ignore[arg-type]
    file = tmp_path / "mine.toml"
    output_of("init", tmp_path / "mine.npz", "-o", file)
    tables = tomllib.loads(file.read_text())
    names = [table["name"] for table in tables["knowledge"]]
    assert names == ["species-{species}"] and tables["knowledge"][0]["observed"] == ["mass"]
    output_of("run", file, "--dry-run")


def test_data_without_labels_has_knowledge_of_all_of_it(tmp_path: Path) -> None:
    np.savez(tmp_path / "plain.npz", T=np.zeros((40, 1, 8, 8), np.uint8))
    output_of("init", tmp_path / "plain.npz", "-o", tmp_path / "plain.toml")
    (knowledge,) = tomllib.loads((tmp_path / "plain.toml").read_text())["knowledge"]
    assert knowledge["present"] == {"dataset": "plain"}


def test_a_table_has_numbers_for_t_and_text_for_labels(tmp_path: Path) -> None:
    pytest.importorskip("tzk_plugin_tables", reason="tables are read by tzk-plugin-tables, which is not installed")
    pytest.importorskip("pandas")
    rng = np.random.default_rng(0)
    rows = [f"{x},{y},{'red' if i % 3 else 'blue'},{i % 2}" for i, (x, y) in enumerate(rng.normal(size=(90, 2)))]
    (tmp_path / "cells.csv").write_text("x,y,colour,flag\n" + "\n".join(rows) + "\n")
    text = output_of("init", tmp_path / "cells.csv", "-o", tmp_path / "cells.toml")
    assert "left out of T" in text and "flag" in text
    tables = tomllib.loads((tmp_path / "cells.toml").read_text())
    assert tables["datasets"][0]["columns"] == ["x", "y"] and tables["datasets"][0]["labels"] == ["colour"]
    output_of("run", tmp_path / "cells.toml", "--dry-run")


@pytest.mark.parametrize(
    ("name", "reason"), [("nothing", "there is no"), ("mine.txt", "is expected to be"), ("empty", "no images")]
)
def test_other_things_are_one_sentence(tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / "mine.txt").write_text("text")
    (tmp_path / "empty").mkdir()
    assert reason in output_of("init", tmp_path / name, "-o", tmp_path / "config.toml", status=2)
    assert not (tmp_path / "config.toml").exists()
