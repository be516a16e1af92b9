"""A simulation of many knowledge types that are divided among many ranks.

    python benchmarks/scale.py [--json] [--types 1000000] [--ranks 64] [--batch 4096] [--zipf 1.0] [--latent 1024]
                               [--negatives 16] [--replicated 8] [--bandwidth 1.25e9] [--latency 2e-5] [--speed 1]

Each sample shows one type, by Zipf's law. Types have owners (`placement.py`), and ranks equal shards of the batch. As
in training, z and log p(z) of a sample go to the owners of what it shows, or is told from, and their gradients come
back. Types of the batch are told from the same few samples, and as many other types from all samples, or from
--absent-at. Gradients of the flow, and of types that every rank has, go around a ring. Seconds are those of one core,
as `scale_measure.py` has found them, over --speed. A step takes as long as the slowest rank.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from placement import REPLICATED, Numbers, Shares, greedy, hashed, popularity, replicated, two_choices
from scale_limits import ended, growths

MEASURED = Path(__file__).parent / "results" / "scale-measured.json"
FLOAT = 4
DOUBLE = 8


@dataclass(frozen=True)
class Setting:
    """What is simulated.

    latent: the numbers of z.
    negatives: as in [objective].
    absent_at: samples at which types that no sample of the batch has are evaluated; 0 for all.
    bandwidth: bytes a second, in and out of a rank. latency: seconds a message.
    speed: of a rank, beside the core that was measured.
    """

    types: int
    ranks: int
    batch: int
    zipf: float
    latent: int
    negatives: int
    absent_at: int
    bandwidth: float
    latency: float
    speed: float

    @property
    def row_bytes(self) -> int:
        """Of one z with its log p(z)."""
        return FLOAT * (self.latent + 1)


class Batch(NamedTuple):
    """The labels of one step.

    shows: (batch,), the type of each sample.
    told: samples at which all types of the batch are evaluated as absent.
    absent: types that no sample has; they are evaluated at the samples `absent_at`.
    """

    shows: Numbers
    told: Numbers
    absent: Numbers
    absent_at: Numbers


class Load(NamedTuple):
    """What one step gives the ranks, (ranks,) each.

    present, absent: evaluations, which are types at samples. kinds: types that are evaluated.
    arriving, leaving: rows of z that a rank gets from others, and sends to others.
    rows: that a rank evaluates, its own too.
    """

    present: Numbers
    absent: Numbers
    kinds: Numbers
    rows: Numbers
    arriving: Numbers
    leaving: Numbers


def sampled(setting: Setting, shares: Shares, generator: np.random.Generator) -> Batch:
    """A batch by Zipf's law, with what `negatives` samples of absences."""
    edges = np.cumsum(shares)
    shows = np.searchsorted(edges, generator.random(setting.batch) * edges[-1], side="right")
    shows = np.minimum(shows, setting.types - 1)
    told = generator.permutation(setting.batch)[: setting.negatives]
    shown = np.zeros(setting.types, bool)
    shown[shows] = True
    others = np.flatnonzero(~shown)
    absent = generator.choice(others, min(setting.negatives, len(others)), replace=False, shuffle=False)
    at = generator.permutation(setting.batch)[: setting.absent_at or setting.batch]
    return Batch(shows, told, absent, np.sort(at))


def load_of(setting: Setting, batch: Batch, owners: Numbers) -> Load:
    """The load of a step.

    What every rank has is evaluated in the shard of the sample, and moves no row.
    """
    ranks, size = setting.ranks, setting.batch
    shard = np.arange(size) * ranks // size  # the rank in whose shard a sample is
    kinds = np.unique(batch.shows)
    by_kind, by_sample, by_absent = owners[kinds], owners[batch.shows], owners[batch.absent]
    needed = np.zeros((ranks, size), bool)
    moving = by_sample != REPLICATED
    needed[by_sample[moving], np.flatnonzero(moving)] = True
    has_some = np.unique(by_kind[by_kind != REPLICATED])
    needed[np.ix_(has_some, batch.told)] = True
    needed[np.ix_(np.unique(by_absent[by_absent != REPLICATED]), batch.absent_at)] = True

    everywhere = int((by_kind == REPLICATED).sum()), int((by_absent == REPLICATED).sum())
    present = np.bincount(np.where(moving, by_sample, shard), minlength=ranks)
    of_kinds = np.bincount(by_kind[by_kind != REPLICATED], minlength=ranks)
    of_absent = np.bincount(by_absent[by_absent != REPLICATED], minlength=ranks)
    absent = of_kinds * len(batch.told) + of_absent * len(batch.absent_at)
    absent = absent + everywhere[0] * np.bincount(shard[batch.told], minlength=ranks)
    absent = absent + everywhere[1] * np.bincount(shard[batch.absent_at], minlength=ranks)

    from_shard = np.stack([np.bincount(shard[row], minlength=ranks) for row in needed])
    own = np.diagonal(from_shard)
    shards = np.bincount(shard, minlength=ranks)
    rows = from_shard.sum(1) + (shards - own if sum(everywhere) else 0)
    return Load(
        present,
        absent,
        of_kinds + of_absent + sum(everywhere),
        rows,
        arriving=from_shard.sum(1) - own,
        leaving=from_shard.sum(0) - own,
    )


