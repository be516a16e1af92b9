"""The worth of the type `few-shot` with a few drawings of a new character.

It is measured by held-out bits and 20-way classification.

    python examples/online/few_shot.py runs/mnist [--knowledge omniglot] [--json few-shot.json]

The model need not have seen the characters, or Omniglot, before. The reference of the closed form are the drawings of
the background alphabets, with the characters as classes; the figures are of the evaluation alphabets. All drawings are
encoded once, and the rest is computed from z. With --on it is computed from z after the flow steps of that knowledge
type, as with `start = NAME` in a spec. With --choose the figures are of five background alphabets, which the reference
then leaves out, for several settings of the type: the defaults were chosen so.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tzk_plugin_few_shot.hierarchy import Hierarchy, estimate, predict
from tzk_plugin_omniglot.omniglot import Omniglot
from tzk_plugin_omniglot.one_shot_runs import one_shot_runs

import tzk_core
from tzk_core.cli import edge
from tzk_core.data.dequantise import dequantise
from tzk_core.knowledge.importance import log_prob_present
from tzk_core.random_streams import numpy_stream, stream
from tzk_core.units import bits_per_dim

WAYS, DRAWINGS, LEVELS = 20, 20, 256


@dataclass(frozen=True)
class Drawings:
    """Encoded drawings: pixels and z, (n, d), log|det dz/dT|, (n,), and their labels."""

    pixels: Tensor
    z: Tensor
    logabsdet: Tensor
    alphabet: np.ndarray
    character: np.ndarray

    def of(self, rows: np.ndarray) -> Drawings:
        return Drawings(
            self.pixels[rows], self.z[rows], self.logabsdet[rows], self.alphabet[rows], self.character[rows]
        )


@dataclass(frozen=True)
class Episode:
    """Positions of drawings in an episode.

    support: (ways, k). queries: (q,). answers: the ways of the queries, (q,).
    """

    support: np.ndarray
    queries: np.ndarray
    answers: np.ndarray


@torch.no_grad()
def encode(model: tzk_core.TzK, images: Tensor, *, seed: int, name: str) -> tuple[Tensor, Tensor]:
    """z, (n, d), and log|det dz/dT|, (n,), of dequantised images in grey levels."""
    parts = [model.flow.encode(T) for T in dequantise(images, stream(seed, "few-shot", name), LEVELS).split(512)]
    return torch.cat([z for z, _ in parts]).flatten(1), torch.cat([logabsdet for _, logabsdet in parts])


@torch.no_grad()
def after_steps_of(model: tzk_core.TzK, on: str | None, drawings: Drawings) -> Drawings:
    """The drawings with z after the flow steps of the knowledge type `on`."""
    if on is None:
        return drawings
    z = drawings.z.view(-1, *model.latent_shape)
    parts = [model.find(on).latent.transform(part) for part in z.split(512)]
    logabsdet = drawings.logabsdet + torch.cat([logabsdet for _, logabsdet in parts])
    return replace(drawings, z=torch.cat([z for z, _ in parts]).flatten(1), logabsdet=logabsdet)


def read(model: tzk_core.TzK, split: str, seed: int) -> Drawings:
    samples = Omniglot(size=model.shape[-1], validation=0).split(split)
    z, logabsdet = encode(model, samples.T, seed=seed, name=split)
    pixels = samples.T.flatten(1).float() / (LEVELS - 1)
    return Drawings(pixels, z, logabsdet, samples.labels["alphabet"], samples.labels["character"])


def episodes(drawings: Drawings, shots: int, *, count: int, seed: int, queries: int = 5) -> Iterator[Episode]:
    """`count` tasks of 20 characters of one alphabet.

    A character has `shots` drawings as support and `queries`.
    """
    source = numpy_stream(seed, "episodes", shots)
    within = {name: np.unique(drawings.character[drawings.alphabet == name]) for name in np.unique(drawings.alphabet)}
    alphabets = [name for name, characters in within.items() if len(characters) >= WAYS]
    rows = {name: np.flatnonzero(drawings.character == name) for name in np.unique(drawings.character)}
    for number in range(count):
        characters = source.permutation(within[alphabets[number % len(alphabets)]])[:WAYS]
        chosen = np.stack([source.permutation(rows[name])[: shots + queries] for name in characters])
        yield Episode(chosen[:, :shots], chosen[:, shots:].ravel(), np.arange(WAYS).repeat(queries))


def gaussian(y: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """log N(y; mean, diag variance), (q, classes), in nats."""
    precision = 1 / variance
    squares = y.square() @ precision.T - 2 * y @ (mean * precision).T + (mean.square() * precision).sum(1)
    return -0.5 * (squares + (2 * math.pi * variance).log().sum(1))


class FewShot:
    """The type `few-shot` for many classes at once.

    Their p(z given κ=1) are Gaussians in the same coordinates.
    """

    def __init__(self, hierarchy: Hierarchy, drawings: Drawings, trust: float) -> None:
        self.hierarchy, self.trust = hierarchy, trust
        self.y = hierarchy.whiten(drawings.z)
        self.volume = float(torch.linalg.slogdet(hierarchy.matrix).logabsdet) + drawings.logabsdet.double()

    def log_prob(self, episode: Episode) -> Tensor:
        """log p(T given κ=1) of the queries for all classes, (q, ways)."""
        predictions = [predict(self.hierarchy, self.y[rows], trust=self.trust) for rows in episode.support]
        mean, variance = (torch.stack(values) for values in zip(*predictions, strict=True))
        return gaussian(self.y[episode.queries], mean, variance) + self.volume[episode.queries, None]

    def reference(self, rows: np.ndarray) -> Tensor:
        """The same for a class without any drawings, (q,)."""
        variance = self.hierarchy.within * (1 + self.hierarchy.between)
        mean = torch.zeros_like(variance)
        return gaussian(self.y[rows], mean[None], variance[None]).squeeze(1) + self.volume[rows]


def neighbour(values: Tensor) -> Callable[[Episode], Tensor]:
    """The negative distance of a query to the nearest of a class's drawings, (q, ways)."""

    def score(episode: Episode) -> Tensor:
        distances = torch.cdist(values[episode.queries], values[episode.support.ravel()])
        return -distances.view(len(episode.queries), *episode.support.shape).amin(2)

    return score


