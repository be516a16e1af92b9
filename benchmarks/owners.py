"""What ten thousand knowledge types cost that one, two and four processes divide among them.

    python benchmarks/owners.py [--json] [--rounds N] [--types 10000] [--processes 1 2 4] [--batch-size 64] [--dims 16]
                                [--divided] [--built 300]

The models are those of `many_types.py`: the paper's flow over 32x32 images, and low-rank knowledge types. Each process
has one thread. Models take turns within a round, on the same images: ten types, many that the processes divide, and as
many that all of them have. Ratios are within a round; printed are their median and quartiles, by the clock
and by CPU seconds of the first process.

Bytes are what one process sends in a step, on average. Rows of z go to owners, and their gradients come back. What is
summed goes around a ring, 2 (n - 1) / n times; the least is that of the gradients of the shared flow. Memory is that of
parameters and Adam's moments of knowledge types, and what the whole process gained. Types of other processes are
placeholders, as in a run. Of a process's own, the first --built are built, as registering does, and the others are
copies. With --divided the third model and the checkpoint are left out.
"""

from __future__ import annotations

import argparse
import datetime
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing
from many_types import Labelled, name_of
from timing import CLOCKS, Options, machine, measure, ratios, seconds, spread
from train_step import SHAPE

from tzk_core import TzK, build_flow, build_knowledge
from tzk_core.knowledge import Knowledge
from tzk_core.knowledge.elsewhere import Elsewhere
from tzk_core.objective.owned import owners_of
from tzk_core.storage.clone import copy_around
from tzk_core.training.settings import Settings
from tzk_core.training.trainer import Trainer
from tzk_core.world import World, end_process

FEW = 10
BUILT = 300
PATIENCE = datetime.timedelta(minutes=10)


def resident() -> int:
    """Bytes of this process in memory; 0 where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
    except (OSError, IndexError):
        return 0


def trainer(
    types: int, world: World, *, batch_size: int, dims: int, owners_from: int, built: int
) -> tuple[Trainer, dict[str, float]]:
    """A training of so many types, and the seconds of registering this process's."""
    batches = Labelled(types, batch_size)
    model = TzK(build_flow(SHAPE, "paper", steps=10, tile=16))
    model.flow.initialise(batches.batch(0).T)
    names = [name_of(number) for number in range(types)]
    of = owners_of(names, (), world.size) if owners_from else {}

    def build(name: str) -> Knowledge:
        return build_knowledge("low-rank", model.latent_shape, name=name, dims=dims, rank=2, hidden=8)

    like, made = build("like"), 0
    wall, cpu, took = time.perf_counter(), time.process_time(), (0.0, 0.0)
    for name in names:
        if of.get(name, world.rank) != world.rank:
            model.add(name, Elsewhere(like))
            continue
        if made == built:
            took = (time.perf_counter() - wall, time.process_time() - cpu)
        copied = {key: tensor.clone() for key, tensor in like.state_dict().items()}
        model.add(name, build(name) if made < built else copy_around(like, copied))
        made += 1
    if made <= built:
        took = (time.perf_counter() - wall, time.process_time() - cpu)
    settings = Settings(steps=10**6, batch_size=batch_size, learning_rate=1e-3, compile=False, owners_from=owners_from)
    registered = {"types": min(made, built), "wall_seconds": took[0], "cpu_seconds": took[1]}
    return Trainer(model, batches, settings, world=world), registered


def _work(  # noqa: PLR0917 -- torch.multiprocessing passes them by position
    rank: int, count: int, folder: str, arguments: argparse.Namespace
) -> None:
    torch.set_num_threads(1)
    world = World(rank, count)
    if count > 1:
        meeting = f"file://{folder}/meeting"
        dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=count, timeout=PATIENCE)
    report = measured(world, arguments, Path(folder))
    Path(folder, f"{rank}.json").write_text(json.dumps(report))
    if count > 1:
        dist.destroy_process_group()
        end_process(0)


