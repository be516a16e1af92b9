"""Runs as processes side by side on this machine, one thread each."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tzk_core.cli import interrupts
from tzk_core.runs.folder import RunFolder

PAUSE = 0.05
"""Seconds between two looks at the processes."""

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True)
class Job:
    """One run to do: its folder, and the config and overrides of `tzk run`."""

    folder: Path
    config: Path
    overrides: tuple[str, ...]

    @property
    def log(self) -> Path:
        """What the run prints."""
        return self.folder.with_name(f"{self.folder.name}.log")

    @property
    def words(self) -> list[str]:
        """The arguments of `tzk`: a run that was interrupted is resumed."""
        if RunFolder(self.folder).record.is_file():
            return ["run", str(self.folder), "--resume", "--quiet"]
        return ["run", str(self.config), *self.overrides, "--out", str(self.folder), "--quiet"]

    def start(self) -> subprocess.Popen[bytes]:
        """Start it in a process group of its own: Ctrl-C reaches it through the sweep."""
        environment = os.environ | dict.fromkeys(THREADS, "1")
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            command = [sys.executable, "-m", "tzk_core", *self.words]
            return subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, process_group=0
            )

    def wait(self) -> int:
        """Do it in this process's turn; its exit status."""
        return self.start().wait()

    def failure(self, status: int) -> str:
        """Why it failed, by the last error that it printed."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines() if self.log.exists() else []
        said = next((line.removeprefix("error: ") for line in reversed(lines) if line.startswith("error: ")), "")
        how = f"signal {-status}" if status < 0 else f"exit status {status}"
        return said or f"it ended with {how}; see {self.log}"


def run_all(jobs: Sequence[Job], at_once: int) -> Iterator[tuple[Job, int]]:
    """Yield each job as it ends, with its status; a failure ends no other.

    Raises:
        KeyboardInterrupt: for Ctrl-C, SIGTERM and SIGHUP, once all processes have ended: each writes a checkpoint. A
            second signal kills them.
    """
    waiting, running = deque(jobs), dict[subprocess.Popen[bytes], Job]()
    with interrupts.deferred() as check:
        try:
            while waiting or running:
                check()
                while waiting and len(running) < at_once:
                    job = waiting.popleft()
                    running[job.start()] = job
                ended = [process for process in running if process.poll() is not None]
                for process in ended:
                    yield running.pop(process), process.returncode
                if not ended:
                    time.sleep(PAUSE)
        finally:
            _end(running)


def _end(running: dict[subprocess.Popen[bytes], Job]) -> None:
    """Interrupt all processes and wait for them; kill them if this is interrupted again."""
    try:
        for process in running:
            _signal(process, signal.SIGINT)
        for process in running:
            process.wait()
    except BaseException:
        for process in running:
            _signal(process, signal.SIGKILL)
        raise


def _signal(process: subprocess.Popen[bytes], number: int) -> None:
    with suppress(ProcessLookupError):
        if process.poll() is None:
            os.killpg(process.pid, number)