def summary(values: list[float]) -> tuple[float, float]:
    """Mean and standard error over episodes."""
    error = float(np.std(values, ddof=1) / math.sqrt(len(values))) if len(values) > 1 else math.nan
    return float(np.mean(values)), error


def accuracy(scores: Tensor, episode: Episode) -> float:
    return float((scores.argmax(1).numpy() == episode.answers).mean())


def measure(few: FewShot, drawings: Drawings, shots: int, *, count: int, seed: int) -> dict[str, tuple[float, float]]:
    """Accuracies, and bits/dim on the queries, with their standard errors over episodes."""
    pixels, latents = neighbour(drawings.pixels), neighbour(drawings.z)
    measured: dict[str, list[float]] = {}
    for episode in episodes(drawings, shots, count=count, seed=seed):
        log_prob = few.log_prob(episode)
        own = log_prob[torch.arange(len(log_prob)), torch.from_numpy(episode.answers)]
        reference = few.reference(episode.queries)
        for name, value in (
            ("accuracy, few-shot", accuracy(log_prob, episode)),
            ("accuracy, nearest in z", accuracy(latents(episode), episode)),
            ("accuracy, nearest in pixels", accuracy(pixels(episode), episode)),
            ("bits/dim, few-shot", bits(own, drawings)),
            ("bits/dim, the reference", bits(reference, drawings)),
            ("bits/image gained on the reference", float((own - reference).mean() / math.log(2))),
        ):
            measured.setdefault(name, []).append(value)
    return {name: summary(values) for name, values in measured.items()}


def bits(log_prob: Tensor, drawings: Drawings) -> float:
    return float(bits_per_dim(log_prob.mean(), drawings.z.shape[1], LEVELS))


@torch.no_grad()
def of_the_model(model: tzk_core.TzK, names: list[str], drawings: Drawings, *, seed: int) -> dict[str, float]:
    """bits/dim of all drawings under p(T) and under knowledge of the model."""
    z = drawings.z.view(-1, *model.latent_shape)
    densities = {"p(T)": bits(model.flow.base.log_prob(z) + drawings.logabsdet, drawings)}
    for name in names:
        source = stream(seed, "importance", name)
        parts = [log_prob_present(model.find(name), part, 16, generator=source) for part in z.split(256)]
        densities[f"p(T given {name})"] = bits(torch.cat(parts) + drawings.logabsdet, drawings)
    return densities


