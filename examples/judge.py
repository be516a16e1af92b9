"""Judgements of samples, by a network that never saw the model, and by the model.

The question is whether they show what was asked for.

    python examples/judge.py RUN [--number 1000] [--temperature 1 0.7] [--latents 16] [--json]

The judge is a small convolutional network. It is trained on the training split of the run's own data set, to classify
the knowledge types of one table of the config ("digit-{label}" for MNIST). Printed is the share of samples of every
knowledge type that it assigns to that type. The model's own classifiers answer beside it: the largest p(κ=1 given T),
and Bayes, the largest p(κ=1) p(T given κ=1). All three classify the test split first, which shows how reliable they
are. Samples are rounded to whole grey levels, as images are stored.

With --latents N images are judged too whose first N latents are those of validation images and all others sampled. Of
a flow whose first latents say what an image is of, that tells what the flow gets wrong from what knowledge types do.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tzk_core.cli import edge
from tzk_core.config import load_run_config
from tzk_core.data.dequantise import dequantise
from tzk_core.errors import TzkError
from tzk_core.evaluation.classification import classification
from tzk_core.evaluation.likelihood import EvaluationSplit
from tzk_core.evaluation.results import log_weights
from tzk_core.evaluation.scoring import score
from tzk_core.random_streams import seeded, stream
from tzk_core.runs.experiment import Experiment
from tzk_core.runs.folder import RunFolder

CHUNK = 250


@dataclass(frozen=True)
class Labelled:
    """Samples with their classes.

    T: (n, *shape), uint8 grey levels. classes: (n,), the positions of the knowledge types that are present.
    """

    T: Tensor
    classes: Tensor


def labelled(experiment: Experiment, names: Sequence[str], *, dataset: str, split: str) -> Labelled:
    """The samples of a split with exactly one of the knowledge types, with labels."""
    samples = experiment.datasets[dataset].split(split)
    annotation = experiment.annotation.of({dataset: samples})
    present = annotation.presence[dataset][:, [annotation.names.index(name) for name in names]] == 1
    rows = present.sum(1) == 1
    return Labelled(samples.T[rows], present[rows].float().argmax(1))


class Network(nn.Sequential):
    """Three convolutions with batch normalisation and one linear layer.

    They take grey levels, (n, c, h, w), in [0, 1].
    """

    def __init__(self, channels: int, classes: int, width: int = 16) -> None:
        parts: list[nn.Module] = []
        for before, after in ((channels, width), (width, 2 * width), (2 * width, 4 * width)):
            parts += [nn.Conv2d(before, after, 3, padding=1, bias=False), nn.MaxPool2d(2), nn.BatchNorm2d(after)]
            parts += [nn.ReLU()]
        super().__init__(*parts, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16 * width, classes))


def train(data: Labelled, classes: int, *, epochs: float = 2.0, seed: int = 0, batch: int = 128) -> Network:
    """A network trained by Adam with one cycle of the rate.

    Its random numbers derive from the seed.
    """
    with seeded(seed, "judge"):
        network = Network(data.T.shape[1], classes)
    source = stream(seed, "judge", "batches")
    steps = max(1, round(epochs * len(data.T) / batch))
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-3)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=1e-2, total_steps=steps)
    rows = torch.empty(0, dtype=torch.long)
    for _ in range(steps):
        if len(rows) < batch:
            rows = torch.cat([rows, torch.randperm(len(data.T), generator=source)])
        now, rows = rows[:batch], rows[batch:]
        loss = nn.functional.cross_entropy(network(_scaled(data.T[now])), data.classes[now])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        cycle.step()
    return network.eval()


@torch.no_grad()
def classify(network: Network, T: Tensor) -> Tensor:
    """The classes, (n,), that the network assigns to images.

    Images are in grey levels, (n, c, h, w).
    """
    return torch.cat([network(_scaled(part)).argmax(1) for part in T.split(4 * CHUNK)])


def own_accuracies(
    experiment: Experiment, names: Sequence[str], data: Labelled, *, importance_samples: int
) -> dict[str, float]:
    """Accuracies of the model's own classifiers on images in grey levels."""
    model, seed, levels = experiment.model, experiment.config.seed, experiment.levels

    def dequantised(*number: int) -> Tensor:
        return dequantise(data.T, stream(seed, "judged", *number), levels)

    presence = nn.functional.one_hot(data.classes, len(names)).float()
    draws = 1 if levels is None else experiment.config.evaluation.dequantisations
    split = EvaluationSplit(
        dataset="judged",
        split="test",
        T=dequantised(),
        presence=presence,
        knowledge=tuple(names),
        characteristics={},
        levels=levels,
        original_dims=None,
        share=1.0,
        draws=draws,
        redraw=dequantised,
    )
    scores = score(model, split, importance_samples, everywhere=names, seed=seed)
    accuracies = classification(scores, "", log_weights(model, names))
    return {"by_presence": accuracies["discriminator_accuracy"], "by_bayes": accuracies["bayes_accuracy"]}


