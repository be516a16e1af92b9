"""Few labels on MNIST: a missing κ is filled in by EM over all images.

    tzk run examples/knowledge/flow-omniglot.toml --out runs/flow-omniglot
    python examples/knowledge/few_labels.py runs/flow-omniglot --json few-labels.json

The flow is frozen. Ten knowledge types of type `features`, with features by scattering, are fitted to all training
images, of which 100 or 1,000 have a label, the same number of every digit. Labels spread along a graph of nearest
neighbours first. Then a fit weighs every image by its share of the class, and Bayes weighs it again, a few times. With
all labels there is one fit; the temperature of its Bayes posterior is that of the least negative log-likelihood on
validation. Rivals have the same labels. Choices were made on the validation split; figures are of the test split
(--split).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from neighbours import balanced, graph, nearest, spread, vote
from results_files import write_results
from seen_images import LEVELS, SPLITS, Seen, images_of, see
from torch import Tensor
from torch.nn import functional
from tzk_plugin_features.features import Features
from tzk_plugin_features.knowledge import FeatureKnowledge

import tzk_core
from tzk_core.cli import edge
from tzk_core.data.dequantise import dequantise
from tzk_core.random_streams import stream

CLASSES, CALIBRATION, BINS = 10, 1000, 15
SCHEDULE = ((1, 2), (12, 3))
"""Of EM: components of a type, and rounds with so many."""

TYPES: dict[str, Any] = {"image_features": "scattering", "shrinkage": 0.02}

QUOTED = [
    ("FlowGMM, rerun by others", "91.7", "", "Sham, 2026, README of github.com/vincentsham/masters-thesis; looked up"),
    ("FlowGMM", "", "98.9", "Izmailov et al. 2020; from memory"),
    ("SCNF", "98.1", "", "Atanov et al. 2019; from memory"),
    ("M1+M2", "96.7", "97.6", "Kingma et al. 2014, as github.com/jonemeth/generative-models quotes it; looked up"),
    ("M1+M2, rerun by others", "97.2", "97.6", "README of github.com/jonemeth/generative-models; looked up"),
    ("ladder networks", "98.9", "", "Rasmus et al. 2015, as issue 1 of github.com/CuriousAI/ladder has it; looked up"),
    ("ladder networks, another combinator", "99.0", "99.0", "Pezeshki et al. 2016, abstract; looked up"),
]
"""Accuracies of others in percent, with 100 and 1,000 labels. None was run here."""


class TenTypes:
    """Knowledge types of the ten digits, with the same features."""

    def __init__(self, features: Features, shape: tuple[int, ...], reference: Tensor, **arguments: Any) -> None:
        self.reference = reference
        self.types: list[FeatureKnowledge] = []
        for digit in range(CLASSES):
            knowledge = tzk_core.build_knowledge("features", shape, 0, name=f"digit-{digit}", **arguments)
            assert isinstance(knowledge, FeatureKnowledge)
            knowledge.share(features)
            self.types.append(knowledge)

    def fit(self, y: Tensor, shares: Tensor) -> None:
        """Fit every type to its shares of the samples, (n, 10)."""
        for knowledge, own in zip(self.types, shares.T, strict=True):
            knowledge.condition_on(y[own > 0], self.reference, weights=own[own > 0])

    @torch.no_grad()
    def log_ratios(self, y: Tensor) -> Tensor:
        """log p(T given κ=1) - log p(T) of every digit, (n, 10), in nats."""
        return torch.stack([knowledge.log_ratio_of(y) for knowledge in self.types], 1)

    @torch.no_grad()
    def difference(self, run: Path, images: Tensor, log_ratios: Tensor) -> dict[str, float]:
        """The answers of a model with these types, through its flow, against `log_ratios`."""
        model = tzk_core.load(run)
        for digit, knowledge in enumerate(self.types):
            model.add(f"digit-{digit}", knowledge)
        prior = model.log_prob(images)
        through = torch.stack([model.log_prob(images, f"digit-{digit}") - prior for digit in range(CLASSES)], 1)
        same = (through.argmax(1) == log_ratios.argmax(1)).float().mean()
        nats = float((through - log_ratios).abs().max())
        return {"images": len(images), "largest_difference_nats": nats, "same_class": float(same)}


def expectation_maximisation(types: TenTypes, y: Tensor, shares: Tensor, *, labels: Tensor, rounds: int) -> Tensor:
    """Fit types to shares, and weigh by Bayes again, `rounds` times.

    Args:
        shares: to begin with, (n, 10).
        labels: one-hot, (n, 10); 0 where there is none.

    Returns:
        The last shares, (n, 10).
    """
    known = labels.sum(1, keepdim=True) > 0
    for _ in range(rounds):
        types.fit(y, torch.where(known, labels, shares))
        shares = types.log_ratios(y).softmax(1)
    return shares


def labelled(digits: Tensor, count: int, seed: int) -> Tensor:
    """One-hot labels of `count` images, as many of every digit; 0 elsewhere, (n, 10)."""
    labels = torch.zeros(len(digits), CLASSES)
    source = stream(seed, "labels")
    for digit in range(CLASSES):
        rows = torch.nonzero(digits == digit)[:, 0]
        labels[rows[torch.randperm(len(rows), generator=source)[: count // CLASSES]], digit] = 1
    return labels


def accuracy(scores: Tensor, digits: Tensor) -> float:
    return float((scores.argmax(1) == digits).double().mean())


def calibration_error(probabilities: Tensor, digits: Tensor) -> float:
    """The expected calibration error: of the largest probability, in `BINS` bins of equal width."""
    confidence, chosen = probabilities.max(1)
    bins = (confidence * BINS).long().clamp_max(BINS - 1)
    gaps = torch.zeros(BINS).index_add_(0, bins, (chosen == digits).float() - confidence)
    return float(gaps.abs().sum() / len(digits))


def temperature_of(log_ratios: Tensor, digits: Tensor) -> float:
    """The temperature of the least negative log-likelihood, of 81 from 1 to 100."""
    temperatures = torch.logspace(0, 2, 81)
    losses = [functional.cross_entropy(log_ratios / temperature, digits) for temperature in temperatures]
    return float(temperatures[int(torch.stack(losses).argmin())])


Learner = Callable[[Seen, Tensor], Tensor]
"""From one-hot labels of the training images, (n, 10), scores of the test images, (m, 10)."""


def alone(seen: Seen, labels: Tensor) -> Tensor:
    """Knowledge types fitted to the labelled images alone."""
    types = types_of(seen)
    types.fit(seen.y["train"], labels)
    return types.log_ratios(seen.y[seen.asked])


def spread_among(space: str) -> Learner:
    """Labels that spread along the graph; the neighbours of a test image vote."""

    def learn(seen: Seen, labels: Tensor) -> Tensor:
        shares = balanced(spread(graph(seen.neighbours[space]["train"]), labels))
        return vote(seen.neighbours[space][seen.asked], shares)

    return learn


def nearest_in_pixels(seen: Seen, labels: Tensor) -> Tensor:
    known = labels.sum(1) > 0
    found = nearest(seen.shown.T.flatten(1), seen.train.T[known].flatten(1), 1)
    return labels[known][found.rows[:, 0]]


def types_of(seen: Seen, **arguments: Any) -> TenTypes:
    shape = tuple(seen.train.T.shape[1:])
    return TenTypes(seen.features, shape, seen.y["train"][:CALIBRATION], **(TYPES | arguments))


def filled_in(seen: Seen, labels: Tensor) -> TenTypes:
    """Types by EM, where most labels are missing.

    It begins with the largest share of labels that spread.
    """
    spread_shares = balanced(spread(graph(seen.neighbours["features"]["train"]), labels))
    shares = functional.one_hot(spread_shares.argmax(1), CLASSES).float()
    for components, rounds in SCHEDULE:
        types = types_of(seen, components=components)
        shares = expectation_maximisation(types, seen.y["train"], shares, labels=labels, rounds=rounds)
    return types


RIVALS: dict[str, Learner] = {
    "the labelled alone, same types": alone,
    "label spreading in the features": spread_among("features"),
    "label spreading in pixels": spread_among("pixels"),
    "nearest neighbour in pixels": nearest_in_pixels,
}


def over_seeds(seen: Seen, run: Path, *, count: int, options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Accuracies and seconds of every learner, by its name, with `count` labels of every seed."""
    rows: dict[str, dict[str, Any]] = {"TzK": {"accuracies": [], "seconds": []}}
    for seed in range(options.seeds):
        labels = labelled(seen.train.digits, count, seed)
        started = time.process_time()
        types = filled_in(seen, labels)
        rows["TzK"]["seconds"].append(time.process_time() - started)
        log_ratios = types.log_ratios(seen.y[seen.asked])
        rows["TzK"]["accuracies"].append(accuracy(log_ratios, seen.shown.digits))
        if seed == 0:
            rows["TzK"]["through_the_flow"] = through_the_flow(types, seen, run)
        for name, learn in RIVALS.items() if not options.no_rivals else ():
            started = time.process_time()
            scores = learn(seen, labels)
            row = rows.setdefault(name, {"accuracies": [], "seconds": []})
            row["seconds"].append(time.process_time() - started)
            row["accuracies"].append(accuracy(scores, seen.shown.digits))
        print(count, seed, {name: f"{100 * row['accuracies'][-1]:.2f}" for name, row in rows.items()}, flush=True)
    return rows