def of_trained_flows(
    model: tzk_core.TzK, drawings: Drawings, shots: int, *, characters: int, steps: int, rate: float, seed: int
) -> tuple[float, float]:
    """bits/dim of drawings after training a `flow` on others.

    It is trained on `shots` drawings of each of `characters`, from the identity, and evaluated on the rest.
    """
    names = numpy_stream(seed, "trained").permutation(np.unique(drawings.character))[:characters]
    results = []
    for name in names:
        rows = np.flatnonzero(drawings.character == name)
        z = drawings.z[rows].view(-1, *model.latent_shape)
        knowledge = tzk_core.build_knowledge("flow", model.latent_shape, seed, name=str(name))
        optimizer = torch.optim.Adam(knowledge.latent.parameters(), lr=rate)
        C = torch.zeros(len(rows), knowledge.characteristics)
        for _ in range(steps):
            optimizer.zero_grad()
            (-knowledge.log_prob_latent(z[:shots], C[:shots]).mean() / z[0].numel()).backward()
            optimizer.step()
        with torch.no_grad():
            log_prob = knowledge.log_prob_latent(z[shots:], C[shots:]) + drawings.logabsdet[rows][shots:]
        results.append(bits(log_prob, drawings))
    return summary(results)


def official_runs(
    model: tzk_core.TzK, hierarchy: Hierarchy, trust: float, *, seed: int, on: str | None = None
) -> dict[str, tuple[float, float]]:
    """Accuracy on the 20 runs of Lake, Salakhutdinov and Tenenbaum (2015).

    `all_runs.zip` has to be beside the data.

    A run has one drawing of all 20 characters; the standard error is over runs.
    """
    scores: dict[str, list[float]] = {}
    for run in one_shot_runs(model.shape[-1]):
        images = torch.cat([run.support, run.queries])
        z, logabsdet = encode(model, images, seed=seed, name=run.name)
        none = np.full(len(z), "")
        pixels = images.flatten(1).float() / (LEVELS - 1)
        drawings = after_steps_of(model, on, Drawings(pixels, z, logabsdet, none, none))
        ways = len(run.support)
        episode = Episode(np.arange(ways)[:, None], np.arange(ways, len(z)), run.answers)
        for name, score in (
            ("few-shot", FewShot(hierarchy, drawings, trust).log_prob),
            ("nearest in z", neighbour(drawings.z)),
            ("nearest in pixels", neighbour(drawings.pixels)),
        ):
            scores.setdefault(name, []).append(accuracy(score(episode), episode))
    return {name: summary(values) for name, values in scores.items()}


def table(title: str, columns: list[str], rows: Mapping[str, Sequence[tuple[float, float] | float]]) -> None:
    def cell(value: tuple[float, float] | float) -> str:
        return f"{value[0]:.4f} ± {value[1]:.4f}" if isinstance(value, tuple) else f"{value:.4f}"

    print(f"\n| {title} | {' | '.join(columns)} |\n|---|{'---:|' * len(columns)}")
    for name, values in rows.items():
        print(f"| {name} | {' | '.join(cell(value) for value in values)} |")


@dataclass(frozen=True)
class Comparison:
    """The reference of the closed form and the new drawings, which are of other alphabets."""

    reference: Drawings
    new: Drawings

    def hierarchy(self, directions: int, trust: float) -> Hierarchy:
        groups = torch.from_numpy(np.unique(self.reference.character, return_inverse=True)[1])
        return estimate(self.reference.z, groups, directions=directions, trust=trust)


CHOICES = [(10, 100.0), (20, 100.0), (50, 100.0), (20, 30.0), (20, 1000.0)]
"""Directions and trust that `--choose` tries."""


def held_out_alphabets(background: Drawings, seed: int) -> Comparison:
    """Five of the large background alphabets as new drawings."""
    names = numpy_stream(seed, "choose").permutation(np.unique(background.alphabet))
    large = [name for name in names if len(np.unique(background.character[background.alphabet == name])) >= WAYS]
    held_out = np.isin(background.alphabet, large[:5])
    return Comparison(background.of(np.flatnonzero(~held_out)), background.of(np.flatnonzero(held_out)))


