"""A simulation of a million knowledge types that 64 processes divide among them.

    python benchmarks/scale.py [--json] [--types 1000000] [--processes 64] [--samples 64] [--present 2]
                               [--zipf 1.0 1.2]

Nothing is trained. Every process has so many samples, which have as many types each, by Zipf's law. The type of rank r
has a popularity of r to the power of minus the exponent. Four ways of choosing owners see the same batches. "hash" is
what training does. "popular" assigns the most popular first, each to the owner with the least popularity so far.
"shared N" is a hash with the N most popular types in all processes.

Bytes are of one step: rows of z and log p(z) of the busiest process, there and back, and the sums of gradients. Times
follow from the speed of the network, and from so many microseconds a sample and type. Imbalance is the most over the
mean of the samples and types that a process evaluates.
"""

from __future__ import annotations

import heapq
import json
from typing import Any

import torch
from timing import Options
from torch import Tensor

from tzk_core.objective.owned import owners_of

NUMBER = 4
"""Bytes of a number."""
STEPS = 5
NEGATIVES = 16
"""Absent types that are evaluated at every sample."""


def popularity(types: int, exponent: float) -> Tensor:
    """The share of each type among those that samples have, (types,), falling."""
    weights = torch.arange(1, types + 1, dtype=torch.float64) ** -exponent
    return weights / weights.sum()


def by_hash(types: int, processes: int) -> Tensor:
    """The owner of each type, (types,), as in training."""
    owners = owners_of((f"type-{number}" for number in range(types)), (), processes)
    return torch.tensor(list(owners.values()))


def by_popularity(share: Tensor, processes: int) -> Tensor:
    """The owner of each type, (types,): the one with the least popularity so far."""
    heap = [(0.0, rank) for rank in range(processes)]
    owners = []
    for weight in share.tolist():
        load, rank = heap[0]
        owners.append(rank)
        heapq.heapreplace(heap, (load + weight, rank))
    return torch.tensor(owners)


def step(share: Tensor, owner: Tensor, shared: int, *, arguments: Any, source: torch.Generator) -> dict[str, float]:
    """Loads of one batch, and rows that the busiest process receives."""
    processes, size = arguments.processes, arguments.samples * arguments.processes
    cumulative = share.cumsum(0)
    draws = torch.rand(size, arguments.present, generator=source, dtype=torch.float64) * cumulative[-1]
    present = torch.searchsorted(cumulative, draws).clamp(max=len(share) - 1)
    pairs = torch.stack([torch.arange(size)[:, None].expand_as(present), present], -1).flatten(0, 1).unique(dim=0)
    owned = pairs[pairs[:, 1] >= shared]
    load = torch.bincount(owner[owned[:, 1]], minlength=processes)
    rows = torch.stack([owned[:, 0], owner[owned[:, 1]]], 1).unique(dim=0)
    arriving = rows[rows[:, 0] // arguments.samples != rows[:, 1]]
    received = torch.bincount(arriving[:, 1], minlength=processes)
    absent = torch.randint(len(share), (NEGATIVES,), generator=source)
    with_absent = received.clone()
    with_absent[owner[absent].unique()] = size - arguments.samples
    everywhere = (len(pairs) - len(owned)) / processes
    return {
        "load": float(load.max() + everywhere),
        "mean_load": len(pairs) / processes,
        "rows": float(received.max()),
        "mean_rows": float(received.float().mean()),
        "rows_with_absences": float(with_absent.max()),
        "types": float(len(pairs[:, 1].unique())),
    }


def simulated(share: Tensor, owner: Tensor, shared: int, *, arguments: Any) -> dict[str, float]:
    """The means over some steps, as bytes, seconds and imbalance."""
    source = torch.Generator().manual_seed(0)
    found = [step(share, owner, shared, arguments=arguments, source=source) for _ in range(STEPS)]
    mean = {key: sum(each[key] for each in found) / STEPS for key in found[0]}
    ring = 2 * (arguments.processes - 1) / arguments.processes
    row, second = (arguments.dims + 1) * NUMBER, arguments.gigabits * 1e9 / 8
    summed = ring * (arguments.flow + shared * arguments.parameters) * NUMBER
    rows, all_rows = (2 * row * mean[key] for key in ("rows", "rows_with_absences"))
    largest = torch.bincount(owner, minlength=arguments.processes).max() * arguments.parameters * 3 * NUMBER
    return {
        "imbalance": mean["load"] / mean["mean_load"],
        "megabytes_of_rows": rows / 1e6,
        "megabytes_of_rows_on_average": 2 * row * mean["mean_rows"] / 1e6,
        "megabytes_of_rows_with_absences": all_rows / 1e6,
        "megabytes_of_sums": summed / 1e6,
        "milliseconds_of_network": 1e3 * (all_rows + summed) / second,
        "milliseconds_of_knowledge": 1e3 * mean["load"] * arguments.microseconds / 1e6,
        "gigabytes_of_the_largest_owner": float(largest) / 1e9,
        "types_in_a_batch": mean["types"],
    }


def main() -> None:
    parser = Options(__doc__, rounds=2, threads=False)
    parser.count("--types", default=10**6, help="knowledge types", least=1000)
    parser.count("--processes", default=64, help="that divide them", least=2)
    parser.count("--samples", default=64, help="of one process in a batch")
    parser.count("--present", default=2, help="types of a sample, with repetition")
    parser.count("--dims", default=1024, help="of z")
    parser.count("--flow", default=1_300_000, help="parameters of the shared flow")
    parser.count("--parameters", default=5859, help="of a knowledge type")
    parser.add_argument("--zipf", type=float, nargs="+", default=[1.0, 1.2], help="exponents (default: %(default)s)")
    parser.add_argument("--gigabits", type=float, default=10.0, help="of the network (default: %(default)s)")
    parser.add_argument("--microseconds", type=float, default=50.0, help="a sample and type (default: %(default)s)")
    arguments = parser.read()
    hashed = by_hash(arguments.types, arguments.processes)
    report: dict[str, Any] = {
        "arguments": {key: value for key, value in vars(arguments).items() if key != "json"},
        "gigabytes_of_presence": arguments.samples * arguments.processes * arguments.types * NUMBER / 1e9,
    }
    for exponent in arguments.zipf:
        share = popularity(arguments.types, exponent)
        ways = {"hash": (hashed, 0), "popular": (by_popularity(share, arguments.processes), 0)}
        ways |= {f"shared {count}": (hashed, count) for count in (8, 64)}
        report[f"zipf {exponent}"] = {
            name: simulated(share, owner, shared, arguments=arguments) for name, (owner, shared) in ways.items()
        }
    if arguments.json:
        print(json.dumps(report, indent=2))
        return
    print(f"κ of a batch, in every process: {report['gigabytes_of_presence']:.2f} gigabytes")
    for title in list(report)[2:]:
        print(title)
        for name, found in report[title].items():
            print(f"  {name:<10}" + ", ".join(f"{key.replace('_', ' ')} {value:.2f}" for key, value in found.items()))


if __name__ == "__main__":
    main()