def through_the_flow(types: TenTypes, seen: Seen, run: Path) -> dict[str, float]:
    """`TenTypes.difference` of the first test images, dequantised."""
    levels = (255 * seen.shown.T[:50]).round().to(torch.uint8)
    noisy = dequantise(levels, stream(0, "noise"), LEVELS)
    y = seen.features(noisy)
    return types.difference(run, noisy, types.log_ratios(y))


def with_all_labels(seen: Seen, run: Path, options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Accuracy and calibration with all labels; the temperature is of the validation split."""
    labels = functional.one_hot(seen.train.digits, CLASSES).float()
    started = time.process_time()
    types = types_of(seen)
    types.fit(seen.y["train"], labels)
    seconds = time.process_time() - started
    scores = {split: types.log_ratios(seen.y[split]) for split in SPLITS[1:]}
    temperature = temperature_of(scores["validation"], seen.images["validation"].digits)
    row = {
        "accuracies": [accuracy(scores[seen.asked], seen.shown.digits)],
        "seconds": [seconds],
        "calibration_error": calibration_error(scores[seen.asked].softmax(1), seen.shown.digits),
        "temperature": temperature,
        "calibration_error_at_temperature": calibration_error(
            (scores[seen.asked] / temperature).softmax(1), seen.shown.digits
        ),
        "log_likelihood_at_temperature": -float(
            functional.cross_entropy(scores[seen.asked] / temperature, seen.shown.digits)
        ),
        "through_the_flow": through_the_flow(types, seen, run),
    }
    rows = {"TzK": row}
    if not options.no_rivals:
        found = {space: labels[own[seen.asked].rows[:, 0]] for space, own in seen.neighbours.items()}
        for space, scores_of_rival in found.items():
            right = accuracy(scores_of_rival, seen.shown.digits)
            rows[f"nearest neighbour in {space}"] = {"accuracies": [right], "seconds": []}
    return rows


def written(results: dict[str, Any]) -> str:
    """The results as a table in Markdown."""
    shared = ", ".join(f"{name} {seconds:.0f}" for name, seconds in results["shared_seconds"].items())
    lines = [
        f"Command: `{results['command']}`. Split: {results['split']}; {results['machine']}; "
        f"{results['seconds']:.0f} s of processor time in all, without the training of the flow. "
        f"Shared by all rows, in seconds: {shared}.",
        "",
        "| labels | learner | accuracy, % | by seed | seconds |",
        "|---:|---|---:|---|---:|",
    ]
    for labels, rows in results["rows"].items():
        for name, row in rows.items():
            values = 100 * torch.tensor(row["accuracies"], dtype=torch.float64)
            spread_of = f" ± {float(values.std() / len(values) ** 0.5):.2f}" if len(values) > 1 else ""
            each = ", ".join(f"{value:.2f}" for value in values.tolist())
            seconds = f"{sum(row['seconds']) / len(row['seconds']):.1f}" if row["seconds"] else ""
            lines.append(f"| {labels} | {name} | {float(values.mean()):.2f}{spread_of} | {each} | {seconds} |")
    for name, few, more, _ in QUOTED:
        lines += [
            f"| {count} | *{name}* (quoted) | {value} | | |" for count, value in ((100, few), (1000, more)) if value
        ]
    if "all" in results["rows"]:
        row = results["rows"]["all"]["TzK"]
        lines += [
            "",
            f"Calibration with all labels, {BINS} bins of equal width: ECE {row['calibration_error']:.4f} as it is, "
            f"{row['calibration_error_at_temperature']:.4f} at temperature {row['temperature']:.1f}.",
        ]
    lines += ["", "± is the standard error over seeds, which choose the labels. Quoted:"]
    return "\n".join([*lines, *(f"- {name}: {source}" for name, _, _, source in QUOTED)]) + "\n"


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="the run folder of the frozen flow")
    parser.add_argument("--labels", type=int, nargs="*", default=[100, 1000], help="(default: 100 1000)")
    parser.add_argument("--seeds", type=int, default=5, help="of the labels (default: %(default)s)")
    parser.add_argument("--split", choices=("validation", "test"), default="test")
    parser.add_argument("--most", type=int, help="images of a split at most; default all")
    parser.add_argument("--keep", type=Path, help="a folder where features and neighbours are kept, and taken from")
    parser.add_argument("--no-rivals", action="store_true", help="only TzK")
    parser.add_argument("--machine", default="", help="a description of the machine, for the record")
    parser.add_argument("--json", type=Path, help="where to write the figures; a table goes beside it, as .md")
    return parser.parse_args()


def main() -> None:
    options = read_options()
    torch.set_flush_denormal(True)
    torch.set_num_threads(1)
    tzk_core.load(options.run)  # what is not there is said before anything is computed
    images = {split: images_of(split, options.most) for split in SPLITS}
    spaces = ("features",) if options.no_rivals else ("features", "pixels")
    with torch.no_grad():
        seen = see(images, TYPES, asked=options.split, spaces=spaces, folder=options.keep)
        print({name: f"{seconds:.0f} s" for name, seconds in seen.seconds.items()}, flush=True)
        started = time.process_time()
        rows = {"all": with_all_labels(seen, options.run, options)}
        for count in options.labels:
            rows[str(count)] = over_seeds(seen, options.run, count=count, options=options)
    results = {
        "format": 1,
        "command": "python examples/knowledge/few_labels.py " + " ".join(_words(options)),
        "split": options.split,
        "machine": options.machine,
        "seconds": time.process_time() - started + sum(seen.seconds.values()),
        "shared_seconds": dict(seen.seconds),
        "rows": rows,
        "quoted": [
            {"name": name, "percent_100": few, "percent_1000": more, "source": source}
            for name, few, more, source in QUOTED
        ],
    }
    print("\n" + written(results))
    write_results(options.json, results, title="Few labels on MNIST", text=written(results))


def _words(options: argparse.Namespace) -> list[str]:
    """The command again, with the run folder as it would be named here."""
    words = [f"runs/{options.run.name}"]
    words += [f"--labels {' '.join(map(str, options.labels))}"] * (options.labels != [100, 1000])
    words += [f"--seeds {options.seeds}"] * (options.seeds != 5)
    words += ["--split validation"] * (options.split == "validation")
    words += [f"--most {options.most}"] * (options.most is not None)
    return words + ["--no-rivals"] * options.no_rivals


if __name__ == "__main__":
    with edge.script():
        main()
