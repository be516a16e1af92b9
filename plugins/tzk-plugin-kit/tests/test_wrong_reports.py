"""Every fault of a report that the kit refuses, beside a right one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tzk_core.testing import NotConforming, check_report


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """As much of a finished run as these reports read."""
    (tmp_path / "samples").mkdir()
    (tmp_path / "results.json").write_text("{}")
    return tmp_path


def right(folder: Path, experiment: Any = None) -> Path:
    file = folder / "samples" / "mine.txt"
    file.write_text((folder / "results.json").read_text())
    return file


def raises(folder: Path, experiment: Any = None) -> Path:
    raise ValueError("no results")


def needs_the_experiment(folder: Path, experiment: Any = None) -> Path:
    (folder / "mine.txt").write_text(str(experiment.step))
    return folder / "mine.txt"


def text(folder: Path, experiment: Any = None) -> str:
    return str(right(folder))


def elsewhere(folder: Path, experiment: Any = None) -> Path:
    file = folder.parent / "mine.txt"
    file.write_text("x")
    return file


def nothing(folder: Path, experiment: Any = None) -> Path:
    return folder / "mine.txt"


def changes_results(folder: Path, experiment: Any = None) -> Path:
    (folder / "results.json").write_text("{} ")
    return right(folder)


def another_each_time(folder: Path, experiment: Any = None) -> Path:
    file = folder / f"mine-{len(list(folder.iterdir()))}.txt"
    file.write_text("x")
    return file


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (raises, "raises should raise nothing; it raised ValueError: no results"),
        (needs_the_experiment, "should raise nothing; it raised AttributeError"),
        (text, "should return the Path of its file; got str"),
        (elsewhere, "should write into the folder of the run"),
        (nothing, "should have written .*mine.txt; there is no such file"),
        (changes_results, "should leave the other files of the run as they are; it changed results.json"),
        (another_each_time, "should write the same file in the same folder; it wrote mine-2.txt, then mine-3.txt"),
    ],
)
def test_a_wrong_report_is_refused(run: Path, write: Any, words: str) -> None:
    with pytest.raises(NotConforming, match=words):
        check_report(write, run)


def test_a_right_report_passes_and_the_run_stays_as_it_is(run: Path) -> None:
    assert check_report(right, run) == "samples/mine.txt"
    assert sorted(path.name for path in run.rglob("*")) == ["results.json", "samples"]
