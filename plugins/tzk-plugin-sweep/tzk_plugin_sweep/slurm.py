"""Runs as jobs of Slurm, by submitit, an optional dependency."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tzk_core.cli import interrupts
from tzk_core.errors import TzkError
from tzk_plugin_sweep.processes import Job

PAUSE = 1.0
"""Seconds between two looks at the jobs."""

MINUTES = 24 * 60
"""The time limit of a job, unless `timeout_min` says another."""


def submit_all(
    jobs: Sequence[Job], at_once: int, *, folder: Path, parameters: Mapping[str, Any], cluster: str | None = None
) -> Iterator[tuple[Job, int]]:
    """Submit all jobs as one array; yield each as it ends, with its status.

    The status is 1 where Slurm ended it.

    Args:
        at_once: so many at once, at most.
        folder: for submitit's own files.
        parameters: of submitit's `update_parameters`, such as `slurm_partition`.
        cluster: "slurm", or "local" for processes here; by default Slurm where there is one.

    Raises:
        TzkError: if submitit is not installed, or does not take a parameter.
        KeyboardInterrupt: for Ctrl-C, after all jobs were cancelled.
    """
    try:
        import submitit
    except ImportError as error:
        raise TzkError("--launcher submitit needs submitit: pip install 'tzk-plugin-sweep[submitit]'") from error
    try:
        executor = submitit.AutoExecutor(folder=folder, cluster=cluster)
        executor.update_parameters(**{"timeout_min": MINUTES, "slurm_array_parallelism": at_once, **parameters})
    except (TypeError, ValueError, NameError, RuntimeError) as error:
        raise TzkError(f"submitit does not take --slurm {dict(parameters)}: {error}") from error
    submitted: dict[Any, Job] = {}
    with interrupts.deferred() as check:
        try:
            with executor.batch():
                handles = [executor.submit(job.wait) for job in jobs]
            submitted = dict(zip(handles, jobs, strict=True))
            while submitted:
                check()
                ended = [handle for handle in submitted if handle.done()]
                for handle in ended:
                    failed = handle.exception() is not None
                    yield submitted.pop(handle), 1 if failed else handle.result()
                if not ended:
                    time.sleep(PAUSE)
        finally:
            for handle in submitted:
                handle.cancel()
