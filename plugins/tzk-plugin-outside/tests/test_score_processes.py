"""`tzk score` in several real processes: one file, that of one process, or none."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from digit_runs import digits_run
from PIL import Image
from running import PROC, Running, ended, one_thread, start
from tzk_plugin_outside.calibration import STORED

from tzk_core.data.glyphs import GlyphDigits

__all__ = ["one_thread", "start"]  # fixtures

COUNT = 600
"""Images: two batches and a part of one."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return digits_run(tmp_path_factory.mktemp("runs"), train=300, validation=300, steps=4)


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_several_processes_write_what_one_does(run: Path, tmp_path: Path, start: Callable[..., Running]) -> None:
    """To the byte: scores, the threshold that they chose together, and what could not be read."""
    images = tmp_path / "images"
    images.mkdir()
    for number, image in enumerate(GlyphDigits(test=COUNT).split("test").T):
        Image.fromarray(image[0].numpy()).save(images / f"{number}.png")
    for number in (3, 300):
        (images / f"{number}.png").write_text("no image")
    written = []
    for count in (1, 2, 3):
        (run / STORED).unlink(missing_ok=True)
        file = tmp_path / f"in-{count}.csv"
        words = ["score", run, images, "--csv", file, "--json", "--processes", count]
        status, out, err = ended(start, count, *words)
        assert status == 1 and err.count("error: ") == 2 and "3.png" in err and "300.png" in err, err
        written.append((file.read_bytes(), out, err, (run / STORED).read_bytes()))
    assert written[0][0].count(b"\n") == 1 + COUNT - 2
    assert written[1] == written[0] and written[2] == written[0]


@pytest.mark.skipif(not PROC, reason="ranks are looked up in /proc")
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_process_that_ends_leaves_no_file(
    run: Path, tmp_path: Path, start: Callable[..., Running], number: signal.Signals
) -> None:
    """Two are killed, or asked to end, within minutes of work; Ctrl-C reaches the program that started them."""
    T = GlyphDigits(test=COUNT).split("test").T.numpy()
    np.savez(tmp_path / "many.npz", T=np.concatenate([T] * 60))
    program = start("score", run, tmp_path / "many.npz", "--csv", tmp_path / "scores.csv", "--processes", 2)
    rank = program.listening(1)
    os.kill(program.process.pid if number == signal.SIGINT else rank, number)
    status, out, err = program.ended()
    if number == signal.SIGKILL:
        assert status == 2 and err.strip() == (
            "error: process 1 of the 2 of this command ended by itself (SIGKILL), and with it all others. "
            "Nothing was written"
        )
    else:
        word = "interrupted" if number == signal.SIGINT else "interrupted by SIGTERM"
        assert status == 128 + number and err.split() == word.split(), err
    assert out == "" and [file.name for file in tmp_path.iterdir()] == ["many.npz"]


@pytest.mark.slow
def test_an_error_of_one_process_is_said_once(run: Path, tmp_path: Path, start: Callable[..., Running]) -> None:
    """The row is of the second process, and the sentence is that of one process."""
    T = np.random.default_rng(0).uniform(0.2, 0.8, (COUNT, 1, 16, 16)).astype(np.float32)
    T[260] = 3.0
    np.savez(tmp_path / "far.npz", T=T)
    status, out, err = start("score", run, tmp_path / "far.npz", "--processes", 2).ended()
    assert status == 2 and out == "" and err.count("error: ") == 1, err
    assert "outside the domain of the flow, first in row 260" in err
