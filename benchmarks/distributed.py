"""The time of a training step in several processes of this machine.

It is compared with one process that has as many threads.

    python benchmarks/distributed.py [--json] [--rounds N] [--example joint|joint-glow-cpu] [--batch-size 64]
                                     [--processes N] [--owners-from auto]

Each of the processes has its share of torch's threads. All train the same model of the example on the same batches of
made-up images, and the objectives of the first steps are compared. Then both ways take turns within a round, and ratios
are taken within a round: printed are their median and quartiles, by the clock. CPU seconds of a step, of the one
process and of each of the others, tell more where other programs run; those of threads that wait count too. Bytes are
those of the tensors that a step sums over the processes, beside the least it could: the gradients of the shared flow. A
ring sends them 2 (n - 1) / n times from each of n processes. Rows of z that go to owners of knowledge types, and their
gradients, are counted by themselves; `--owners-from 0` has all types in all processes. joint-glow-cpu needs
tzk-plugin-glow.
"""

from __future__ import annotations

import datetime
import json
import os
import statistics
import tempfile
import time
import tomllib
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

import torch
import torch.distributed as dist
import torch.multiprocessing
from timing import Options, machine, measure, of_two, seconds
from train_step import NAMES, SHAPE, Made, perturbed_model

from tzk_core import TzK, build_flow, build_knowledge
from tzk_core.training.settings import Settings
from tzk_core.training.trainer import Trainer
from tzk_core.world import ALONE, World, end_process

EXAMPLE = Path(__file__).parents[1] / "examples" / "joint-glow-cpu.toml"
CHECKED = 3
"""Over as many first steps the objectives are compared."""
PATIENCE = datetime.timedelta(minutes=10)


def trainer(
    example: str,
    batch_size: int,
    *,
    world: World = ALONE,
    flow: dict[str, Any] | None = None,
    owners_from: int | Literal["auto"] = "auto",
) -> Trainer:
    """The example's model on made-up images, the same in every process.

    `flow` replaces the flow of joint-glow-cpu's; `owners_from` is that of [training].
    """
    batches = Made(batch_size)
    common: dict[str, Any] = {"steps": 10**6, "batch_size": batch_size, "compile": False, "owners_from": owners_from}
    if example == "joint":
        return Trainer(perturbed_model(batches), batches, Settings(**common, learning_rate=1e-3), world=world)
    config = tomllib.loads(EXAMPLE.read_text())
    structure = {key: config["knowledge"][0][key] for key in ("dims", "rank", "hidden")}
    model = TzK(build_flow(SHAPE, **(flow or config["flow"])))
    for name in NAMES:
        model.add(name, build_knowledge("low-rank", model.latent_shape, name=name, **structure))
    model.flow.initialise(batches.batch(0).T)
    training = {key: config["training"][key] for key in ("optimizer", "clip")}
    return Trainer(
        model, batches, Settings(**common, emphasis=config["objective"]["emphasis"], **training), world=world
    )


class Several:
    """The same training in `count` processes, which take a step when they are told.

    cpu: CPU seconds of every step so far, by process.
    """

    def __init__(self, count: int, threads: int, arguments: tuple[Any, ...]) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self.cpu: list[list[float]] = []
        pairs = [torch.multiprocessing.get_context("spawn").Pipe() for _ in range(count)]
        self._connections = [ours for ours, _ in pairs]
        theirs = [connection for _, connection in pairs]
        self._processes = torch.multiprocessing.start_processes(
            _work, (theirs, threads, self._folder.name, arguments), nprocs=count, join=False, start_method="spawn"
        )

    def step(self) -> tuple[float, int, int]:
        """The objective of a step, the bytes that it summed, and those of rows."""
        for connection in self._connections:
            connection.send("step")
        answers = [connection.recv() for connection in self._connections]
        self.cpu.append([seconds for _, seconds in answers])
        return answers[0][0]

    def close(self) -> None:
        for connection in self._connections:
            connection.send(None)
        for process in self._processes.processes:
            process.join(PATIENCE.total_seconds())
        self._folder.cleanup()