def sampled(experiment: Experiment, name: str, number: int, *, temperature: float, seed: int = 0) -> Tensor:
    """Samples of a knowledge type in grey levels, (n, c, h, w), uint8."""
    parts = []
    for start in range(0, number, CHUNK):
        count = min(CHUNK, number - start)
        T = experiment.model.sample(count, name, temperature=temperature, seed=seed + start)
        parts.append(_grey(T, experiment))
    return torch.cat(parts)


def redrawn(experiment: Experiment, data: Labelled, dims: int, *, temperature: float) -> Labelled:
    """The images with all latents but the first `dims` sampled anew."""
    model, parts = experiment.model, []
    for start in range(0, len(data.T), CHUNK):
        T = dequantise(data.T[start : start + CHUNK], stream(start, "redrawn"), experiment.levels)
        with torch.no_grad():
            z = model.encode(T)
            noise = temperature * torch.randn(z.shape, generator=stream(start, "redrawn", "latents"), dtype=z.dtype)
            parts.append(_grey(model.decode(torch.cat([z[:, :dims], noise[:, dims:]], 1)), experiment))
    return Labelled(torch.cat(parts), data.classes)


def judge(
    experiment: Experiment,
    names: Sequence[str],
    dataset: str,
    *,
    number: int = 1000,
    temperatures: Sequence[float] = (1.0,),
    epochs: float = 2.0,
    importance_samples: int = 16,
    judge_only: bool = False,
    latents: int = 0,
) -> dict[str, Any]:
    """All accuracies, in [0, 1], on the test split and on samples.

    They are "test", and by temperature those of the knowledge types, their mean, "all", and "redrawn" with `latents`.
    """
    training = labelled(experiment, names, dataset=dataset, split="train")
    network = train(training, len(names), epochs=epochs)
    test = labelled(experiment, names, dataset=dataset, split="test")

    def accuracies(data: Labelled) -> dict[str, float]:
        by_judge = (classify(network, data.T) == data.classes).double().mean().item()
        own = {} if judge_only else own_accuracies(experiment, names, data, importance_samples=importance_samples)
        return {"by_judge": by_judge, **own}

    results: dict[str, Any] = {"dataset": dataset, "number": number, "importance_samples": importance_samples}
    results["test"] = {"count": len(test.T), **accuracies(test)}
    results["samples"] = []
    for temperature in temperatures:
        by_name: dict[str, dict[str, float]] = {}
        for index, name in enumerate(names):
            T = sampled(experiment, name, number, temperature=temperature)
            by_name[name] = accuracies(Labelled(T, torch.full((number,), index)))
        keys = by_name[names[0]]
        mean = {key: sum(values[key] for values in by_name.values()) / len(names) for key in keys}
        results["samples"].append({"temperature": temperature, "all": mean, "knowledge": by_name})
        if latents:
            real = labelled(experiment, names, dataset=dataset, split="validation")
            few = Labelled(real.T[:number], real.classes[:number])
            again = redrawn(experiment, few, latents, temperature=temperature)
            results["samples"][-1]["redrawn"] = {"latents": latents, "count": len(few.T), **accuracies(again)}
    return results


