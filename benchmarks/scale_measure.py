"""What one knowledge type costs: seconds in a step, bytes in memory and on disk.

    python benchmarks/scale_measure.py [--json] [--rounds N] [--types 1000] [--dims 64] [--threads 1]

`benchmarks/scale.py` simulates many types on many ranks with these figures. All are of the real model: `low-rank` types
over the latents of 32x32 images. Steps have a flow that costs next to nothing, and several numbers of types and
samples. Least squares give the seconds of a step, of a type, and of a row where it is present and where it is absent.
Bytes and seconds of storage are those of so many types, divided by their number. Memory is the growth of the process's
peak. Seconds are of the CPU, but for `save_wall_seconds`.
"""

from __future__ import annotations

import itertools
import json
import os
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from add_cost import state
from lazy import peak
from timing import Options, machine, measure, seconds

import tzk_core
from tzk_core import Observations, TzK, build_flow, build_knowledge
from tzk_core.objective.negatives import sampled_absences
from tzk_core.objective.routing import batch_labels
from tzk_core.random_streams import stream
from tzk_core.storage.index import Index
from tzk_core.storage.manifest import CORE, MANIFEST, read_manifest
from tzk_core.training.settings import Settings
from tzk_core.training.trainer import Trainer

SHAPE = (1, 32, 32)
REGISTERED = 128
"""Types of the steps that are timed; more than 32 share a table."""
BATCHES = [(8, 4), (32, 4), (128, 2), (8, 32), (32, 16), (128, 8)]
"""Types in a batch, and samples of each."""
NEGATIVES = (1, 16)
CELLS = (2000, 256)
"""Types and samples of the label table that is timed."""


class Repeated:
    """One batch again and again, in which each of `types` is present in `samples`."""

    def __init__(self, types: int, samples: int) -> None:
        size, names = types * samples, tuple(f"type-{number}" for number in range(REGISTERED))
        presence = torch.zeros(size, REGISTERED)
        presence[torch.arange(size), torch.arange(size) % types] = 1
        self._batch = Observations(torch.randn(size, *SHAPE, generator=stream(0, "T")), presence, names)

    def batch(self, step: int) -> Observations:
        return self._batch

    def sources(self, step: int) -> dict[str, slice]:
        return {"made": slice(0, len(self._batch))}


def with_types(model: TzK, count: int, dims: int) -> TzK:
    """The model with so many `low-rank` types more."""
    for number in range(count):
        model.add(f"type-{number}", build_knowledge("low-rank", model.latent_shape, name=f"type-{number}", dims=dims))
    return model


def trainer(types: int, samples: int, negatives: int, *, dims: int) -> Trainer:
    model = with_types(TzK(build_flow(SHAPE, layers=[{"type": "affine"}])), REGISTERED, dims)
    settings = Settings(steps=10**6, batch_size=types * samples, negatives=negatives, compile=False)
    return Trainer(model, Repeated(types, samples), settings)


def evaluations(types: int, samples: int, negatives: int) -> tuple[int, int, int]:
    """Types that a step evaluates, and rows with them and without."""
    size, absent = types * samples, min(negatives, REGISTERED - types)
    return types + absent, size, types * min(negatives, size) + absent * size


def fitted(rounds: int, dims: int) -> dict[str, Any]:
    """Seconds of a step, a type and its rows, by least squares of relative errors."""
    cases = [(*case, negatives) for case, negatives in itertools.product(BATCHES, NEGATIVES)]
    steps: dict[str, Callable[[], Any]] = {
        f"{types}x{samples}-{negatives}": trainer(types, samples, negatives, dims=dims).advance
        for types, samples, negatives in cases
    }
    taken = measure(steps, rounds)
    best = np.array([min(seconds(taken, name, "cpu")) for name in steps])
    table = np.array([(1.0, *evaluations(*case)) for case in cases])
    found = nonnegative(table / best[:, None], np.ones(len(cases)))
    error = np.abs(table @ found / best - 1)
    keys = ("seconds_of_step", "seconds_of_type", "seconds_of_row_present", "seconds_of_row_absent")
    return dict(zip(keys, map(float, found), strict=True)) | {
        "fit_median_error": round(float(np.median(error)), 3),
        "fit_largest_error": round(float(error.max()), 3),
        "step_seconds": {name: round(float(value), 5) for name, value in zip(steps, best, strict=True)},
    }


