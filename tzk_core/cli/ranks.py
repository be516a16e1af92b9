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
    with _said_once(silent), _silence(silent), joined() as world, _ending_together() as ended:
        yield world
    for end in ended:
        if launched() and end.exit_code:
            _record("", status=end.exit_code)
        raise end


@contextmanager
def _said_once(silent: bool) -> Iterator[None]:  # noqa: FBT001 -- the only argument
    """Within the block, one process says an error or an interrupt; see `taking_part`."""
    try:
        yield
    except click.exceptions.Exit:
        raise
    except KeyboardInterrupt as interrupt:
        if silent or launched():
            raise click.exceptions.Exit(interrupts.status(interrupt)) from interrupt
        raise
    except Exception as error:
        if not numbered():
            raise
        message, status = edge.sentence(error)
        _record(message, error)
        if silent or launched():
            raise click.exceptions.Exit(status) from error
        raise


@contextmanager
def _ending_together() -> Iterator[list[click.exceptions.Exit]]:
    """Hold back an exit from the block, which all processes take.

    An interrupt is one process's own.
    """
    ended: list[click.exceptions.Exit] = []
    try:
        yield ended
    except click.exceptions.Exit as end:
        if end.exit_code in INTERRUPTS:
            raise
        ended.append(end)


def processes_option(command: Any) -> Any:
    """The option `--processes`, of a command that `launched_again` starts in several."""
    option = click.option(
        "--processes", type=click.IntRange(min=1), metavar="N", help="Work in so many processes here."
    )
    return option(command)


def launched_again(ctx: click.Context, folder: Path, *, advice: str) -> None:
    """Start a command in the processes of its option, and end with them.

    It returns in a process that is to work itself.

    Args:
        folder: of the run.
        advice: as of `launch`.

    Raises:
        KeyboardInterrupt: if the processes were interrupted.
    """
    processes = ctx.params["processes"] or 1
    if not launches(processes):
        return
    status = launch([ctx.command.name or "", *_words(ctx)], processes, folder, advice=advice)
    if status in INTERRUPTS:
        raise interrupts.Stopped(status - 128)
    ctx.exit(status)


def _words(ctx: click.Context) -> list[str]:
    """The arguments of a command as they can be typed again, but for `--processes`."""
    words, last = [], []
    for parameter in ctx.command.params:
        value = ctx.params.get(parameter.name or "")
        if isinstance(parameter, click.Argument):
            last += [str(value)]
        elif parameter.name == "processes" or value is None:
            continue
        elif isinstance(parameter, click.Option) and parameter.is_flag:
            words += [parameter.opts[0]] if value else []
        else:
            values = value if parameter.multiple else [value]
            words += [word for each in values for word in (parameter.opts[0], str(each))]
    return [*words, "--", *last]


def launch(words: Sequence[str], processes: int, folder: Path, *, advice: str) -> int:
    """Run `tzk` with these arguments in several processes of this machine, by torch's elastic launcher.

    Args:
        folder: that the run has, or is to have.
        advice: what to do after a process was killed.

    Returns:
        The exit status; an interrupt is one, as of one process.

    Raises:
        TzkError: of the process that failed first.
    """
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException  # torch
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    for name in logging.root.manager.loggerDict:
        if name.startswith("torch.distributed.elastic"):  # each has a level of its own
            logging.getLogger(name).setLevel(logging.CRITICAL)  # the sentence is said here
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
    """The exit status after processes failed, by rank.

    It is that of an interrupt, or of a process that said all itself. Else the error of the first one is raised.
    """
    recorded = {rank: _recorded(failure) for rank, failure in failures.items()}
    own = [rank for rank in failures if not recorded[rank].get("lost")] or list(failures)
    if any(failures[rank].exitcode in INTERRUPTS for rank in own):  # the launcher then ends the others by SIGTERM
        own = [rank for rank in own if failures[rank].exitcode != -signal.SIGTERM]
    rank = min(own, key=lambda rank: (failures[rank].exitcode in INTERRUPTS, failures[rank].timestamp))
    exit_status = failures[rank].exitcode
    if exit_status in INTERRUPTS:
        return exit_status
    if "status" in recorded[rank]:
        return int(recorded[rank]["status"])
    if "message" in recorded[rank]:
        raise TzkError(recorded[rank]["message"])
    how = failures[rank].signal_name() if exit_status < 0 else f"exit status {exit_status}"
    raise TzkError(
        f"process {rank} of the {processes} of this command ended by itself ({how}), and with it all others. {advice}"
    )


def _recorded(failure: Any) -> Mapping[str, Any]:
    """What `_record` wrote of a process; nothing if it did not come to that."""
    message = failure.error_file_data.get("message")
    return {"message": message["message"], **message["extraInfo"]} if isinstance(message, dict) else {}


def _record(message: str, error: Exception | None = None, *, status: int | None = None) -> None:
    """Write the sentence of an error where torch's launcher looks for it.

    It has the launcher's format.

    Args:
        status: of a process that ends with it, and has said why.
    """
    file = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if file is None:
        return
    lost = isinstance(error, Lost) or isinstance(error and error.__cause__, Lost)
    extra: dict[str, Any] = {"py_callstack": traceback.format_exc(), "timestamp": str(int(time.time())), "lost": lost}
    if status is not None:
        extra["status"] = status
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
