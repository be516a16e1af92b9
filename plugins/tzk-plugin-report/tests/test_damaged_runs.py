"""A run folder whose config or results are not as a run writes them is refused by the file's name."""

from __future__ import annotations

from pathlib import Path

import pytest
from tzk_plugin_report.reading import read_run

from tzk_core.errors import TzkError

SOUND = '[[datasets]]\nname = "d"\n'
CONFIGS = ["", "name = 'x'", "datasets = 5", "datasets = ['a']", "datasets = []", "[datasets]", f"x = {'9' * 5000}"]
RESULTS = [
    "[]",
    '{"rows": 5}',
    '{"rows": [5]}',
    '{"rows": [{}]}',
    '{"rows": [{"kind": 1}]}',
    '{"knowledge": {}}',
    "9" * 5000,
]


def run(folder: Path, config: str = SOUND, results: str = "{}") -> Path:
    (folder / "config.toml").write_text(config)
    (folder / "results.json").write_text(results)
    (folder / "run.json").write_text('{"status": "finished"}')
    return folder


def test_a_sound_one_is_read(tmp_path: Path) -> None:
    assert read_run(run(tmp_path)).datasets == ["d"]


@pytest.mark.parametrize("config", [*CONFIGS, f"x = {'[' * 3000}{']' * 3000}"], ids=lambda text: text[:20])
def test_a_config_without_its_tables(tmp_path: Path, config: str) -> None:
    with pytest.raises(TzkError, match=r"config\.toml"):
        read_run(run(tmp_path, config))


@pytest.mark.parametrize("results", [*RESULTS, "[" * 9000], ids=lambda text: text[:20])
def test_results_of_another_structure(tmp_path: Path, results: str) -> None:
    with pytest.raises(TzkError, match=r"results\.json"):
        read_run(run(tmp_path, results=results))
