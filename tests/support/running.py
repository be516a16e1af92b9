"""Programs `tzk` that run in processes of their own, and are watched from outside."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
import torch
from commands import tzk

Value = TypeVar("Value")

PATIENCE = 900
"""Seconds until a program is taken to hang."""

PROC = Path("/proc/self/environ").is_file()
"""Whether ranks can be looked up."""


class Running:
    """A `tzk` that runs in processes of its own."""

    def __init__(self, *words: object) -> None:
        command = [sys.executable, "-m", "tzk_core", *map(str, words)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def rank(self, number: int) -> int:
        """The process id of a rank."""
        wanted = f"RANK={number}".encode()
        return until(
            lambda: next((pid for pid in self._children() if wanted in _environment(pid)), None), f"rank {number}"
        )

    def listening(self, rank: int) -> int:
        """The process id of a rank, once it takes SIGTERM for an interrupt."""
        process = self.rank(rank)
        until(lambda: True if _catches(process, signal.SIGTERM) else None, f"rank {rank} that can be interrupted")
        return process

    def ended(self) -> tuple[int, str, str]:
        """The exit status and what was printed."""
        try:
            out, err = self.process.communicate(timeout=PATIENCE)
        finally:
            self.end()
        return self.process.returncode, out, err

    def end(self) -> None:
        for pid in [*self._children(), self.process.pid]:
            if self.process.poll() is None:
                os.kill(pid, signal.SIGKILL)

    def _children(self) -> list[int]:
        try:
            text = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        except OSError:
            return []
        return [int(pid) for pid in text.split()]


def _environment(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []


def _catches(pid: int, number: int) -> bool:
    """Whether a process has a handler of its own for a signal."""
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return bool(int(lines["SigCgt"], 16) >> (number - 1) & 1)


def until(look: Callable[[], Value | None], what: str) -> Value:
    end = time.monotonic() + PATIENCE
    while (seen := look()) is None:
        if time.monotonic() > end:
            raise TimeoutError(f"{what} did not come within {PATIENCE} seconds")
        time.sleep(0.05)
    return seen


@pytest.fixture
def one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One thread here and in programs that are started, whose sums are then in one order."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def start() -> Iterator[Callable[..., Running]]:
    started: list[Running] = []

    def begin(*words: object) -> Running:
        started.append(Running(*words))
        return started[-1]

    yield begin
    for program in started:
        program.end()


def ended(start: Callable[..., Running], count: int, *words: object) -> tuple[int, str, str]:
    """The exit status of `tzk words`, which works in `count` processes, and what it prints; one is this process."""
    if count > 1:
        return start(*words).ended()
    here = tzk(*words)
    return here.exit_code, here.stdout, here.stderr
