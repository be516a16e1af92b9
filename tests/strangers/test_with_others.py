"""Plugins that come and go around a run: twenty beside the quickstart, and first-party ones that are uninstalled."""

from __future__ import annotations

import importlib.metadata
import json
import tomllib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w
from commands import tzk
from installed import python
from strange_plugins import BROKEN, REMARKED, Stranger, hook, install_good, install_stranger

from tzk_core.plugins import KnowledgeType, registry
from tzk_core.plugins.registry import _registry

ROOT = Path(__file__).parents[2]
SMALL: dict[str, Any] = {"train": 40, "validation": 10, "test": 20}
TRAINING: dict[str, Any] = {"steps": 2, "batch_size": 32, "initialisation": 32}

Uninstall = Callable[[Sequence[str]], None]


@pytest.fixture
def uninstall(monkeypatch: pytest.MonkeyPatch) -> Iterator[Uninstall]:
    """Function after whose call these distributions are not installed, and all others are; afterwards all are."""
    all_distributions, one = importlib.metadata.distributions, importlib.metadata.distribution

    def without(names: Sequence[str]) -> None:
        def distributions(**options: Any) -> Iterator[importlib.metadata.Distribution]:
            return (each for each in all_distributions(**options) if each.name not in names)

        def distribution(name: str) -> importlib.metadata.Distribution:
            if name in names:
                raise importlib.metadata.PackageNotFoundError(name)
            return one(name)

        monkeypatch.setattr(importlib.metadata, "distributions", distributions)
        monkeypatch.setattr(importlib.metadata, "distribution", distribution)
        _registry.cache_clear()

    yield without
    monkeypatch.undo()
    _registry.cache_clear()


def quickstart() -> dict[str, Any]:
    """The quickstart with all its tables, on a few samples and for two steps."""
    tables = tomllib.loads((ROOT / "examples" / "quickstart.toml").read_text())
    for table in tables["datasets"]:
        table |= SMALL
    tables["training"] |= TRAINING | {"warmup": 1}
    tables["evaluation"]["importance_samples"] = 2
    tables["flow"]["steps"] = 1
    tables["pictures"] = {"draw": []}
    for table in tables["knowledge"]:
        table["steps"] = 1
    return tables


@pytest.mark.slow
def test_twenty_plugins_and_the_broken_ones_leave_the_quickstart_as_it_is(tmp_path: Path, uninstall: Uninstall) -> None:
    """Some offer parts under the very names that the quickstart uses."""
    site = tmp_path / "site"
    site.mkdir()
    for number in range(20):
        install_good(site, number)
    for name, stranger in (BROKEN | REMARKED).items():
        if not stranger.files:
            install_stranger(site, name, stranger)
    (tmp_path / "small.toml").write_text(tomli_w.dumps(quickstart()))
    words = ["run", str(tmp_path / "small.toml"), "--out", str(tmp_path / "among")]
    done = python(site, f"import sys; sys.argv[1:] = {words!r}; from tzk_core.cli import main; main()")
    assert done.returncode == 0, done.stderr
    assert tzk("run", tmp_path / "small.toml", "--out", tmp_path / "alone").exit_code == 0
    among, alone = (json.loads((tmp_path / name / "results.json").read_text()) for name in ("among", "alone"))
    assert among["rows"] == alone["rows"] and among["knowledge"] == alone["knowledge"]
    config = tomllib.loads((tmp_path / "among" / "config.toml").read_text())
    assert config["flow"]["recipe"] == "tzk/paper"
    assert {table["type"] for table in config["knowledge"]} == {"tzk/flow"}
    assert {table["type"] for table in config["datasets"]} == {"tzk/glyph-digits", "tzk/glyph-letters"}


STARS = Stranger(
    hook("return [Dataset('stars', 'stars_of_strangers:Stars', 'letters')]", "tzk_datasets()"), (), name="stars"
)
STARS_MODULE = """
from tzk_core.data.glyphs import GlyphLetters

class Stars(GlyphLetters):
    def __init__(self, train: int = 40, validation: int = 10, test: int = 20, seed: int = 0) -> None:
        super().__init__(train=train, validation=validation, test=test, seed=seed)
"""
GONE = ("tzk-plugin-baselines", "tzk-plugin-kernels", "tzk-stars")