def nonnegative(table: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Least squares with coefficients of at least 0, over all sets of columns."""
    columns = range(table.shape[1])
    best, least = np.zeros(table.shape[1]), np.inf
    for count in range(1, len(columns) + 1):
        for chosen in itertools.combinations(columns, count):
            part = table[:, chosen]
            solved = np.linalg.lstsq(part, values, rcond=None)[0]
            residue = float(((part @ solved - values) ** 2).sum())
            if (solved >= 0).all() and residue < least:
                least, best = residue, np.zeros(table.shape[1])
                best[list(chosen)] = solved
    return best


def of_flow(rounds: int) -> dict[str, Any]:
    """Seconds of a step of the paper's flow a sample, without knowledge."""
    size = 64
    batches = Repeated(1, size)
    model = TzK(build_flow(SHAPE, "paper", steps=10, tile=16))
    model.flow.initialise(batches.batch(0).T.sigmoid())
    batches._batch = Observations(batches.batch(0).T.sigmoid(), torch.zeros(size, 0), ())
    made = Trainer(model, batches, Settings(steps=10**6, batch_size=size, compile=False))
    taken = measure({"flow": made.advance}, rounds)
    return {
        "flow_seconds_of_sample": min(seconds(taken, "flow", "cpu")) / size,
        "flow_parameters": sum(p.numel() for p in model.flow.parameters() if p.requires_grad),
    }


def labels() -> dict[str, float]:
    """Seconds of the labels of a batch by cell, a type at a sample."""
    types, size = CELLS
    presence = torch.zeros(size, types)
    presence[torch.arange(size), torch.arange(size)] = 1
    observations = Observations(torch.zeros(size, 1), presence, tuple(map(str, range(types))))

    absences = partial(sampled_absences, most=16, generator=stream(0, "absences"))
    (pairs,) = measure({"": lambda: batch_labels(observations, absences)}, 5, repeat=3).values()
    return {"label_seconds_of_cell": min(cpu for _, cpu in pairs) / (types * size)}


def of_storage(count: int, dims: int, folder: Path) -> dict[str, Any]:
    """Bytes and seconds of a type: registered, saved, read and asked for."""

    def timed(name: str, call: Callable[[], Any], *, memory: bool = True) -> Any:
        before, began = peak(), time.process_time()
        value = call()
        report[f"{name}_seconds"] = (time.process_time() - began) / count
        if memory:
            report[f"{name}_bytes"] = (peak() - before) / count
        return value

    report: dict[str, Any] = {}
    empty = TzK(build_flow(SHAPE, layers=[{"type": "affine"}]))
    with_types(empty, 1, dims)
    model = timed("register", lambda: with_types(TzK(empty.flow), count, dims))
    images = torch.randn(64, *SHAPE, generator=stream(0, "T"))
    wall = time.perf_counter()
    timed("save", lambda: tzk_core.save(model, folder / "saved"), memory=False)
    report["save_wall_seconds"] = (time.perf_counter() - wall) / count
    stored = [file.stat() for file in (folder / "saved").rglob("*") if file.name not in (MANIFEST, CORE)]
    report["file_bytes"] = sum(each.st_size for each in stored) / count
    report["file_bytes_on_disk"] = sum(512 * each.st_blocks for each in stored) / count
    report["manifest_bytes"] = os.path.getsize(folder / "saved" / MANIFEST) / count
    manifest, report["read_manifest_bytes"] = traced(lambda: read_manifest(folder / "saved"), count)
    _, report["index_bytes"] = traced(lambda: Index(manifest), count)
    timed("read_manifest", lambda: read_manifest(folder / "saved"), memory=False)
    timed("load", lambda: tzk_core.load(folder / "saved"), memory=False)
    timed("posterior", lambda: model.posterior(images), memory=False)
    tables = Trainer(model, Everything(count), Settings(steps=1, compile=False))
    report["adam_bytes"] = (state(tables) + tables.parameter_tables.size) / count
    report["parameters"] = sum(p.numel() for p in model.find("type-0").parameters())
    return report


def traced(call: Callable[[], Any], count: int) -> tuple[Any, float]:
    """A value, and the most bytes by type that making it took in Python."""
    tracemalloc.start()
    value = call()
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return value, most / count


class Everything(Repeated):
    """Batches that know of all types; no step is taken."""

    def __init__(self, types: int) -> None:
        names = tuple(f"type-{number}" for number in range(types))
        self._batch = Observations(torch.zeros(2, *SHAPE), torch.zeros(2, types), names)


def shown(report: dict[str, Any], keys: Sequence[str]) -> None:
    for key in keys:
        unit, value = key.rpartition("_")[2], report[key]
        scaled = f"{1e6 * value:>12.2f} µs" if "seconds" in key else f"{value:>12.0f} {unit}"
        print(f"{key:<28}{scaled}")


def main() -> None:
    parser = Options(__doc__, rounds=5)
    parser.count("--types", default=1000, help="that are saved and read", least=REGISTERED)
    parser.count("--dims", default=64, help="of z that a type sees", least=1)
    parser.set_defaults(threads=1)
    arguments = parser.read()
    with tempfile.TemporaryDirectory() as folder:
        report = of_storage(arguments.types, arguments.dims, Path(folder))
    report |= {**labels(), **of_flow(arguments.rounds), **fitted(arguments.rounds, arguments.dims)}
    row = report["seconds_of_row_present"]
    report["row_flops_per_second"] = round(6 * report["parameters"] / row) if row else None
    report |= {"types": arguments.types, "dims": arguments.dims, "rounds": arguments.rounds, **machine()}
    report["latent"] = int(np.prod(SHAPE))
    if arguments.json:
        print(json.dumps(report, indent=2))
        return
    shown(report, [key for key in report if isinstance(report[key], float) and ("bytes" in key or "seconds" in key)])
    print(
        f"the steps that the seconds were fitted to are off by {100 * report['fit_median_error']:.0f} % in the median"
    )


if __name__ == "__main__":
    main()
