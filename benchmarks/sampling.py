"""The time that a trained model takes to sample 64 images.

They are from the prior and of one knowledge type.

    python benchmarks/sampling.py RUN [--json] [--number 64] [--knowledge NAME ...] [--rounds N] [--threads N]

RUN is a run folder or a checkpoint. The densities take turns within a round, so that other load of the machine falls on
all alike; a first round, which warms up, does not count. Printed are the median and quartiles over rounds, by the clock
and by CPU seconds of the process, and the ratio to the prior within a round. Loading the model is not timed. All rounds
take new samples, so that none can be cached.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from timing import CLOCKS, Options, Taken, machine, measure, ratios, seconds, spread

import tzk_core
from tzk_core import TzK

PRIOR = "prior"
GOAL = 1.0
"""Seconds for 64 images, at most."""


def sampling_steps(model: TzK, names: Sequence[str], number: int) -> dict[str, Callable[[], None]]:
    """By density, a function that takes `number` samples, new ones at every call.

    The prior comes first.

    Raises `TzkError` for a name that the model does not have.
    """

    def step_of(name: str | None) -> Callable[[], None]:
        seeds = iter(range(10**9))

        def step() -> None:
            model.sample(number, name, seed=next(seeds))

        return step

    for name in names:
        model.find(name)
    return {PRIOR: step_of(None), **{name: step_of(name) for name in names}}


def summary(taken: Taken) -> dict[str, Any]:
    """Seconds and ratios to the prior, by clock: medians and quartiles."""
    report: dict[str, Any] = {}
    for name in taken:
        report[name] = {}
        for clock in CLOCKS:
            middle, quartiles = spread(seconds(taken, name, clock), 4)
            ratio = round(statistics.median(ratios(taken, name, PRIOR, clock=clock)), 3)
            report[name][clock] = {"seconds": middle, "quartiles": quartiles, "ratio": ratio}
    return report


def main() -> None:
    parser = Options(__doc__, rounds=15, device="cpu")
    parser.add_argument("run", type=Path, help="a run folder or a checkpoint")
    parser.count("--number", default=64, help="of images")
    parser.add_argument("--knowledge", nargs="*", help="names of knowledge types (default: the model's first)")
    arguments = parser.read()
    torch.set_flush_denormal(True)

    model = tzk_core.load(arguments.run).to(arguments.device).eval()
    names = list(model.knowledge)[:1] if arguments.knowledge is None else arguments.knowledge
    steps = sampling_steps(model, names, arguments.number)
    report = {
        "goal": f"{GOAL} seconds for 64 images at most",
        "sampled": summary(measure(steps, arguments.rounds, repeat=1)),
        "number": arguments.number,
        "shape": list(model.shape),
        "parameters": sum(parameter.numel() for parameter in model.flow.parameters()),
        "rounds": arguments.rounds,
        **machine(),
    }
    if model.like.is_cuda:
        report["machine"] = torch.cuda.get_device_name()
    if arguments.json:
        print(json.dumps(report, indent=2))
        return
    print(f"{report['machine']}, torch {report['torch']}, {report['threads']} threads, {report['number']} samples")
    print(f"{'sampled from':<20}{'clock':<6}{'seconds':>9}   {'quartiles':<19}{'ratio to the prior':>18}")
    for name, clocks in report["sampled"].items():
        for clock, value in clocks.items():
            low, high = value["quartiles"]
            shown = f"{low:.4f} to {high:.4f}"
            title = name if clock == "wall" else ""
            print(f"{title:<20}{clock:<6}{value['seconds']:>9.4f}   {shown:<19}{value['ratio']:>18.2f}")
    print(f"the goal is {report['goal']}")


if __name__ == "__main__":
    main()