def measured(world: World, arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """What one process finds; all do the same together."""
    common = {"batch_size": arguments.batch_size, "dims": arguments.dims, "built": arguments.built}
    few, _ = trainer(FEW, world, owners_from=0, **common)
    few.advance()
    before = resident()
    many, registering = trainer(arguments.types, world, owners_from=1, **common)
    many.divide()
    many.advance()
    report: dict[str, Any] = {
        "registered": registering,
        "built": sum(not isinstance(kind, Elsewhere) for _, kind in many.model.named_knowledge()),
        "bytes_of_knowledge": sum(tensor.numel() * tensor.element_size() for tensor in many.parameter_tables.tensors),
        "resident_bytes": resident() - before,
        **bytes_of_a_step(many),
    }
    if not arguments.divided:
        report["checkpoint_seconds"] = checkpoint(many, folder if world.first else None)
    steps = {"few": few.advance, "divided": many.advance}
    if world.size > 1 and not arguments.divided:
        steps["everywhere"] = trainer(arguments.types, world, owners_from=0, **common)[0].advance
    taken = measure(steps, arguments.rounds)
    for name in taken:
        report[name] = {}
        for clock in CLOCKS:
            ratio, quartiles = spread(ratios(taken, name, "few", clock=clock), 3)
            milliseconds = round(1000 * spread(seconds(taken, name, clock), 6)[0], 1)
            report[name][clock] = {"milliseconds": milliseconds, "ratio": ratio, "ratio_quartiles": quartiles}
    if "everywhere" in taken:
        ratio, quartiles = spread(ratios(taken, "everywhere", "divided"), 3)
        report["everywhere_to_divided"] = {"ratio": ratio, "ratio_quartiles": quartiles}
    return report


def bytes_of_a_step(made: Trainer) -> dict[str, float]:
    """What this process sends in a step, averaged over four, and the least."""
    world, steps = made.world, 4
    sent, reduced = world.sent, world.reduced
    for _ in range(steps):
        made.advance()
    ring = 2 * (world.size - 1) / world.size
    rows = (world.sent - sent) / steps
    flow = sum(parameter.numel() * parameter.element_size() for parameter in made.model.flow.parameters())
    return {
        "bytes_of_rows": rows,
        "bytes_summed": ring * (world.reduced - reduced) / steps,
        "bytes_least": ring * flow + rows,
    }


def checkpoint(made: Trainer, folder: Path | None) -> float:
    """The seconds of a checkpoint, by all processes together."""
    began = time.perf_counter()
    made._saves = True  # as within `run`
    made._save(folder)
    made.world.wait()
    return time.perf_counter() - began


def in_processes(count: int, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """What each of so many processes finds."""
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.start_processes(_work, (count, folder, arguments), nprocs=count, start_method="spawn")
        return [json.loads(Path(folder, f"{rank}.json").read_text()) for rank in range(count)]


def main() -> None:
    parser = Options(__doc__, rounds=5, batch_size=64, least=8, threads=False)
    parser.count("--types", default=10_000, help="how many are divided", least=100)
    parser.count("--dims", default=16, help="of z that a knowledge type sees")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4], help="(default: %(default)s)")
    parser.count("--built", default=BUILT, help="of a process's own types, so many are built")
    parser.add_argument("--divided", action="store_true", help="leave out what all processes have, and checkpoints")
    arguments = parser.read()
    found = {count: in_processes(count, arguments) for count in arguments.processes}
    report = {
        "processes": {
            str(count): {
                **ranks[0],
                **{
                    key: [rank[key] for rank in ranks]
                    for key in ("bytes_of_knowledge", "resident_bytes", "built", "bytes_of_rows")
                },
            }
            for count, ranks in found.items()
        },
        "types": arguments.types,
        "rounds": arguments.rounds,
        "batch_size": arguments.batch_size,
        **machine(),
    }
    if arguments.json:
        print(json.dumps(report, indent=2))
        return
    print(f"{report['machine']}, torch {report['torch']}, {report['types']:,} types, batch {report['batch_size']}")
    for count, own in report["processes"].items():
        for clock in CLOCKS:
            step = own["divided"][clock]
            low, high = step["ratio_quartiles"]
            print(
                f"{count} processes: a step {step['milliseconds']:.1f} ms ({clock}), that of {FEW} types times", end=" "
            )
            print(f"{step['ratio']:.2f} ({low:.2f} to {high:.2f})")
        print("  bytes of knowledge by process")
        print("  " + ", ".join(f"{value:,}" for value in own["bytes_of_knowledge"]))
        registered = own["registered"]
        print(f"  registering {registered['types']:,} took {registered['cpu_seconds']:.1f} s of CPU,", end=" ")
        print(f"a checkpoint {own.get('checkpoint_seconds', float('nan')):.1f} s")
        if "everywhere" in own:
            low, high = own["everywhere_to_divided"]["ratio_quartiles"]
            print(f"  where all have all, a step takes {own['everywhere_to_divided']['ratio']:.2f} times as long")
            print(f"  ({low:.2f} to {high:.2f}); a step sends {own['bytes_of_rows'][0]:,.0f} bytes of rows and")
            print(f"  {own['bytes_summed']:,.0f} of sums, {own['bytes_least']:,.0f} being the least for both")


if __name__ == "__main__":
    main()