def closed_form(
    comparison: Comparison, hierarchy: Hierarchy, *, trust: float, options: argparse.Namespace
) -> dict[str, list[tuple[float, float]]]:
    """The measures of `few-shot`, one value for each number of drawings."""
    few = FewShot(hierarchy, comparison.new, trust)
    measures = [
        measure(few, comparison.new, shots, count=options.episodes, seed=options.seed) for shots in options.shots
    ]
    return {name: [measured[name] for measured in measures] for name in measures[0]}


def trained_flows(model: tzk_core.TzK, plain: Drawings, options: argparse.Namespace) -> list[tuple[float, float]]:
    """bits/dim of a `flow` trained on the drawings, one value for each number of them."""
    settings = {"characters": options.flows, "steps": options.flow_steps, "rate": options.flow_rate}
    return [of_trained_flows(model, plain, shots, **settings, seed=options.seed) for shots in options.shots]


def choose(background: Drawings, columns: list[str], options: argparse.Namespace) -> dict[str, Any]:
    """Figures of several settings of the type, on alphabets that the reference leaves out."""
    comparison = held_out_alphabets(background, options.seed)
    figures = {}
    for directions, trust in CHOICES:
        title = f"directions = {directions}, trust = {trust:g}"
        hierarchy = comparison.hierarchy(directions, trust)
        figures[title] = closed_form(comparison, hierarchy, trust=trust, options=options)
        table(title, columns, figures[title])
    return {"few-shot": figures}


def evaluate(
    model: tzk_core.TzK, background: Drawings, columns: list[str], *, options: argparse.Namespace
) -> dict[str, Any]:
    """Figures of the evaluation alphabets, of the model's own knowledge, and of the official runs."""
    plain = read(model, "test", options.seed)
    comparison = Comparison(background, after_steps_of(model, options.on, plain))
    hierarchy = comparison.hierarchy(options.directions, options.trust)
    rows = closed_form(comparison, hierarchy, trust=options.trust, options=options)
    if options.flows:
        rows["bits/dim, a trained flow"] = trained_flows(model, plain, options)
    title = f"directions = {options.directions}, trust = {options.trust:g}"
    table(title, columns, rows)
    others = of_the_model(model, options.knowledge, plain, seed=options.seed)
    table("bits/dim, all drawings", ["the model"], {name: [value] for name, value in others.items()})
    runs = official_runs(model, hierarchy, options.trust, seed=options.seed, on=options.on)
    if runs:
        table("the 20 official runs", ["accuracy"], {name: [value] for name, value in runs.items()})
    else:
        print("\nThe 20 official runs are left out: there is no omniglot-py/all_runs.zip beside the data.")
    return {"few-shot": {title: rows}, "model": others, "official runs": runs}


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run folder, its model being for Omniglot's size")
    parser.add_argument("--knowledge", action="append", default=[], help="knowledge of the model to compare with")
    parser.add_argument("--on", help="knowledge of the model, of type flow, whose steps come before `few-shot`")
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 5, 10], help="drawings of a new character")
    parser.add_argument("--episodes", type=int, default=200, help="classification tasks (default: %(default)s)")
    parser.add_argument("--directions", type=int, default=20, help="of the type (default: %(default)s)")
    parser.add_argument("--trust", type=float, default=100.0, help="of the type (default: %(default)s)")
    parser.add_argument("--choose", action="store_true", help="try settings of the type on background alphabets")
    parser.add_argument("--flows", type=int, default=0, help="characters to train a `flow` on (default: %(default)s)")
    parser.add_argument("--flow-steps", type=int, default=100, help="its gradient steps (default: %(default)s)")
    parser.add_argument("--flow-rate", type=float, default=5e-4, help="its learning rate (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="where to write the figures")
    return parser.parse_args()


def main() -> None:
    options = read_options()
    torch.set_flush_denormal(True)
    model = tzk_core.load(options.run)
    background = after_steps_of(model, options.on, read(model, "train", options.seed))
    columns = [f"{shots} drawing{'s' if shots > 1 else ''}" for shots in options.shots]
    if options.choose:
        results = choose(background, columns, options)
    else:
        results = evaluate(model, background, columns, options=options)
    if options.json:
        options.json.write_text(json.dumps({"run": options.run.name, "seed": options.seed, **results}, indent=2) + "\n")


if __name__ == "__main__":
    with edge.script():
        main()