def ring_bytes(ranks: int, size: float) -> float:
    """Bytes that each rank sends while `size` bytes are summed around a ring."""
    return 2 * (ranks - 1) / ranks * size


def ring_seconds(setting: Setting, size: float) -> float:
    return 2 * (setting.ranks - 1) * setting.latency + ring_bytes(setting.ranks, size) / setting.bandwidth


def routed_seconds(setting: Setting, load: Load) -> float:
    """Of sending rows to their owners, or their gradients back: the busiest rank's."""
    most = max(load.arriving.max(), load.leaving.max())
    return (setting.ranks - 1) * setting.latency + float(most) * setting.row_bytes / setting.bandwidth


def parts_of(
    setting: Setting, load: Load, measured: Mapping[str, float], *, kinds: int, hot: int
) -> dict[str, dict[str, float]]:
    """The seconds of a step, and the bytes that all ranks send.

    Gradients of the flow and of what every rank has go in one message.

    Args:
        kinds: how many types are evaluated. hot: how many types every rank has.
    """
    ranks, of_type = setting.ranks, measured["parameters"] * FLOAT
    flow, numbers = measured["flow_parameters"] * FLOAT, DOUBLE * (4 * kinds + 2 * setting.batch)
    knowledge = (
        measured["seconds_of_type"] * load.kinds
        + measured["seconds_of_row_present"] * load.present
        + measured["seconds_of_row_absent"] * load.absent
    )
    return {
        "seconds": {
            "fixed": measured["seconds_of_step"] / setting.speed,
            "flow": measured["flow_seconds_of_sample"] * setting.batch / ranks / setting.speed,
            "knowledge": float(knowledge.max()) / setting.speed,
            "knowledge_if_even": float(knowledge.mean()) / setting.speed,
            "z_routed_twice": 2 * routed_seconds(setting, load),
            "flow_gradients": ring_seconds(setting, flow),
            "hot_gradients": ring_bytes(ranks, hot * of_type) / setting.bandwidth,
            "log": ring_seconds(setting, numbers),
        },
        "bytes": {
            "z_routed_twice": 2 * float(load.arriving.sum()) * setting.row_bytes,
            "flow_gradients": ranks * ring_bytes(ranks, flow),
            "hot_gradients": ranks * ring_bytes(ranks, hot * of_type),
            "log": ranks * ring_bytes(ranks, numbers),
        },
    }


def unevenness(values: NDArray[Any]) -> dict[str, float]:
    """The mean, the largest, and the mean max/mean of a step, of (steps, ranks)."""
    ratio = values.max(1) / np.maximum(values.mean(1), 1e-12)
    return {"mean": float(values.mean()), "largest": float(values.max()), "max_over_mean": float(ratio.mean())}


def placements(setting: Setting, shares: Shares, *, hot: int, seed: int) -> dict[str, Numbers]:
    """The owners by how they are chosen; every rank has `hot` types."""
    by_hash = hashed(setting.types, setting.ranks)
    evened = greedy(shares, setting.ranks)
    return {
        "hash": by_hash,
        "two choices": two_choices(shares, setting.ranks, np.random.default_rng(seed)),
        "greedy": evened,
        "hash, hot replicated": replicated(by_hash, shares, hot),
        "greedy, hot replicated": replicated(evened, shares, hot),
    }


def simulated(
    setting: Setting, owners: Numbers, batches: Sequence[Batch], *, measured: Mapping[str, float]
) -> dict[str, Any]:
    """The mean of some steps."""
    hot = int((owners == REPLICATED).sum())
    loads = [load_of(setting, batch, owners) for batch in batches]
    parts = [
        parts_of(setting, load, measured, kinds=len(np.unique(batch.shows)) + len(batch.absent), hot=hot)
        for load, batch in zip(loads, batches, strict=True)
    ]
    mean = {
        what: {key: float(np.mean([part[what][key] for part in parts])) for key in parts[0][what]} for what in parts[0]
    }
    seconds = {key: value for key, value in mean["seconds"].items() if key != "knowledge_if_even"}
    held = np.bincount(owners[owners != REPLICATED], minlength=setting.ranks) + hot
    each = measured["parameters"] * FLOAT + measured["adam_bytes"]
    return {
        "rows": unevenness(np.stack([load.rows for load in loads])),
        "present": unevenness(np.stack([load.present for load in loads])),
        "absent": unevenness(np.stack([load.absent for load in loads])),
        **mean,
        "step_seconds": sum(seconds.values()),
        "step_bytes": sum(mean["bytes"].values()),
        "types_of_rank": {"mean": float(held.mean()), "largest": int(held.max())},
        "bytes_of_rank": {"mean": float(held.mean() * each), "largest": float(held.max() * each)},
    }


