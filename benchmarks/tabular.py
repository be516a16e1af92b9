"""Test log-likelihoods of the same flows in four libraries, on five real tables.

    pip install ".[peers,sklearn]" ./plugins/tzk-plugin-baselines
    python benchmarks/tabular.py [--tables iris,wine] [--flows maf] [--seeds 6] [--steps 300] [--json] [--out FILE]

The tables come inside scikit-learn. Values were rounded: they are spread by uniform noise over the smallest difference
of two in their column, as their density has no bound without it. Constant columns and classes are left out.

A seed sets the split (a fifth for the test, a fifth for validation), the noise, the start of the flow and the batches.
Splits and batches are the same in every library.

All have the same layers, widths, batches, steps, learning rates and standardisation, by training rows. Adam follows
half a cosine; validation data choose the step, and end the training early. TzK is trained by `tzk_core.fit`, the others
by the loop here. Figures are nats a row in the unit of the table, larger being better, with standard errors over seeds.
A difference to the best of the other libraries is taken within a seed, and its error is over seeds. The JSON has the
worst and the median row of each seed. With --out, rows that FILE has already are kept, and only those of --tables and
--flows are made again.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn import datasets
from tabular_flows import ARCHITECTURES, RIVALS, Sizes, Unavailable, rival, tzk
from timing import machine
from torch import Tensor, nn

from tzk_core import fit
from tzk_core.random_streams import numpy_stream, seeded, stream
from tzk_core.training.schedules import cosine

TABLES = ("breast_cancer", "wine", "diabetes", "digits", "iris")
LEFT_OUT = {"diabetes": ("sex", "s4")}
"""Columns of few values, or with a few that most rows have."""


@dataclass(frozen=True)
class Training:
    """How every flow is trained: validated after every `every` steps, ended after `patience` validations."""

    steps: int
    learning_rate: float
    batch_size: int = 128
    every: int = 20
    patience: int = 4


class Splits(NamedTuple):
    """Rows of one table, (n, dims) each."""

    train: Tensor
    validation: Tensor
    test: Tensor


def columns(name: str) -> np.ndarray:
    """The columns of a table that have a density, (n, dims) in float64."""
    table = getattr(datasets, f"load_{name}")(**({"scaled": False} if name == "diabetes" else {}))
    kept = [
        column not in LEFT_OUT.get(name, ()) and np.ptp(values) > 0
        for column, values in zip(table.feature_names, table.data.T, strict=True)
    ]
    return np.asarray(table.data[:, np.array(kept)], dtype=np.float64)


def resolution(values: np.ndarray) -> np.ndarray:
    """The smallest difference of two values of a column, (dims,)."""
    return np.array([np.diff(np.unique(column)).min() for column in values.T])


def splits(name: str, seed: int) -> Splits:
    """The table by seed: test, validation and training rows, with noise over the resolution."""
    values = columns(name)
    values = values + resolution(values) * numpy_stream(seed, "noise", name).random(values.shape)
    order = numpy_stream(seed, "split", name).permutation(len(values))
    part = len(values) // 5
    rows = torch.from_numpy(values[order]).float()
    return Splits(rows[2 * part :], rows[part : 2 * part], rows[:part])


def train_tzk(architecture: str, data: Splits, *, sizes: Sizes, training: Training, seed: int) -> Tensor:
    """log p of test rows, (n,), in nats."""
    model = tzk(architecture, data.train.shape[1], sizes=sizes, seed=seed)
    fit(
        model,
        data.train,
        validation=data.validation,
        seed=seed,
        steps=training.steps,
        batch_size=training.batch_size,
        learning_rate=training.learning_rate,
        validate_every=training.every,
        patience=training.patience,
        compile=False,
    )
    with torch.no_grad():
        return model.log_prob(data.test)


def train_rival(
    library: str, architecture: str, data: Splits, *, sizes: Sizes, training: Training, seed: int
) -> Tensor:
    """As `train_tzk`, of another library."""
    mean, deviation = data.train.mean(0), data.train.std(0, unbiased=False)
    train, validation, test = ((part - mean) / deviation for part in data)
    with seeded(seed, library):
        module, log_prob = rival(library, architecture, dims=data.train.shape[1], sizes=sizes)
    _trained(module, log_prob, train=train, validation=validation, training=training, seed=seed)
    with torch.no_grad():
        return log_prob(test) - deviation.log().sum()


def _trained(
    module: nn.Module,
    log_prob: Callable[[Tensor], Tensor],
    *,
    train: Tensor,
    validation: Tensor,
    training: Training,
    seed: int,
) -> None:
    """Train in place as `tzk_core.fit` does: to the step that validation data choose."""
    optimizer = torch.optim.Adam(module.parameters(), lr=training.learning_rate)
    shares = cosine(training.steps)
    best, state, worse = -math.inf, module.state_dict(), 0
    batches = _batches(train, training.batch_size, seed)
    for step in range(training.steps):
        optimizer.param_groups[0]["lr"] = training.learning_rate * shares(step)
        optimizer.zero_grad(set_to_none=True)
        module.train()
        (-log_prob(next(batches)).mean()).backward()
        optimizer.step()
        module.eval()
        if (step + 1) % training.every == 0 or step + 1 == training.steps:
            with torch.no_grad():
                value = float(log_prob(validation).mean())
            worse += 1
            if value > best:
                best, state, worse = value, copy.deepcopy(module.state_dict()), 0
            if worse >= training.patience or not math.isfinite(value):
                break
    module.load_state_dict(state)


def _batches(train: Tensor, size: int, seed: int) -> Iterator[Tensor]:
    """The batches of `tzk_core.fit`, every epoch in a fresh order."""
    size, epoch = min(size, len(train)), 0
    while True:
        order = torch.randperm(len(train), generator=stream(seed, "order", epoch))
        for number in range(len(train) // size):
            yield train[order[number * size : (number + 1) * size]]
        epoch += 1


def scores(table: str, architecture: str, *, sizes: Sizes, training: Training, seeds: int) -> dict[str, Any]:
    """By library, test nats by seed, seconds, and why it is left out."""
    report: dict[str, Any] = {"nats": {}, "row_errors": {}, "worst_row": {}, "median_row": {}, "seconds": {}}
    report["left_out"] = {}
    for library in ("tzk", *RIVALS):
        before = time.process_time()
        try:
            by_seed = [
                _test(library, architecture, table, sizes=sizes, training=training, seed=seed) for seed in range(seeds)
            ]
        except Unavailable as reason:
            report["left_out"][library] = str(reason)
            continue
        report["nats"][library] = [float(values.mean()) for values in by_seed]
        report["row_errors"][library] = [float(values.std() / len(values) ** 0.5) for values in by_seed]
        report["worst_row"][library] = [float(values.min()) for values in by_seed]
        report["median_row"][library] = [float(values.median()) for values in by_seed]
        report["seconds"][library] = round(time.process_time() - before, 1)
    return report | summary(report["nats"])


def _test(library: str, architecture: str, table: str, *, sizes: Sizes, training: Training, seed: int) -> Tensor:
    data = splits(table, seed)
    if library == "tzk":
        return train_tzk(architecture, data, sizes=sizes, training=training, seed=seed)
    return train_rival(library, architecture, data, sizes=sizes, training=training, seed=seed)


def summary(nats: Mapping[str, list[float]]) -> dict[str, Any]:
    """Means and standard errors over seeds, and TzK beside the best of the others.

    The best is that of the largest mean. TzK is worse if it is below that by more than the error of the difference.
    """
    means = {library: statistics.fmean(values) for library, values in nats.items()}
    report: dict[str, Any] = {"mean": means, "error": {name: _error(values) for name, values in nats.items()}}
    others = {name: mean for name, mean in means.items() if name != "tzk"}
    if not others:
        return report
    best = max(others, key=others.__getitem__)
    differences = [ours - theirs for ours, theirs in zip(nats["tzk"], nats[best], strict=True)]
    difference, error = statistics.fmean(differences), _error(differences)
    return report | {"best": best, "difference": difference, "difference_error": error, "worse": difference < -error}


def _error(values: list[float]) -> float:
    """The standard error of a mean over seeds; infinite for one seed."""
    return statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else math.inf


def markdown(report: Mapping[str, Any]) -> str:
    """The results as a table, the best of each row in bold."""
    libraries = ("tzk", *RIVALS)
    lines = [
        "| table | flow | " + " | ".join(("TzK", *RIVALS)) + " | TzK less the best other |",
        "|---|---|" + "---:|" * (len(libraries) + 1),
    ]
    for table, by_flow in report["results"].items():
        for flow, of in by_flow.items():
            top = max(of["mean"].values())
            cells = [_cell(of, library, top) for library in libraries]
            last = f"{of['difference']:+.2f} ± {of['difference_error']:.2f}" if "best" in of else "–"
            lines.append(f"| {table} | {flow} | " + " | ".join(cells) + f" | {last} |")
    return "\n".join(lines)


def _cell(of: Mapping[str, Any], library: str, top: float) -> str:
    if library not in of["mean"]:
        return "–"
    text = f"{of['mean'][library]:.2f} ± {of['error'][library]:.2f}"
    return f"**{text}**" if of["mean"][library] == top else text


def kept(before: Mapping[str, Any], report: Mapping[str, Any]) -> dict[str, Any]:
    """The results of an earlier report.

    Raises:
        SystemExit: if it was of other settings.
    """
    other = [key for key in report if key != "results" and before.get(key) != report[key]]
    if other:
        sys.exit(f"--out has results of another {', '.join(other)}: take another file")
    return dict(before["results"])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tables", default=",".join(TABLES), help="(default: %(default)s)")
    parser.add_argument("--flows", default=",".join(ARCHITECTURES), help="(default: %(default)s)")
    for flag, default, text in (("seeds", 6, "how many"), ("steps", 300, "at most"), ("layers", 4, "of a flow")):
        parser.add_argument(f"--{flag}", type=int, default=default, help=f"{text} (default: %(default)s)")
    parser.add_argument("--hidden", type=int, default=32, help="width of networks (default: %(default)s)")
    parser.add_argument("--learning-rate", type=float, default=3e-3, help="(default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--out", type=Path, help="a file for the JSON")
    options = parser.parse_args()
    tables, flows = options.tables.split(","), options.flows.split(",")
    if not set(tables) <= set(TABLES) or not set(flows) <= set(ARCHITECTURES):
        parser.error(f"expected --tables of {', '.join(TABLES)}, and --flows of {', '.join(ARCHITECTURES)}")
    sizes, training = Sizes(options.layers, options.hidden), Training(options.steps, options.learning_rate)
    report: dict[str, Any] = {"results": {}, "layers": sizes.steps, "hidden": sizes.hidden, "seeds": options.seeds}
    report |= {"steps": training.steps, "learning_rate": training.learning_rate, "batch_size": training.batch_size}
    if options.out and options.out.exists():
        report["results"] = kept(json.loads(options.out.read_text()), report)
    report |= machine()
    for table in tables:
        report["results"].setdefault(table, {})
        for flow in flows:
            report["results"][table][flow] = scores(table, flow, sizes=sizes, training=training, seeds=options.seeds)
            if options.out:
                options.out.write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report, indent=2) if options.json else markdown(report))


if __name__ == "__main__":
    main()
