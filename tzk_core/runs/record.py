"""run.json: what is needed to know, later, how a run came about."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tzk_core.config import Config
from tzk_core.plugins import registry
from tzk_core.version import DISTRIBUTION, installed_version

PACKAGES = (DISTRIBUTION, "torch", "torchvision", "nflows", "numpy", "safetensors", "pluggy", "pydantic")


def new_record(config: Config, device: str, command: str) -> dict[str, Any]:
    """The record of a run that begins now.

    Args:
        device: the device that was chosen, also where the config says "auto".
    """
    import torch  # after the config was checked

    from tzk_core.implementations import offers

    return {
        "format": 1,
        "name": config.name,
        "status": "running",
        "command": command,
        "started": now(),
        "seed": config.seed,
        "device": device,
        "dtype": config.dtype,
        "threads": torch.get_num_threads(),
        "versions": {"python": platform.python_version(), **{name: installed_version(name) for name in PACKAGES}},
        "plugins": [
            {"name": plugin.name, "distribution": plugin.distribution, "version": plugin.version}
            for plugin in registry().plugins
            if plugin.state == "ok"
        ],
        "implementations": [offer.described() for offer in offers()],
        "git": git_state(Path.cwd()),
        "hardware": hardware(),
        "timings": {},
        "sessions": [],
    }


def begin_session(record: dict[str, Any], command: str, *, processes: int = 1) -> None:
    """Note that the run begins or goes on; if in several processes, in how many."""
    record["status"] = "running"
    several = {"processes": processes} if processes > 1 else {}
    record.setdefault("sessions", []).append({"command": command, "started": now(), **several})


def record_validation(record: dict[str, Any], every: int, samples: dict[str, int]) -> None:
    """Note what the training is validated on.

    Args:
        every: the number of steps between validations.
        samples: by data set, how many samples; 0 where it has no validation split.
    """
    without = [name for name, count in samples.items() if not count]
    record["validation"] = {"every": every, "samples": samples, "without": without}


def record_divergence(record: dict[str, Any], step: int, reason: str, *, back: int | None, best: int | None) -> None:
    """Note where a training diverged.

    Args:
        back: the step that the last checkpoint has now.
        best: the step that the best checkpoint has now.
    """
    record["status"] = "diverged"
    record["diverged"] = {"step": step, "reason": reason, "checkpoint_step": back, "best_step": best}


def add_seconds(record: dict[str, Any], part: str, seconds: float) -> None:
    """Add to the time of a part of the run, over all its sessions."""
    timings = record.setdefault("timings", {})
    timings[f"{part}_seconds"] = round(timings.get(f"{part}_seconds", 0.0) + seconds, 3)


def record_compilation(record: dict[str, Any], compilation: dict[str, Any] | None) -> None:
    """Note in the current session whether its steps were compiled.

    With it goes how long that took, or why they were not.
    """
    record["sessions"][-1]["compiled"] = compilation
    if compilation and "seconds" in compilation:
        add_seconds(record, "compilation", compilation["seconds"])


@contextmanager
def timed(record: dict[str, Any], part: str) -> Iterator[None]:
    """Adds the time that its block takes to the record, however the block ends."""
    began = time.monotonic()
    try:
        yield
    finally:
        add_seconds(record, part, time.monotonic() - began)


def git_state(folder: Path) -> dict[str, Any] | None:
    """The commit that is checked out, and whether files differ from it.

    Returns:
        None outside of a repository.
    """
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        return {"commit": commit, "dirty": bool(_git(folder, "status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()


def hardware() -> dict[str, Any]:
    """The machine: system, processor, cores, CUDA devices."""
    import torch

    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "system": platform.system(),
        "machine": platform.machine(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "accelerators": devices,
    }


def _processor() -> str:
    """The processor's model; Linux has it only here."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def now() -> str:
    """The time, with its zone, as run.json has it."""
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")
