"""How long a training step of `examples/joint-glow-cpu.toml` takes in one process, against several.

    python benchmarks/processes.py [--json] [--rounds N] [--batch-size 64] [--processes N]

One process has all of torch's threads, and several share them; the same model sees the same batches of made-up images.
The objectives of the first steps are compared. Then both take turns within a round, and ratios are taken within a
round: printed are their median and quartiles, by the clock. Needs tzk-plugin-glow.
"""

from __future__ import annotations

import copy
import json
import os
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from timing import Options, machine, measure, of_two
from train_step import NAMES, SHAPE, Made

from tzk_core import TzK, TzkError, build_flow, build_knowledge
from tzk_core.training.settings import Settings
from tzk_core.training.trainer import Trainer

EXAMPLE = Path(__file__).parents[1] / "examples" / "joint-glow-cpu.toml"
CHECKED = 3
"""Over as many first steps the objectives are compared."""


def trainers(batch_size: int, processes: int, flow: dict[str, Any] | None = None) -> dict[str, Trainer]:
    """Trainers of the example's model, or of one with another flow, in "one" process and in "several"."""
    config = tomllib.loads(EXAMPLE.read_text())
    structure = {key: config["knowledge"][0][key] for key in ("dims", "rank", "hidden")}
    batches = Made(batch_size)
    model = TzK(build_flow(SHAPE, **(flow or config["flow"])))
    for name in NAMES:
        model.add(name, build_knowledge("low-rank", model.latent_shape, name=name, **structure))
    model.flow.initialise(batches.batch(0).T)
    training = {key: config["training"][key] for key in ("optimizer", "clip")}
    return {
        name: Trainer(
            copy.deepcopy(model),
            batches,
            Settings(
                steps=10**6,
                batch_size=batch_size,
                emphasis=config["objective"]["emphasis"],
                compile=False,
                processes=count,
                **training,
            ),
        )
        for name, count in (("one", 1), ("several", processes))
    }


def difference(both: dict[str, Trainer]) -> float:
    """The largest relative difference of the objectives of the first steps."""
    pairs = [[value.advance().value.item() for value in both.values()] for _ in range(CHECKED)]
    return max(abs(several / one - 1) for one, several in pairs)


def steps(both: dict[str, Trainer], processes: int) -> dict[str, Callable[[], None]]:
    """A step of both, with the threads that they have in a run."""
    threads = torch.get_num_threads()

    def one() -> None:
        torch.set_num_threads(threads)
        both["one"].advance()

    def several() -> None:
        torch.set_num_threads(max(1, threads // processes))
        both["several"].advance()

    return {"one": one, "several": several}


def main() -> None:
    parser = Options(__doc__, rounds=10, batch_size=64, least=64, threads=False)
    parser.count("--processes", default=os.cpu_count(), help="at least 2", least=2)
    arguments = parser.read()
    host = machine()
    try:
        both = trainers(arguments.batch_size, arguments.processes)
        turns = steps(both, arguments.processes)
        apart = difference(both)
    except TzkError as error:
        raise SystemExit(str(error)) from error
    taken = measure(turns, arguments.rounds)
    both["several"].close()
    report = {
        **of_two(taken, "several", "one")["wall"],
        "processes": arguments.processes,
        "difference": apart,
        "rounds": arguments.rounds,
        "batch_size": arguments.batch_size,
        **host,
    }
    if arguments.json:
        print(json.dumps(report, indent=2))
        return
    low, high = report["ratio_quartiles"]
    print(
        f"{report['machine']}, torch {report['torch']}, {report['threads']} threads in all, "
        f"batch {report['batch_size']}"
    )
    print(f"one process        {report['one_milliseconds']:>8.1f} ms")
    print(f"{report['processes']} processes        {report['several_milliseconds']:>8.1f} ms")
    print(f"ratio {report['ratio']:.2f}, quartiles {low:.2f} to {high:.2f}")
    print(f"the objectives of {CHECKED} steps differ by {apart:.0e} at most, relatively")


if __name__ == "__main__":
    main()
