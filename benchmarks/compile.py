"""What compiling the training step of `examples/joint.toml` takes and brings, on this device.

    python benchmarks/compile.py [--json] [--rounds N] [--batch-size 256] [--device auto] [--threads N] [--steps]

Two trainers of the same model see the same batches, one compiled. The first step of it, which compiles, is timed by
itself, and objectives are compared. Then both take turns within each round. Ratios are taken within a round; printed
are their median and quartiles. Compiling pays after as many steps as its seconds over what a step saves. No other graph
may be made meanwhile: the program ends with an error if one is. With --steps what is around the matrix products of
flow steps is compiled alone (compile = "steps").
"""

from __future__ import annotations

import copy
import json
import math
import os
import time
from typing import Any, Literal, NamedTuple

import torch
from timing import CLOCKS, Options, Taken, machine, measure, of_two
from train_step import Made, perturbed_model

from tzk_core import TzkError
from tzk_core.runs.tables import chosen_device
from tzk_core.training.settings import Settings
from tzk_core.training.trainer import Trainer

CHECKED = 3
"""Over as many first steps the objectives are compared."""


def trainers(batch_size: int, device: torch.device, *, how: bool | Literal["steps"] = True) -> dict[str, Trainer]:
    """Trainers of the same model, "plain" and "compiled"."""
    batches = Made(batch_size)
    model = perturbed_model(batches)
    return {
        name: Trainer(
            copy.deepcopy(model).to(device),
            batches,
            Settings(
                steps=10**6, batch_size=batch_size, learning_rate=1e-3, compile=how if name == "compiled" else False
            ),
        )
        for name in ("plain", "compiled")
    }


class Compiling(NamedTuple):
    """What compiling took: the first step of the compiled trainer less the third.

    seconds: by the clock. cpu_seconds: of this process and the compilers that it started and that have ended.
    difference: the largest relative difference of the objectives.
    """

    seconds: float
    cpu_seconds: float
    difference: float


def compiled_in(both: dict[str, Trainer]) -> Compiling:
    """The first steps of both trainers."""
    taken, differences = [], []
    for _ in range(CHECKED):
        expected = both["plain"].advance().value.item()
        wall, cpu = time.perf_counter(), sum(os.times()[:4])
        value = both["compiled"].advance().value.item()
        taken.append((time.perf_counter() - wall, sum(os.times()[:4]) - cpu))
        differences.append(abs(value / expected - 1))
    first, *_, last = taken
    return Compiling(first[0] - last[0], first[1] - last[1], max(differences))


def summary(taken: Taken, seconds: float) -> dict[str, Any]:
    """Milliseconds a step, ratios by clock, and the steps after which compiling pays.

    None if it never does.
    """
    report = {"compile_seconds": round(seconds, 1), **of_two(taken, "compiled", "plain")}
    saved = report["wall"]["plain_milliseconds"] - report["wall"]["compiled_milliseconds"]
    report["pays_from_steps"] = math.ceil(1000 * seconds / saved) if saved > 0 else None
    return report


def main() -> None:
    parser = Options(__doc__, rounds=10, batch_size=256, least=64, device="auto")
    parser.add_argument("--steps", action="store_true", help="compile around matrix products alone")
    arguments = parser.read()
    try:
        device = chosen_device(arguments.device)
        both = trainers(arguments.batch_size, device, how="steps" if arguments.steps else True)
        compiling = compiled_in(both)
    except TzkError as error:
        raise SystemExit(str(error)) from error

    with torch._dynamo.config.patch(error_on_recompile=True):  # type: ignore[no-untyped-call]
        taken = measure({name: value.advance for name, value in both.items()}, arguments.rounds)
    report = {
        **summary(taken, compiling.seconds),
        "compile_cpu_seconds": round(compiling.cpu_seconds, 1),
        "difference": compiling.difference,
        "rounds": arguments.rounds,
        "batch_size": arguments.batch_size,
        "compiled": "steps" if arguments.steps else "whole",
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        **machine(),
    }
    if arguments.json:
        print(json.dumps(report, indent=2))
        return
    print(f"{report['machine']}, {report['device']}, torch {report['torch']}, {report['threads']} threads")
    print(f"{'':<6}{'plain':>12}{'compiled':>12}{'ratio':>8}   quartiles")
    for clock in CLOCKS:
        value = report[clock]
        low, high = value["ratio_quartiles"]
        plain, compiled = value["plain_milliseconds"], value["compiled_milliseconds"]
        print(f"{clock:<6}{plain:>9.1f} ms{compiled:>9.1f} ms{value['ratio']:>8.2f}   {low:.2f} to {high:.2f}")
    pays = report["pays_from_steps"]
    seconds = f"{report['compile_seconds']} s ({report['compile_cpu_seconds']} s of CPU)"
    print(f"compiled in {seconds}, which pays {f'from {pays:,} steps on' if pays else 'never'}")
    print(f"the objectives of {CHECKED} steps differ by {compiling.difference:.0e} at most, relatively")


if __name__ == "__main__":
    main()
