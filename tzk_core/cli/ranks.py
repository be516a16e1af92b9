"""Commands that run in several processes, silent but for the first.

They are started on this machine, or by torchrun.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import tempfile
import time
import traceback
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import click

from tzk_core.cli import edge, interrupts
from tzk_core.errors import TzkError
from tzk_core.world import RESTARTS, Lost, World, joined, numbered

FOLDER = "TZK_RUN_FOLDER"
"""Environment variable by which `launch` tells the processes that it starts which folder the run has."""

SHUTDOWN = "TORCH_ELASTIC_SHUTDOWN_TIMEOUT"
"""Seconds that torch's launcher waits for processes that it has interrupted."""

LONGEST_SHUTDOWN = "600"
"""Seconds in which the longest step and its checkpoint are to be done."""

INTERRUPTS = (interrupts.INTERRUPTED, *(128 + number for number in interrupts.WARNINGS))
"""Exit statuses of processes that have been interrupted, and have said so."""


def launched() -> Path | None:
    """The folder of the run, if `launch` has started this process."""
    return Path(os.environ[FOLDER]) if FOLDER in os.environ and numbered() else None


def goes_on(out: Path | None) -> bool:
    """Whether this is a restart by torchrun of a run that has begun.

    torchrun starts the processes of a run again after one has failed.

    Raises:
        TzkError: if nobody said which folder it has.
    """
    if not numbered() or os.environ.get(RESTARTS, "0") == "0":
        return False
    if out is None:
        raise TzkError("started again by torchrun, but the folder of the run has no name: give it one with --out")
    return (out / "run.json").is_file()


def launches(processes: int) -> bool:
    """Whether a command is to start its processes, and is none of them itself."""
    return processes > 1 and not numbered()


@contextmanager
def taking_part() -> Iterator[World]:
    """The processes that a command runs in, within its block.

    All but the first are silent.

    The sentence of an error is printed once: by the first process, or by the program that has started them all. Torch's
    launcher gets it from every process.
    """
    silent = os.environ.get("RANK", "0") != "0" and not edge.debugging()
    try:
        with _silence(silent), joined() as world:
            yield world
    except click.exceptions.Exit:
        raise
    except Exception as error:
        if not numbered():
            raise
        message, status = edge.sentence(error)
        _record(error, message)
        if silent or launched():
            raise click.exceptions.Exit(status) from error
        raise


def launch(words: Sequence[str], processes: int, folder: Path, *, advice: str) -> int:
    """Run `tzk` with these arguments in several processes of this machine, by torch's elastic launcher.

    Args:
        folder: that the run is to have.
        advice: what to do after a process was killed.

    Returns:
        The exit status; an interrupt is one, as of one process.

    Raises:
        TzkError: of the process that failed first.
    """
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException  # torch
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # the sentence is said here
    os.environ |= {FOLDER: str(folder)}
    os.environ.setdefault(SHUTDOWN, LONGEST_SHUTDOWN)
    os.environ.setdefault("OMP_NUM_THREADS", str(_threads(processes)))
    with tempfile.TemporaryDirectory(prefix="tzk-") as logs:
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=processes,
            logs_specs=DefaultLogsSpecs(log_dir=logs),
            run_id=uuid.uuid4().hex,
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            local_addr="localhost",
            max_restarts=0,
        )
        try:
            elastic_launch(config, sys.executable)("-m", "tzk_core", *words)
        except SignalException as stopped:
            return 128 + int(stopped.sigval)
        except ChildFailedError as error:
            return _status(error.failures, processes, advice)
        finally:
            del os.environ[FOLDER]
    return 0


def _status(failures: Mapping[int, Any], processes: int, advice: str) -> int:
    """The exit status after processes failed, by rank, if that is an interrupt.

    Else the error of the first one is raised.
    """
    recorded = {rank: _recorded(failure) for rank, failure in failures.items()}
    own = [rank for rank in failures if not recorded[rank].get("lost")] or list(failures)
    if any(failures[rank].exitcode in INTERRUPTS for rank in own):  # the launcher then ends the others by SIGTERM
        own = [rank for rank in own if failures[rank].exitcode != -signal.SIGTERM]
    rank = min(own, key=lambda rank: (failures[rank].exitcode in INTERRUPTS, failures[rank].timestamp))
    exit_status = failures[rank].exitcode
    if exit_status in INTERRUPTS:
        return exit_status
    if "message" in recorded[rank]:
        raise TzkError(recorded[rank]["message"])
    how = failures[rank].signal_name() if exit_status < 0 else f"exit status {exit_status}"
    raise TzkError(
        f"process {rank} of the {processes} of this training ended by itself ({how}), and with it all others. {advice}"
    )


def _recorded(failure: Any) -> Mapping[str, Any]:
    """What `_record` wrote of a process; nothing if it did not come to that."""
    message = failure.error_file_data.get("message")
    return {"message": message["message"], **message["extraInfo"]} if isinstance(message, dict) else {}


def _record(error: Exception, message: str) -> None:
    """Write the sentence of an error where torch's launcher looks for it.

    It has the launcher's format.
    """
    file = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if file is None:
        return
    lost = isinstance(error, Lost) or isinstance(error.__cause__, Lost)
    extra = {"py_callstack": traceback.format_exc(), "timestamp": str(int(time.time())), "lost": lost}
    with open(file, "w", encoding="utf-8") as out:
        json.dump({"message": {"message": message, "extraInfo": extra}}, out)


def _threads(processes: int) -> int:
    import torch

    return max(1, torch.get_num_threads() // processes)


@contextmanager
def _silence(silent: bool) -> Iterator[None]:  # noqa: FBT001 -- the only argument
    """Within the block, nothing is printed if `silent`."""
    if not silent:
        yield
        return
    with open(os.devnull, "w", encoding="utf-8") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        yield
