"""Variants of the score of strangers.py, on corruptions of a model's own validation images.

    python examples/knowledge/strangers_choice.py --mnist runs/mnist --omniglot runs/omniglot --json choice.json

No outside set is read. The first half of the validation images is inside, and corruptions.py makes eight sets of 400 of
the others. Figures are areas under ROC curves, the mean of the eight. Held-out log-likelihood is that of the statistics
of validation images, in nats.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from corruptions import corrupted
from results_files import write_results
from strangers import LEVELS, opened, options_of_runs, runs_of, some
from torch import Tensor
from tzk_plugin_outside.densities import StateDensity
from tzk_plugin_outside.dose import STATES, Parts, unit_of
from tzk_plugin_outside.dose_of_run import training_images
from tzk_plugin_outside.evidence import dequantised
from tzk_plugin_outside.roc import roc_area

from tzk_core.cli import edge
from tzk_core.random_streams import stream

IMAGES, CORRUPTED = 2000, 400
COMPONENTS = (1, 2, 4, 8, 16, 32, 64)
EXPECTED, FEATURES = (0.0, 0.25, 0.5, 0.75, 1.0), (0.25, 0.5, 0.75, 1.0)


class Images:
    """Parts of validation images, and of corruptions of some of them."""

    def __init__(self, run: Path, name: str, seed: int) -> None:
        experiment, self.dose = opened(run)
        images = some(experiment.datasets[name].split("validation"), IMAGES, seed)
        half = len(images) // 2
        sets = corrupted(images[half:][:CORRUPTED], stream(seed, "corruptions"))
        self.validation = self._parts(images, seed)
        self.inside = self._parts(images[:half], seed)
        self.corrupted = {what: self._parts(T, seed) for what, T in sets.items()}
        self.train = self.dose.table(training_images(experiment).T[:STATES])

    def _parts(self, T: Tensor, seed: int) -> Parts:
        return self.dose.parts(dequantised(T, LEVELS, seed))


class Variant:
    """A score like `Dose.combined`, of another density of statistics, share and weight.

    expected: the share of what is expected of the features that is taken off. features: the weight of their shortfall.
    """

    def __init__(self, images: Images, states: StateDensity, *, expected: float, features: float) -> None:
        self.dose, self.states, self.expected, self.weight = images.dose, states, expected, features
        self.units = [unit_of(values) for values in self._values(images.validation)]

    def areas(self, images: Images) -> dict[str, float]:
        """By corruption, the area under the ROC curve."""
        inside = self.score(images.inside)
        return {what: roc_area(inside, self.score(parts)).area for what, parts in images.corrupted.items()}

    def score(self, parts: Parts) -> Tensor:
        states, features = (
            ((median - values) / unit).nan_to_num(nan=torch.inf).clamp_min(0)
            for (median, unit), values in zip(self.units, self._values(parts), strict=True)
        )
        return -(states + self.weight * features)

    def _values(self, parts: Parts) -> tuple[Tensor, Tensor]:
        return self.states(parts.table), parts.density - self.expected * self.dose.fitted.expected(parts.table)


def density(images: Images, components: int) -> StateDensity:
    found = StateDensity(len(images.dose.names), components)
    found.fit(images.train, torch.Generator().manual_seed(0))
    return found


def chosen_from(images: Images) -> dict[str, Any]:
    """Areas of all variants of a model."""
    of_states, grid = [], []
    for components in COMPONENTS:
        states = density(images, components)
        areas = Variant(images, states, expected=0.0, features=0.0).areas(images)
        held_out = states(images.validation.table).mean().item()
        of_states.append({"components": components, "held_out": held_out, "areas": areas, "mean": mean(areas)})
    for components, shares, weights in ((1, (0.0,), (1.0,)), (32, EXPECTED, FEATURES)):
        states = density(images, components)
        for expected in shares:
            for features in weights:
                areas = Variant(images, states, expected=expected, features=features).areas(images)
                row = {"components": components, "expected": expected, "features": features}
                grid.append(row | {"areas": areas, "mean": mean(areas)})
    return {"states": of_states, "sums": grid, "simple": of_simple_images(images)}


def of_simple_images(images: Images) -> dict[str, Any]:
    """Medians of the features' log-density by quarters of the code's length."""
    length, values = images.validation.table[:, -1].contiguous(), images.validation.density
    bounds = length.quantile(torch.tensor([0.25, 0.5, 0.75], dtype=length.dtype))
    quarter = torch.bucketize(length, bounds)
    return {
        "correlation": torch.corrcoef(torch.stack([length, values]))[0, 1].item(),
        "medians": [values[quarter == number].median().item() for number in range(4)],
    }


def mean(areas: Mapping[str, float]) -> float:
    return sum(areas.values()) / len(areas)


def written(results: dict[str, Any]) -> str:
    """The results as tables in Markdown."""
    lines = [f"Command: `{results['command']}`. Seed {results['seed']}; {results['machine']}."]
    for name, result in results["models"].items():
        kinds = list(result["states"][0]["areas"])
        lines += ["", f"Model of {name}. The density of the statistics alone:", ""]
        lines += [f"| Gaussians | held-out nats | mean | {' | '.join(kinds)} |", "|---:|" + "---:|" * (2 + len(kinds))]
        for row in result["states"]:
            lines.append(f"| {row['components']} | {row['held_out']:.2f} | {_cells(row)} |")
        header = ["Gaussians", "share of the expected", "weight of the features", "mean", *kinds]
        lines += ["", "The sum of both shortfalls:", "", f"| {' | '.join(header)} |", "|" + "---:|" * len(header)]
        for row in result["sums"]:
            lines.append(f"| {row['components']} | {row['expected']:g} | {row['features']:g} | {_cells(row)} |")
        simple = ", ".join(f"{value:.1f}" for value in result["simple"]["medians"])
        lines += ["", f"Features' log-density of validation images by quarters of the code's length: {simple} nats."]
        lines += [f"Its correlation with the length: {result['simple']['correlation']:.2f}."]
    return "\n".join(lines) + "\n"


def _cells(row: Mapping[str, Any]) -> str:
    return " | ".join(f"{area:.3f}" for area in (row["mean"], *row["areas"].values()))


def main() -> None:
    parser = options_of_runs(__doc__)
    options = parser.parse_args()

    torch.set_flush_denormal(True)
    runs = runs_of(parser, options)
    words = " ".join(f"--{name} runs/{run.name}" for name, run in runs.items())
    results: dict[str, Any] = {
        "format": 1,
        "command": f"python examples/knowledge/strangers_choice.py {words}",
        "seed": options.seed,
        "machine": options.machine,
        "models": {name: chosen_from(Images(run, name, options.seed)) for name, run in runs.items()},
    }
    print("\n" + written(results))
    write_results(options.json, results, title="The choice of a score for strangers", text=written(results))


if __name__ == "__main__":
    with edge.script():
        main()
