"""The one-shot runs are read from a zip in their layout, whatever folder it was made of."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tzk_plugin_omniglot.one_shot_runs import one_shot_runs

CHARACTERS = 4


def picture(number: int) -> bytes:
    """A drawing with dark ink: a bar whose width says which it is."""
    paper = np.full((105, 105), 255, dtype=np.uint8)
    paper[40:60, : 20 * (number + 1)] = 0
    file = io.BytesIO()
    Image.fromarray(paper).convert("1").save(file, "png")
    return file.getvalue()


def write(path: Path, folder: str, answers: dict[str, list[int]]) -> None:
    """Runs with these answers, later ones first, beside what macOS adds to archives."""
    with zipfile.ZipFile(path, "w") as archive:
        for run, own in reversed(answers.items()):
            lines = []
            for item, answer in enumerate(own, start=1):
                names = f"{run}/test/item{item:02}.png", f"{run}/training/class{answer + 1:02}.png"
                lines.append(" ".join(names) + "\n")
                for name in names:
                    archive.writestr(folder + name, picture(answer))
            archive.writestr(f"{folder}{run}/class_labels.txt", "".join(lines))
            archive.writestr(f"__MACOSX/{folder}{run}/._class_labels.txt", b"\0")


@pytest.mark.parametrize("folder", ["", "all_runs/"])
def test_runs_are_read_in_order_with_their_answers(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZK_DATA", str(tmp_path))
    (tmp_path / "omniglot-py").mkdir()
    expected = {"run01": [2, 0, 3, 1], "run02": [1, 3, 2, 0]}
    write(tmp_path / "omniglot-py" / "all_runs.zip", folder, expected)
    runs = list(one_shot_runs(21))
    assert [run.name for run in runs] == list(expected)
    for run in runs:
        assert run.answers.tolist() == expected[run.name]
        assert run.support.shape == run.queries.shape == (CHARACTERS, 1, 21, 21)
        ink = run.support.float().sum((1, 2, 3))
        assert (ink.diff() > 0).all(), "ink is bright, and the classes are in their order"
        assert np.array_equal(run.queries.numpy(), run.support[run.answers].numpy())


def test_without_the_file_there_are_no_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZK_DATA", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert list(one_shot_runs(21)) == []
