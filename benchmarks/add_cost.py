"""What a step of adding the 1st, 10th and 100th knowledge type costs.

    python benchmarks/add_cost.py [--json] [--rounds N] [--batch-size 128] [--older 0 9 99] [--threads N]

The models have the paper's shared flow over 32x32 images, with the same weights, and `--older` knowledge types of the
paper. One more type is added to all of them, by the steps that `tzk_core.add` takes, on the same images. The models
take turns within a round, so that other load of the machine falls on all alike. Ratios are to the time of the first
within the same round; printed are their median and quartiles over rounds, by the clock and by CPU seconds of the
process. Memory is the peak that a step allocates beyond what was allocated before, by torch's profiler. The size of the
optimiser's state is printed beside it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import torch
from timing import CLOCKS, Options, beside_the_first, machine, measure

from tzk_core import TzK, build_flow, build_knowledge
from tzk_core.data.protocol import Samples
from tzk_core.random_streams import stream
from tzk_core.training.adding.growth import addition_trainer
from tzk_core.training.adding.negatives import Negatives, Source
from tzk_core.training.settings import Settings
from tzk_core.training.trainer import Trainer

SHAPE = (1, 32, 32)
LIMIT = 1.1
"""The goal is a ratio below this: the cost may not grow with the number of knowledge types."""


def made(count: int = 512) -> Source:
    """Images of bright squares on black, present in all of them."""
    source = stream(0, "made")
    corner = torch.randint(4, 20, (count, 2), generator=source)
    ticks = torch.arange(32)
    inside = [(ticks >= corner[:, i, None]) & (ticks < corner[:, i, None] + 8) for i in (0, 1)]
    ink = (inside[0][:, :, None] & inside[1][:, None, :])[:, None]
    T = (ink * torch.randint(100, 256, (count, *SHAPE), generator=source)).to(torch.uint8)
    return Source(Samples(T), torch.ones(count, 1), levels=256)


def built(older: int, source: Source, steps: int = 10) -> TzK:
    """A model with `older` knowledge types; their number does not change the shared flow."""
    model = TzK(build_flow(SHAPE, "paper", steps=steps, tile=16))
    model.flow.initialise((source.samples.T.float() + 0.5) / 256)
    for number in range(older):
        model.add(f"older-{number}", build_knowledge("flow", model.latent_shape, name=f"older-{number}"))
    return model


def trainers(older: list[int], batch_size: int, steps: int = 10) -> dict[str, Trainer]:
    """Trainers by the number of the added type; the 1st has no older ones."""
    source = made()
    negatives = Negatives(own_samples=256, own_types=8)
    settings = Settings(steps=10**6, batch_size=batch_size, learning_rate=1e-3, compile=False)
    report = {}
    for count in older:
        model = built(count, source, steps)
        new = {"new": build_knowledge("flow", model.latent_shape, name="new")}
        report[f"{count + 1}"] = addition_trainer(model, new, {"made": source}, settings=settings, negatives=negatives)
    return report


def peak(step: Callable[[], Any]) -> int:
    """Bytes that one step has allocated at its peak, beyond what was there before."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        step()
    held = highest = 0
    for event in profile.profiler.kineto_results.events():  # type: ignore[union-attr]
        if event.name() == "[memory]":
            held += event.nbytes()
            highest = max(highest, held)
    return highest


def state(trainer: Trainer) -> int:
    """Bytes of the optimiser's state."""
    values = (value for state in trainer.optimizer.state.values() for value in state.values())
    return sum(value.numel() * value.element_size() for value in values if isinstance(value, torch.Tensor))


def main() -> None:
    parser = Options(__doc__, rounds=15, batch_size=128)
    parser.add_argument("--older", type=int, nargs="+", default=[0, 9, 99], help="older types (default: %(default)s)")
    arguments = parser.read()

    by_number = trainers(arguments.older, arguments.batch_size)
    taken = measure({name: trainer.advance for name, trainer in by_number.items()}, arguments.rounds)
    report = {
        "goal": f"a ratio below {LIMIT}",
        "added": {
            name: value | {"peak_bytes": peak(by_number[name].advance), "optimiser_bytes": state(by_number[name])}
            for name, value in beside_the_first(taken).items()
        },
        "rounds": arguments.rounds,
        "batch_size": arguments.batch_size,
        **machine(),
    }
    if arguments.json:
        print(json.dumps(report, indent=2))
        return
    print(f"{report['machine']}, torch {report['torch']}, {report['threads']} threads, batch {report['batch_size']}")
    print(f"{'added':<8}{'clock':<6}{'step':>12}{'ratio':>8}   {'quartiles':<15}{'peak':>11}{'optimiser':>12}")
    for name, value in report["added"].items():
        for clock in CLOCKS:
            low, high = value[clock]["ratio_quartiles"]
            memory = f"{value['peak_bytes'] / 2**20:>8.1f} MB{value['optimiser_bytes'] / 2**20:>9.1f} MB"
            print(
                f"{name if clock == 'wall' else '':<8}{clock:<6}{value[clock]['milliseconds']:>9.1f} ms"
                f"{value[clock]['ratio']:>8.2f}   {f'{low:.2f} to {high:.2f}':<15}{memory if clock == 'wall' else ''}"
            )
    print(f"the goal is {report['goal']}")


if __name__ == "__main__":
    main()