def report_of(
    setting: Setting,
    measured: Mapping[str, float],
    *,
    hot: int,
    fewer: int,
    steps: int,
    seed: int,
    limits: Mapping[str, float],
) -> dict[str, Any]:
    """Every way of choosing owners on the same batches, and what breaks first.

    Args:
        fewer: samples at which absent types are evaluated, for a second table.
    """
    shares = popularity(setting.types, setting.zipf)
    owners = placements(setting, shares, hot=hot, seed=seed)
    report: dict[str, Any] = {
        "setting": {**asdict(setting), "replicated": hot, "fewer": fewer, "steps": steps, "seed": seed, **limits},
        "most_popular": float(shares[0]),
    }
    for title, at in (("owners", setting.absent_at), ("owners_told_fewer", fewer)):
        one = replace(setting, absent_at=at)
        batches = [sampled(one, shares, np.random.default_rng((seed, step))) for step in range(steps)]
        report["types_in_batch"] = float(np.mean([len(np.unique(batch.shows)) for batch in batches]))
        report[title] = {name: simulated(one, chosen, batches, measured=measured) for name, chosen in owners.items()}
    network = {"ranks": setting.ranks, "bandwidth": setting.bandwidth}
    grown = growths(measured, batch=setting.batch, samples=int(limits["samples"]), **network)
    return report | {"growth": ended(grown, setting.types, limits)}


def shown(report: Mapping[str, Any]) -> None:
    """Print a report as tables."""
    setting = report["setting"]
    print(
        f"{setting['types']:,} types, {setting['ranks']} ranks, batch {setting['batch']:,}, Zipf {setting['zipf']}: "
        f"{report['types_in_batch']:,.0f} types in a batch, the most popular in {report['most_popular']:.1%} of it"
    )
    for title, at in (("owners", setting["absent_at"] or "all"), ("owners_told_fewer", setting["fewer"])):
        print(f"\nabsent types at {at} samples")
        print(f"{'owners':<24}{'shown':>7}{'max/mean':>9}{'rows':>7}{'max/mean':>9}{'MB sent':>9}", end="")
        print("".join(f"{name:>11}" for name in ("knowledge", "if even", "z routed", "gradients", "step")))
        for name, found in report[title].items():
            seconds = {key: f"{1000 * value:>8.1f} ms" for key, value in found["seconds"].items()}
            gradients = found["seconds"]["flow_gradients"] + found["seconds"]["hot_gradients"]
            print(f"{name:<24}{found['present']['mean']:>7.0f}{found['present']['max_over_mean']:>9.2f}", end="")
            print(f"{found['rows']['mean']:>7.0f}{found['rows']['max_over_mean']:>9.2f}", end="")
            print(f"{found['step_bytes'] / 1e6:>9.0f}{seconds['knowledge']}{seconds['knowledge_if_even']}", end="")
            print(f"{seconds['z_routed_twice']}{1000 * gradients:>8.1f} ms{1000 * found['step_seconds']:>8.1f} ms")
    print(f"\n{'what grows':<46}{'where':<15}{'GB':>9}{'seconds':>10}{'ends at types':>15}")
    for row in report["growth"]:
        print(f"{row['name']:<46}{row['where']:<15}{row['bytes'] / 1e9:>9.2f}{row['seconds']:>10.1f}", end="")
        print(f"{row['ends_at_types']:>15,}")


OPTIONS: list[tuple[str, type, float, str]] = [
    ("types", int, 10**6, "knowledge types"),
    ("ranks", int, 64, "processes"),
    ("batch", int, 4096, "samples of a step, of all ranks"),
    ("zipf", float, 1.0, "exponent of popularity; 0 is uniform"),
    ("latent", int, 1024, "numbers of z"),
    ("negatives", int, 16, "as in [objective]"),
    ("absent-at", int, 0, "samples at which absent types are evaluated; 0 for all"),
    ("bandwidth", float, 1.25e9, "bytes a second, in and out of a rank"),
    ("latency", float, 2e-5, "seconds a message"),
    ("speed", float, 1.0, "of a rank, beside the core that was measured"),
    ("replicated", int, 8, "most popular types that every rank has"),
    ("fewer", int, 256, "as --absent-at, for a second table"),
    ("samples", int, 10**6, "of the training split"),
    ("memory", float, 64e9, "bytes that a rank has"),
    ("patience", float, 600.0, "seconds that one may wait, beside steps"),
    ("step-patience", float, 0.1, "seconds that a step may take more"),
    ("steps", int, 50, "that are simulated"),
    ("seed", int, 0, "of batches"),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--measured", type=Path, default=MEASURED, help="of scale_measure.py --json")
    for name, kind, default, text in OPTIONS:
        parser.add_argument(f"--{name}", type=kind, default=default, help=f"{text} (default: %(default)s)")
    arguments = vars(parser.parse_args())
    setting = Setting(**{field.name: arguments[field.name] for field in fields(Setting)})
    report = report_of(
        setting,
        json.loads(arguments["measured"].read_text(encoding="utf-8")),
        hot=arguments["replicated"],
        fewer=arguments["fewer"],
        steps=arguments["steps"],
        seed=arguments["seed"],
        limits={key: arguments[key] for key in ("samples", "memory", "patience", "step_patience")},
    )
    if arguments["json"]:
        print(json.dumps(report, indent=2))
    else:
        shown(report)


if __name__ == "__main__":
    main()