HEADERS = {"by_judge": "network", "by_presence": "p(κ given T)", "by_bayes": "Bayes"}


def markdown(results: dict[str, Any]) -> str:
    """The results as a table, in percent."""
    columns = [key for key in HEADERS if key in results["test"]]
    lines = [
        "| classified correctly, in % | " + " | ".join(HEADERS[key] for key in columns) + " |",
        "| --- |" + " ---: |" * len(columns),
    ]

    def line(title: str, values: dict[str, float]) -> None:
        lines.append(f"| {title} | " + " | ".join(f"{100 * values[key]:.2f}" for key in columns) + " |")

    line(f"{results['dataset']}, test ({results['test']['count']:,})", results["test"])
    for samples in results["samples"]:
        at = f"temperature {samples['temperature']:g}"
        line(f"all samples, {at} ({len(samples['knowledge'])} × {results['number']:,})", samples["all"])
        if again := samples.get("redrawn"):
            line(f"{again['latents']} latents of validation images, the rest drawn, {at} ({again['count']:,})", again)
        for name, values in samples["knowledge"].items():
            line(f"{name}, {at}", values)
    return "\n".join(lines) + "\n"


def classes_of(experiment: Experiment, table: str | None) -> tuple[list[str], str]:
    """The knowledge types of a table of the config, and their data set.

    It is the data set that has most samples of them.

    By default the table is the first with a `{column}`.
    """
    groups = experiment.groups
    if not groups or (table is not None and table not in groups):
        listed = ", ".join(groups) or "none"
        raise TzkError(f"expected a [[knowledge]] table with a {{column}} in its name and --table of it; got {listed}")
    names = groups[table or next(iter(groups))]
    counts = {}
    for dataset, presence in experiment.annotation.presence.items():
        columns = [experiment.annotation.names.index(name) for name in names]
        counts[dataset] = int((presence[:, columns] == 1).sum())
    dataset = max(counts, key=counts.__getitem__)
    if len(experiment.shape) != 3 or experiment.levels is None:
        raise TzkError(f"the judge classifies images in grey levels; got data of shape {experiment.shape}")
    return names, dataset


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path, help="a run folder")
    parser.add_argument("--number", type=int, default=1000, help="samples of a knowledge type (default: %(default)s)")
    parser.add_argument("--temperature", type=float, nargs="+", default=[1.0], help="of the noise (default: 1)")
    parser.add_argument("--table", help="a [[knowledge]] name with a {column}; default: the first in the config")
    parser.add_argument("--epochs", type=float, default=2.0, help="of training the judge (default: %(default)s)")
    parser.add_argument("--importance-samples", type=int, default=16, help="of C, for Bayes (default: %(default)s)")
    parser.add_argument("--latents", type=int, default=0, help="judge images with so many latents of real ones too")
    parser.add_argument("--judge-only", action="store_true", help="leave the model's own classifiers out")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    torch.set_flush_denormal(True)
    folder = RunFolder.open(options.run)
    experiment = Experiment(load_run_config(folder.config))
    experiment.load(folder.path)
    names, dataset = classes_of(experiment, options.table)
    results = judge(
        experiment,
        names,
        dataset,
        number=options.number,
        temperatures=options.temperature,
        epochs=options.epochs,
        importance_samples=options.importance_samples,
        judge_only=options.judge_only,
        latents=options.latents,
    )
    print(json.dumps(results, indent=2) if options.json else markdown(results), end="\n" if options.json else "")


def _grey(T: Tensor, experiment: Experiment) -> Tensor:
    """Values in [0, 1] in grey levels, uint8."""
    grey = (T * experiment.levels).floor().nan_to_num(0.0)
    return grey.clamp(0, experiment.levels - 1).to(torch.uint8).cpu()


def _scaled(T: Tensor) -> Tensor:
    return T.float() / 255


if __name__ == "__main__":
    with edge.script():
        main()
