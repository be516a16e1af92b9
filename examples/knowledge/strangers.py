"""Strangers: does a model tell what it was not trained on?

One is of MNIST alone, one of Omniglot alone.

    tzk run examples/online/mnist.toml --out runs/mnist
    tzk run examples/ood/omniglot.toml --out runs/omniglot
    python examples/knowledge/strangers.py --mnist runs/mnist --omniglot runs/omniglot --json strangers.json

The score is `dose` of tzk-plugin-outside, which the run keeps: `tzk score RUN IMAGES --statistic dose` has it.
It is fitted to training images of the model's own data, and its units and thresholds to validation images. Statistics
and method were chosen on corruptions of validation images (--corruptions). The rivals of stranger_rivals.py see the
same training images. Figures are areas under ROC curves, on test images.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from corruptions import corrupted
from results_files import write_results
from stranger_rivals import Nearest, Network, Principal
from torch import Tensor
from torch.nn import functional
from tzk_plugin_omniglot.omniglot import Omniglot
from tzk_plugin_outside.dose import Dose
from tzk_plugin_outside.dose_of_run import dose_of_run, training_images
from tzk_plugin_outside.evidence import dequantised
from tzk_plugin_outside.roc import roc_area, threshold

from tzk_core.cli import edge
from tzk_core.data.glyphs import GlyphLetters, GlyphSigns
from tzk_core.data.mnist import Mnist
from tzk_core.data.protocol import Samples
from tzk_core.random_streams import stream
from tzk_core.runs.experiment import Experiment
from tzk_core.runs.opened import open_run

LEVELS, SIZE, FALSE_ALARMS = 256, 32, 0.05
VALIDATION = 2000
"""Validation images at most, as `tzk score` has it."""

LABEL = {"mnist": "label", "omniglot": "alphabet"}


class Score(Protocol):
    """Large for usual images."""

    def score(self, images: Tensor) -> Tensor:
        """(n,), of images, (n, 1, side, side), in [0, 1]."""


def some(samples: Samples, limit: int, seed: int) -> Tensor:
    """At most `limit` images, chosen by seed, in random order."""
    return samples.T[torch.randperm(len(samples.T), generator=stream(seed, "some"))[:limit]]


def dataset(name: str) -> Mnist | Omniglot:
    if name == "mnist":
        return Mnist(size=SIZE, validation=5000, seed=0)
    return Omniglot(size=SIZE, validation=1000, seed=0)


def opened(run: Path) -> tuple[Experiment, Dose]:
    """A run, and the score that is fitted to it."""
    experiment = open_run(run)
    return experiment, dose_of_run(run, experiment.config, experiment.model, limit=VALIDATION)


def trained_on(experiment: Experiment, name: str) -> tuple[Tensor, Tensor]:
    """The training images of `dose`, (n, 1, 32, 32), and their classes, (n,)."""
    chosen = training_images(experiment)
    labels = experiment.train_samples[name].labels[LABEL[name]][[row for _, row in chosen.rows]]
    return chosen.T, torch.from_numpy(np.unique(labels, return_inverse=True)[1])


def outside(name: str, test: Tensor, *, limit: int, seed: int) -> dict[str, Tensor]:
    """Sets that the model of `name` has never seen, by name.

    test: its own test images.
    """
    other = "omniglot" if name == "mnist" else "mnist"
    source = stream(seed, "noise")
    letters, signs = (
        functional.pad(some(glyphs(28, train=10, validation=1, test=limit).split("test"), limit, seed), (2, 2, 2, 2))
        for glyphs in (GlyphLetters, GlyphSigns)
    )
    sets = {other: some(dataset(other).split("test"), limit, seed), "letters": letters, "signs": signs}
    if name == "mnist":
        sets["mirror images"] = test.flip(3)
    noise = torch.randint(LEVELS, (min(limit, 500), 1, SIZE, SIZE), generator=source)
    grey = torch.arange(0, LEVELS, max(1, LEVELS // limit)).view(-1, 1, 1, 1).expand(-1, 1, SIZE, SIZE)
    return sets | {"noise": noise.to(torch.uint8), "constants": grey.to(torch.uint8)}


def rows(inside: Mapping[str, Tensor], there: Mapping[str, Mapping[str, Tensor]]) -> dict[str, dict[str, float]]:
    """By score and set, the area under the ROC curve."""
    return {
        name: {of: roc_area(values, others[name].nan_to_num(nan=-torch.inf)).area for of, others in there.items()}
        for name, values in inside.items()
    }


def of_run(name: str, run: Path, *, limit: int, seed: int, corruptions: bool) -> dict[str, Any]:
    """Areas of all scores of a model and its rivals, and detections."""
    started = time.process_time()
    experiment, dose = opened(run)
    train, classes = trained_on(experiment, name)
    rivals: dict[str, Score] = {
        "softmax of a network": Network(train, classes, seed=seed),
        "nearest in pixels": Nearest(train),
        "principal directions": Principal(train),
    }
    split = some(experiment.datasets[name].split("validation" if corruptions else "test"), limit, seed)
    if corruptions:
        inside = split[: len(split) // 2]
        sets = corrupted(split[len(inside) :], stream(seed, "corruptions"))
    else:
        inside, sets = split, outside(name, split, limit=limit, seed=seed)

    def scores(T: Tensor) -> dict[str, Tensor]:
        x = dequantised(T, LEVELS, seed)
        return dose.statistics(x) | {rival: score.score(x) for rival, score in rivals.items()}

    here, there = scores(inside), {what: scores(T) for what, T in sets.items()}
    limits = threshold(dose.score(experiment.samples(name, "validation", VALIDATION)[0]), FALSE_ALARMS)
    result: dict[str, Any] = {
        "counts": {"inside": len(inside)} | {what: len(T) for what, T in sets.items()},
        "areas": rows(here, there),
        "false_alarms": (here["dose"] < limits).double().mean().item(),
        "detected": {what: (values["dose"] < limits).double().mean().item() for what, values in there.items()},
    }
    if name == "mnist" and not corruptions:
        result["ceiling"] = {"mirror images": _told_mirrors(train, dequantised(inside, LEVELS, seed), seed)}
    return result | {"rivals": list(rivals), "seconds": time.process_time() - started}


def _told_mirrors(train: Tensor, test: Tensor, seed: int) -> float:
    """The area of a network trained to tell mirrored training images from others.

    It has seen what is outside: no rival, but a ceiling.
    """
    images, classes = torch.cat([train, train.flip(3)]), torch.arange(2).repeat_interleave(len(train))
    network = Network(images, classes, seed=seed)
    usual = network.log_probabilities(test)[:, 0], network.log_probabilities(test.flip(3))[:, 0]
    return roc_area(*usual).area


def written(results: dict[str, Any]) -> str:
    """The results as tables in Markdown."""
    lines = [f"Command: `{results['command']}`. Seed {results['seed']}; {results['machine']}."]
    for name, result in results["models"].items():
        sets = [what for what in result["counts"] if what != "inside"]
        counts = ", ".join(f"{what} {count:,}" for what, count in result["counts"].items())
        lines += ["", f"Model of {name}. Images: {counts}. {result['seconds']:.0f} s of processor time.", ""]
        lines += ["| area under the ROC curve | " + " | ".join(sets) + " |", "|---|" + "---:|" * len(sets)]
        for score, areas in result["areas"].items():
            lines.append(f"| {score} | " + " | ".join(f"{areas[what]:.3f}" for what in sets) + " |")
        share = [f"{100 * result['detected'][what]:.1f}" for what in sets]
        alarms = f"detected by `dose`, %, at {100 * result['false_alarms']:.1f} % false alarms"
        lines.append(f"| {alarms} | " + " | ".join(share) + " |")
        for what, area in result.get("ceiling", {}).items():
            lines += ["", f"Ceiling, a network trained to tell {what}: {area:.3f}."]
    return "\n".join(lines) + "\n"


def options_of_runs(description: str | None) -> argparse.ArgumentParser:
    """A parser of the runs of both models, and of where figures go."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mnist", type=Path, help="the run of a model of MNIST alone")
    parser.add_argument("--omniglot", type=Path, help="the run of a model of Omniglot's background alphabets alone")
    parser.add_argument("--machine", default="", help="a description of the machine, for the record")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="where to write the figures; a table goes beside it, as .md")
    return parser


