"""What a step of adding the 1st, the 10th and the 100th knowledge type to one model costs, in time and in memory.

    python benchmarks/add_cost.py [--json] [--rounds N] [--batch-size 128] [--older 0 9 99] [--threads N]

The models have the paper's shared flow over 32x32 images, with the same weights, and as many older knowledge types as
is said, each of the paper's. To each one more is added, by the steps that `tzk_core.add` takes, on the same images.
They take turns within each round, so that whatever else the machine does falls on all alike. Ratios are to the time of
the first within the same round; printed are their median and quartiles over rounds, by the clock and by CPU seconds of
the process. Memory is the most that a step has allocated at once, beyond what was there before, by torch's profiler,
and that of the optimiser's state.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from typing import Any

import torch
from train_step import machine, measure

from tzk_core import TzK, build_flow, build_knowledge
from tzk_core.data.protocol import Samples
from tzk_core.random_streams import stream
from tzk_core.training.adding.growth import addition_trainer
from tzk_core.training.adding.negatives import Negatives, Source
from tzk_core.training.settings import Settings
from tzk_core.training.trainer import Trainer

SHAPE = (1, 32, 32)
LIMIT = 1.1
"""The cost may not grow with what is known: the goal is a ratio below this."""


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
    """A model with so many older knowledge types; the shared flow is the same whatever their number."""
    model = TzK(build_flow(SHAPE, "paper", steps=steps, tile=16))
    model.flow.initialise((source.samples.T.float() + 0.5) / 256)
    for number in range(older):
        model.add(f"older-{number}", build_knowledge("flow", model.latent_shape, name=f"older-{number}"))
    return model


def trainers(older: list[int], batch_size: int, steps: int = 10) -> dict[str, Trainer]:
    """By the number that is added, what trains it: of the 1st there is none older."""
    source = made()
    negatives = Negatives(own_samples=256, own_types=8)
    settings = Settings(steps=10**6, batch_size=batch_size, learning_rate=1e-3, compile=False)
    found = {}
    for count in older:
        model = built(count, source, steps)
        new = {"new": build_knowledge("flow", model.latent_shape, name="new")}
        found[f"{count + 1}"] = addition_trainer(model, new, {"made": source}, settings=settings, negatives=negatives)
    return found


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
    tensors = (each for kept in trainer.optimizer.state.values() for each in kept.values())
    return sum(each.numel() * each.element_size() for each in tensors if isinstance(each, torch.Tensor))


def summary(taken: dict[str, list[tuple[float, float]]]) -> dict[str, Any]:
    """By number, milliseconds a step and ratios to the first, by clock: medians and quartiles."""
    first = next(iter(taken))
    found: dict[str, Any] = {}
    for name, values in taken.items():
        found[name] = {}
        for column, clock in enumerate(("wall", "cpu")):
            ratios = [ours[column] / base[column] for ours, base in zip(values, taken[first], strict=True)]
            low, middle, high = statistics.quantiles(ratios, n=4)
            found[name][clock] = {
                "milliseconds": round(1000 * statistics.median(pair[column] for pair in values), 1),
                "ratio": round(middle, 3),
                "ratio_quartiles": [round(low, 3), round(high, 3)],
            }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--rounds", type=int, default=15, help="at least 2 (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=128, help="(default: %(default)s)")
    parser.add_argument("--older", type=int, nargs="+", default=[0, 9, 99], help="older types (default: %(default)s)")
    parser.add_argument("--threads", type=int, help="torch's threads (default: as torch chooses)")
    arguments = parser.parse_args()
    if arguments.rounds < 2:
        parser.error("expected --rounds of at least 2, for a spread")
    if arguments.threads:
        torch.set_num_threads(arguments.threads)

    by_number = trainers(arguments.older, arguments.batch_size)
    taken = measure({name: trainer.advance for name, trainer in by_number.items()}, arguments.rounds)
    found = {
        "goal": f"a ratio below {LIMIT}",
        "added": {
            name: each | {"peak_bytes": peak(by_number[name].advance), "optimiser_bytes": state(by_number[name])}
            for name, each in summary(taken).items()
        },
        "rounds": arguments.rounds,
        "batch_size": arguments.batch_size,
        **machine(),
    }
    if arguments.json:
        print(json.dumps(found, indent=2))
        return
    print(f"{found['machine']}, torch {found['torch']}, {found['threads']} threads, batch {found['batch_size']}")
    print(f"{'added':<8}{'clock':<6}{'step':>12}{'ratio':>8}   {'quartiles':<15}{'peak':>11}{'optimiser':>12}")
    for name, each in found["added"].items():
        for clock in ("wall", "cpu"):
            low, high = each[clock]["ratio_quartiles"]
            memory = f"{each['peak_bytes'] / 2**20:>8.1f} MB{each['optimiser_bytes'] / 2**20:>9.1f} MB"
            print(
                f"{name if clock == 'wall' else '':<8}{clock:<6}{each[clock]['milliseconds']:>9.1f} ms"
                f"{each[clock]['ratio']:>8.2f}   {f'{low:.2f} to {high:.2f}':<15}{memory if clock == 'wall' else ''}"
            )
    print(f"the goal is {found['goal']}")


if __name__ == "__main__":
    main()