def _work(  # noqa: PLR0917 -- torch.multiprocessing passes them by position
    rank: int, connections: list[Connection], threads: int, folder: str, arguments: tuple[Any, ...]
) -> None:
    torch.set_num_threads(threads)
    meeting = f"file://{folder}/meeting"
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=len(connections), timeout=PATIENCE)
    example, batch_size, flow, owners_from = arguments
    world = World(rank, len(connections))
    made = trainer(example, batch_size, world=world, flow=flow, owners_from=owners_from)
    made.divide()
    while connections[rank].recv():
        before, began = (world.reduced, world.sent), time.process_time()
        value = made.advance().value.item()
        seconds = time.process_time() - began
        connections[rank].send(((value, world.reduced - before[0], world.sent - before[1]), seconds))
    dist.destroy_process_group()
    end_process(0)


def compared(several: Several, one: Trainer) -> dict[str, float]:
    """The largest relative difference of the first steps' objectives, and bytes of a step."""
    pairs = [(several.step(), one.advance().value.item()) for _ in range(CHECKED)]
    flow = sum(p.numel() * p.element_size() for p in one.model.flow.parameters() if p.requires_grad)
    return {
        "difference": max(abs(there[0] / here - 1) for there, here in pairs),
        "bytes": pairs[-1][0][1],
        "bytes_of_rows": pairs[-1][0][2],
        "bytes_of_flow": flow,
    }


def main() -> None:
    parser = Options(__doc__, rounds=10, batch_size=64, least=64, threads=False)
    parser.add_argument("--example", choices=("joint", "joint-glow-cpu"), default="joint-glow-cpu")
    parser.add_argument("--owners-from", default="auto", help="as in [training] (default: %(default)s)")
    parser.count("--processes", default=os.cpu_count(), help="at least 2", least=2)
    arguments = parser.read()
    threads = torch.get_num_threads()
    one = trainer(arguments.example, arguments.batch_size)
    least = "auto" if arguments.owners_from == "auto" else int(arguments.owners_from)
    several = Several(
        arguments.processes,
        max(1, threads // arguments.processes),
        (arguments.example, arguments.batch_size, None, least),
    )
    try:
        found = compared(several, one)
        turns: dict[str, Callable[[], Any]] = {"one": one.advance, "several": several.step}
        taken = measure(turns, arguments.rounds)
    finally:
        several.close()
    report = {
        "example": arguments.example,
        **of_two(taken, "several", "one")["wall"],
        "one_cpu_milliseconds": round(1000 * statistics.median(seconds(taken, "one", "cpu")), 1),
        "several_cpu_milliseconds": [
            round(1000 * statistics.median(own), 1) for own in zip(*several.cpu[CHECKED:], strict=True)
        ],
        "processes": arguments.processes,
        "owners_from": least,
        **found,
        "rounds": arguments.rounds,
        "batch_size": arguments.batch_size,
        **machine(),
    }
    if arguments.json:
        print(json.dumps(report, indent=2))
        return
    low, high = report["ratio_quartiles"]
    print(
        f"{report['machine']}, torch {report['torch']}, {report['threads']} threads in all, "
        f"batch {arguments.batch_size}"
    )
    print(f"one process        {report['one_milliseconds']:>8.1f} ms")
    print(f"{report['processes']} processes        {report['several_milliseconds']:>8.1f} ms")
    print(f"ratio {report['ratio']:.2f}, quartiles {low:.2f} to {high:.2f}")
    each = ", ".join(f"{own:.1f}" for own in report["several_cpu_milliseconds"])
    print(f"CPU of one process {report['one_cpu_milliseconds']:.1f} ms, of each of the others {each}")
    print(f"a step sums {report['bytes']:,} bytes; the gradients of the shared flow have {report['bytes_of_flow']:,}")
    print(f"rows of z and their gradients, to owners of knowledge types and back, have {report['bytes_of_rows']:,}")
    print(f"the objectives of {CHECKED} steps differ by {report['difference']:.0e} at most, relatively")


if __name__ == "__main__":
    main()
