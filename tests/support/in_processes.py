"""Functions called in several real processes at once, which talk by gloo."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing

from tzk_core.world import World, end_process

PATIENCE = 900
"""Seconds until processes that wait for one another are ended, on however busy a machine."""

FORKED = sys.platform == "linux"
"""Whether processes come from one that has imported torch, which takes each of them seconds otherwise."""

IMPORTED = ["torch._dynamo", "torch.distributed", "torch.multiprocessing", "tzk_core.training.trainer"]
"""What that one imports: what trains, and what torch itself imports once there is an optimiser."""


def in_processes(count: int, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """What function(world, *arguments) returns in each process, by rank; None for one that ends before.

    The function is to be at the top of a module.
    """
    torch.multiprocessing.set_forkserver_preload(IMPORTED)
    method = "forkserver" if FORKED else "spawn"
    with tempfile.TemporaryDirectory() as folder:
        context = torch.multiprocessing.start_processes(
            _call, (Path(folder), count, function, arguments), nprocs=count, join=False, start_method=method
        )
        end = time.monotonic() + PATIENCE
        try:
            while not context.join(timeout=1):  # also false when some have ended
                if time.monotonic() < end:
                    continue
                raise TimeoutError(f"{count} processes did not end within {PATIENCE} seconds")
        finally:
            for process in context.processes:
                process.kill()
        files = [Path(folder) / f"{rank}.pt" for rank in range(count)]
        return [torch.load(file, weights_only=False) if file.exists() else None for file in files]


def _call(  # noqa: PLR0917 -- torch.multiprocessing passes them by position
    rank: int, folder: Path, count: int, function: Callable[..., Any], arguments: tuple[Any, ...]
) -> None:
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = os.environ.get("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=count, timeout=timedelta(seconds=PATIENCE)
    )
    torch.save(function(World(rank, count), *arguments), folder / f"{rank}.pt")
    dist.destroy_process_group()
    end_process(0)
