"""What is shown of progress, and how Ctrl-C ends a command."""

from __future__ import annotations

import signal
import sys

import pytest

from tzk_core.cli import interrupts, progress
from tzk_core.training.observers import Progress, Start
from tzk_core.training.progress import lines

# --- progress ---


def test_lines_come_now_and_then():
    said: list[float] = []
    clock = iter([0.0, 1.0, 10.5, 11.0, 12.0])
    show = lines(lambda: next(clock), say=said.append)
    for step in (1, 2, 3, 4, 5):
        show(Progress(step, 5, 9.0, 61.0, {"a": 1.25}))
    assert said == [f"step {step} of 5, 1:01 left, bits/dim a 1.250" for step in (1, 3, 5)]


def test_what_compiling_took_is_printed_where_nothing_is_known_of_other_steps():
    said: list[str] = []
    lines(lambda: 0.0, say=said.append)(Progress(1, 5, 90.0, 0.0, {"a": 1.25}, compiled=83.0))
    assert said == ["step 1 of 5, compiled in 1:23, bits/dim a 1.250"]


def test_on_a_terminal_there_is_a_bar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with progress.shown() as (line,):
        line.on_start(Start(0, 5, None, {}))
        line.on_step(Progress(5, 5, 9.0, 0.0, {"a": 1.25}))
    bar = capsys.readouterr().err
    assert "100%" in bar
    assert "5/5" in bar
    assert "bits/dim a 1.250" in bar


@pytest.mark.parametrize("columns", [60, 80, 120, 200])
def test_a_bar_has_validation_however_narrow_the_terminal_is(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", str(columns))
    sets = {"digits": 2.0, "letters": 3.0}
    now = Progress(800, 800, 9.0, 61.0, sets, validation=sets, best=250, steps_per_second=2.34, memory=850e6)
    with progress.shown() as (line,):
        line.on_start(Start(0, 800, None, {}))
        line.on_step(now)
    bar = capsys.readouterr().err.split("\r")[-1].rstrip()
    assert len(bar) <= columns
    assert "1:01 left" in bar
    assert columns < 80 or ("/s, " in bar and "0.85 GB" in bar)
    assert "validation digits 2.000, letters 3.000 (best at step 250)" in bar or "validation 2.500" in bar


# --- Ctrl-C ---


def test_an_interrupt_waits_for_the_end_of_a_step():
    before = signal.getsignal(signal.SIGINT)  # tests that run in the background are started with SIGINT ignored
    with pytest.raises(KeyboardInterrupt), interrupts.deferred() as check:
        check()
        signal.raise_signal(signal.SIGINT)
        reached = True
        check()
    assert reached
    assert signal.getsignal(signal.SIGINT) is before


def test_a_second_interrupt_does_not_wait():
    with pytest.raises(KeyboardInterrupt), interrupts.deferred():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        pytest.fail("the second interrupt was put off as well")