def with_plugins() -> dict[str, Any]:
    """Two data sets, one of them a plugin's, and knowledge of the core's and of a plugin's type."""
    here = {"dataset": "digits"}
    return {
        "name": "with-plugins",
        "plugins": list(GONE),
        "flow": {"steps": 1, "tile": 4},
        "datasets": [{"name": "digits", "type": "glyph-digits", **SMALL}, {"name": "stars", **SMALL}],
        "knowledge": [
            {"name": "digits", "type": "gaussian", "hidden": 8, "present": here},
            {"name": "stars", "type": "gaussian", "hidden": 8, "present": {"dataset": "stars"}},
            {
                "name": "classes",
                "type": "class-conditional",
                "architecture": "nice",
                "steps": 1,
                "hidden": 8,
                "observed": ["label"],
                "present": here,
            },
        ],
        "training": TRAINING,
        "pictures": {"draw": []},
        "evaluation": {
            "importance_samples": 2,
            "partitions": {"sets": ["digits", "stars"]},
            "means": {"one": ["digits"]},
        },
    }


def rows(results: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(row["dataset"], row["name"]): row for row in results["rows"]}


@pytest.mark.slow
def test_what_can_be_evaluated_without_uninstalled_plugins_is_and_the_rest_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uninstall: Uninstall
) -> None:
    installed = {record.distribution for record in registry().plugins if record.state == "ok"}
    if missing := set(GONE[:2]) - installed:
        pytest.skip(f"needs {', '.join(missing)}")
    site = tmp_path / "site"
    site.mkdir()
    install_stranger(site, "stars", STARS)
    (site / "stars_of_strangers.py").write_text(STARS_MODULE)
    monkeypatch.syspath_prepend(str(site))
    uninstall([])
    (tmp_path / "run.toml").write_text(tomli_w.dumps(with_plugins()))
    run = tmp_path / "run"
    made = tzk("run", tmp_path / "run.toml", "--out", run)
    assert made.exit_code == 0, made.output
    whole = json.loads(tzk("eval", run, "--json").stdout)

    uninstall(GONE)
    with pytest.raises(LookupError):
        registry().find(KnowledgeType, "class-conditional")
    evaluated = tzk("eval", run, "--json")
    assert evaluated.exit_code == 0, evaluated.output
    part = json.loads(evaluated.stdout)
    assert set(rows(part)) == {key for key in rows(whole) if key[0] == "digits" and "classes" not in key[1]} - {
        ("digits", "sets")
    }
    for key in (("digits", "prior"), ("digits", "digits")):
        assert rows(part)[key]["bits_per_dim"] == pytest.approx(rows(whole)[key]["bits_per_dim"], rel=1e-6)
    notes = "\n".join(part["notes"])
    assert "Data set 'stars' is left out: it needs tzk-stars 1.0" in notes
    assert "'classes' needs tzk-plugin-baselines 0." in notes
    assert "pip install tzk-plugin-baselines tzk-plugin-kernels tzk-stars" in notes
    assert "the row 'sets' is left out" in notes.lower()
    assert tzk("pack", run, tmp_path / "packed", "--limit", "10").exit_code == 0
    images = tmp_path / "images.npz"
    np.savez(images, T=np.zeros((2, 1, 16, 16), dtype=np.uint8))
    for options in ([], ["--threshold", "0"]):
        scored = tzk("score", run, images, "--json", *options)
        assert scored.exit_code == 0, scored.output
        assert json.loads(scored.stdout)["knowledge"] == ["digits", "stars"]
        assert "not scored: knowledge type 'classes' needs tzk-plugin-baselines" in scored.stderr

    uninstall([])  # installed again: as it was
    assert json.loads(tzk("eval", run, "--json").stdout) == whole