def runs_of(parser: argparse.ArgumentParser, options: argparse.Namespace) -> dict[str, Path]:
    """The runs that were given, by the name of their data."""
    runs = {name: run for name in LABEL if (run := getattr(options, name))}
    if not runs:
        parser.error("expected --mnist RUN, --omniglot RUN or both")
    return runs


def main() -> None:
    parser = options_of_runs(__doc__)
    parser.add_argument("--corruptions", action="store_true", help="validation images, corrupted, and no outside set")
    parser.add_argument("--limit", type=int, default=2000, help="images of a set at most (default: %(default)s)")
    options = parser.parse_args()

    torch.set_flush_denormal(True)
    runs = runs_of(parser, options)
    words = [f"--{name} runs/{run.name}" for name, run in runs.items()] + ["--corruptions"] * options.corruptions
    results: dict[str, Any] = {
        "format": 1,
        "command": " ".join(["python examples/knowledge/strangers.py", *words, f"--limit {options.limit}"]),
        "seed": options.seed,
        "machine": options.machine,
        "models": {
            name: of_run(name, run, limit=options.limit, seed=options.seed, corruptions=options.corruptions)
            for name, run in runs.items()
        },
    }
    print("\n" + written(results))
    write_results(options.json, results, title="Strangers", text=written(results))


if __name__ == "__main__":
    with edge.script():
        main()
