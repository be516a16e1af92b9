"""What a thousand knowledge types cost beside ten.

    python benchmarks/many_types.py [--json] [--rounds N] [--types 10 1000] [--type low-rank] [--dims 64] [--threads N]

The models have the paper's shared flow over 32x32 images, with the same weights, and see the same made-up images in
batches of 256. A sample has one knowledge type of its own and one of thirty that are more common, as a character and
its alphabet. Steps take turns within a round, so that other load of the machine falls on all alike; ratios are to the
time of the first within the same round. Registering, saving, loading and the posterior of 256 images are of
the model with the most types; the posterior's first call, which warms up, does not count. Printed are medians and
quartiles, by the clock and by CPU seconds of the process, which a busy machine moves less.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from add_cost import state
from timing import CLOCKS, Options, beside_the_first, machine, measure, spread
from train_step import SHAPE, Made

import tzk_core
from tzk_core import Observations, TzK, build_flow, build_knowledge
from tzk_core.random_streams import stream
from tzk_core.training.settings import Settings
from tzk_core.training.trainer import Trainer

COMMON = 30
GOALS = {"step": 1.5, "register": 0.1, "load": 5.0, "posterior": 1.0}
"""A ratio for the step, seconds for the rest, at most."""


class Labelled:
    """Batches of made-up images with two present knowledge types a sample."""

    def __init__(self, types: int, size: int, count: int = 4) -> None:
        made, self._size = Made(size, count), size
        names = tuple(name_of(number) for number in range(types))
        self._batches = []
        for number in range(count):
            source, rows = stream(number, "labels"), torch.arange(size)
            presence = torch.zeros(size, types)
            for among in (types, min(types, COMMON)):
                presence[rows, torch.randint(among, (size,), generator=source)] = 1
            self._batches.append(Observations(made.batch(number).T, presence, names))

    def batch(self, step: int) -> Observations:
        return self._batches[step % len(self._batches)]

    def sources(self, step: int) -> dict[str, slice]:
        return {"made": slice(0, self._size)}


def name_of(number: int) -> str:
    return f"type-{number}"


def trainer(types: int, *, batch_size: int, type: str, steps: int = 10, **arguments: Any) -> Trainer:
    """A trainer of a model with so many knowledge types.

    Their number does not change the shared flow.
    """
    batches = Labelled(types, batch_size)
    model = TzK(build_flow(SHAPE, "paper", steps=steps, tile=16))
    model.flow.initialise(batches.batch(0).T)
    for number in range(types):
        name = name_of(number)
        model.add(name, build_knowledge(type, model.latent_shape, name=name, **arguments))
    return Trainer(model, batches, Settings(steps=10**6, batch_size=batch_size, learning_rate=1e-3, compile=False))


def others(
    model: TzK, folder: Path, images: torch.Tensor, *, type: str, **arguments: Any
) -> dict[str, Callable[[], Any]]:
    """The other operations by name, as functions; loading reads what saving wrote."""
    numbers = iter(range(10**9))

    def register() -> None:
        name = f"another-{next(numbers)}"
        model.add(name, build_knowledge(type, model.latent_shape, name=name, **arguments))
        del model.knowledge[name]

    return {
        "register": register,
        "save": lambda: tzk_core.save(model, folder / "saved"),
        "load": lambda: tzk_core.load(folder / "saved"),
        "posterior": lambda: model.posterior(images),
    }


def seconds(step: Callable[[], Any], rounds: int) -> dict[str, Any]:
    """Seconds of one call by clock: the median and quartiles."""
    (pairs,) = measure({"": step}, rounds, repeat=1).values()
    report: dict[str, Any] = {}
    for column, clock in enumerate(CLOCKS):
        middle, quartiles = spread([pair[column] for pair in pairs], 4)
        report[clock] = {"seconds": middle, "quartiles": quartiles}
    return report


def main() -> None:
    parser = Options(__doc__, rounds=9, batch_size=256)
    parser.add_argument("--types", type=int, nargs="+", default=[10, 1000], help="how many (default: %(default)s)")
    parser.add_argument("--type", default="low-rank", help="of the knowledge types (default: %(default)s)")
    parser.add_argument("--dims", type=int, default=64, help="of z that a low-rank type sees (default: %(default)s)")
    arguments = parser.read()
    own = {"dims": arguments.dims} if arguments.type == "low-rank" else {}

    by_number = {
        f"{n}": trainer(n, batch_size=arguments.batch_size, type=arguments.type, **own) for n in arguments.types
    }
    taken = measure({name: value.advance for name, value in by_number.items()}, arguments.rounds)
    most = by_number[f"{max(arguments.types)}"]
    images = most.batches.batch(0).T
    with tempfile.TemporaryDirectory() as folder:
        steps = others(most.model, Path(folder), images, type=arguments.type, **own)
        rounds = {"save": 3, "load": 3}
        rest = {name: seconds(step, rounds.get(name, arguments.rounds)) for name, step in steps.items()}
    report = {
        "goals": GOALS,
        "step": beside_the_first(taken),
        **rest,
        "parameters_of_one": sum(p.numel() for p in most.model.find(name_of(0)).parameters()),
        "optimiser_bytes": {name: state(value) + value.parameter_tables.size for name, value in by_number.items()},
        "rounds": arguments.rounds,
        "batch_size": arguments.batch_size,
        **machine(),
    }
    if arguments.json:
        print(json.dumps(report, indent=2))
        return
    print(f"{report['machine']}, torch {report['torch']}, {report['threads']} threads, batch {report['batch_size']}")
    print(f"{'types':<12}{'clock':<6}{'step':>12}{'ratio':>8}   quartiles      (goal: at most {GOALS['step']})")
    for name, value in report["step"].items():
        for clock in CLOCKS:
            low, high = value[clock]["ratio_quartiles"]
            milliseconds, ratio = value[clock]["milliseconds"], value[clock]["ratio"]
            title = name if clock == "wall" else ""
            print(f"{title:<12}{clock:<6}{milliseconds:>9.1f} ms{ratio:>8.2f}   {low:.2f} to {high:.2f}")
    print(f"with {max(arguments.types)} types, each of {report['parameters_of_one']:,} parameters:")
    for name, by_clock in rest.items():
        for clock, value in by_clock.items():
            low, high = value["quartiles"]
            goal = f"(goal: at most {GOALS[name]} s)" if name in GOALS and clock == "wall" else ""
            title = name if clock == "wall" else ""
            print(f"{title:<12}{clock:<6}{value['seconds']:>10.4f} s   {low:.4f} to {high:.4f} {goal}")


if __name__ == "__main__":
    main()
