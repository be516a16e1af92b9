"""Few shots on Omniglot: a class added from 1 or 5 drawings.

It is added in closed form, to a flow trained for that.

    python examples/knowledge/few_shot.py --features features.pt --json few-shot.json

Features are trained in episodes on the training characters and their quarter turns. Then they are put into a shared
flow (`feature-coupling`), where knowledge of type `exchangeable` is a closed form of them. Figures are of test
characters: 20-way and 5-way tasks, the form of the 20 one-shot runs, all characters at once. --features is where the
training is kept, and goes on from. With --split vinyals 1,200 characters train and 423 test, at random among all, 28
x 28 (Vinyals et al. 2016). With --split alphabets, the default, the 964 of the background alphabets train and the 659
of the evaluation alphabets test, as the one-shot runs ask for (Lake et al. 2015). --choose is for choices: it holds
characters out of the training, and measures on these.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from tzk_plugin_few_shot.exchangeable import ExchangeableKnowledge
from tzk_plugin_few_shot.feature_averaging import averaged
from tzk_plugin_few_shot.feature_coupling import seen
from tzk_plugin_few_shot.feature_model import CLASSES, model_of
from tzk_plugin_few_shot.feature_training import Features, FeatureTraining, Settings
from tzk_plugin_few_shot.hierarchy import Hierarchy, estimate, predict
from tzk_plugin_few_shot.predictive import log_ratio, predictive
from tzk_plugin_omniglot.one_shot_runs import one_shot_runs

import tzk_core
from tzk_core.cli import edge
from tzk_core.data.dequantise import dequantise
from tzk_core.random_streams import numpy_stream, stream
from tzk_core.training.adding.negatives import Negatives

sys.path.insert(0, str(Path(__file__).parent))
from omniglot_tasks import QUERIES, SPLITS, Characters, Division, Task, division, runs_alike, tasks

LEVELS, BATCH = 256, 100
"""Grey levels, and images encoded at once: what a core's cache holds."""

DESCRIBED = (
    "split",
    "choose",
    "seed",
    "steps",
    "size",
    "channels",
    "stride",
    "residual",
    "within",
    "bfloat16",
    "views",
    "turned",
    "tasks",
    "runs",
)
Score = Callable[[Tensor, Tensor], Tensor]
"""From support, (ways, shots, d), and queries, (q, d), the score of every way, (q, ways)."""


@dataclass(frozen=True)
class Method:
    """Values of all drawings, (characters, drawings, d), and how a class is scored by them."""

    values: Tensor
    score: Score

    def scores(self, task: Task) -> Tensor:
        """Scores of the queries, way after way, (ways · q, ways)."""
        rows = torch.from_numpy(task.characters)[:, None]
        support, queries = (self.values[rows, torch.from_numpy(chosen)] for chosen in (task.support, task.queries))
        return self.score(support, queries.flatten(0, 1))


def exchangeable(between: Tensor) -> Score:
    """log p(T given K) - log p(T), in nats."""
    return lambda support, queries: log_ratio(queries, *predictive(support.sum(1), support.shape[1], between))


def nearest(support: Tensor, queries: Tensor) -> Tensor:
    """The negative distance to the nearest of a class's drawings."""
    return -torch.cdist(queries, support.flatten(0, 1)).view(len(queries), *support.shape[:2]).amin(2)


def few_shot(hierarchy: Hierarchy) -> Score:
    """The type `few-shot`: log p of whitened values."""

    def score(support: Tensor, queries: Tensor) -> Tensor:
        moments = [predict(hierarchy, own) for own in support]
        mean, variance = (torch.stack(values) for values in zip(*moments, strict=True))
        squares = queries.square() @ (1 / variance).T - 2 * queries @ (mean / variance).T
        return -0.5 * (squares + (mean.square() / variance + variance.log()).sum(1))

    return score


@torch.no_grad()
def latents(model: tzk_core.TzK, images: Tensor, *, name: str, seed: int, most: int | None = None) -> Tensor:
    """z, (characters, drawings, d), of uint8 images, dequantised; its first `most` dimensions."""
    T = dequantise(images.flatten(0, 1), stream(seed, "few-shot", name), LEVELS)
    z = torch.cat([model.flow.encode(part)[0].flatten(1)[:, :most] for part in T.split(BATCH)])
    return z.view(*images.shape[:2], -1)


def pixels(images: Tensor) -> Tensor:
    return images.flatten(2).float() / (LEVELS - 1)


def summary(values: list[float]) -> dict[str, float]:
    """Mean and standard error over tasks."""
    return {"mean": float(np.mean(values)), "error": float(np.std(values, ddof=1) / math.sqrt(len(values)))}


def accuracies(methods: Mapping[str, Method], drawn: list[Task]) -> dict[str, dict[str, float]]:
    """The accuracy of every method on the same tasks."""
    right: dict[str, list[float]] = {name: [] for name in methods}
    for task in drawn:
        answers = torch.arange(len(task.characters)).repeat_interleave(task.queries.shape[1])
        for name, method in methods.items():
            right[name].append(float((method.scores(task).argmax(1) == answers).float().mean()))
    return {name: summary(values) for name, values in right.items()}


def worth(method: Method, shots: int, *, seed: int) -> dict[str, float]:
    """The worth of knowing the class, in nats an image.

    All test characters are known from `shots` drawings.

    "ratio" is the mean of log p(T given K) - log p(T) over the other drawings, in the model, where it is exact.
    "normaliser" is the mean over classes of log E p(T given K)/p(T), the expectation over these drawings of all
    classes: 0 where p(T) is the data's. "posterior" is log(classes) + the mean of log p(K given T), by Bayes over all
    classes. It is a lower bound of the information that T has of its class, and at most "most".
    """
    classes, drawings, d = method.values.shape
    order = numpy_stream(seed, "worth").permuted(np.tile(np.arange(drawings), (classes, 1)), axis=1)
    mixed = torch.gather(method.values, 1, torch.from_numpy(order)[:, :, None].expand(-1, -1, d))
    ratio = method.score(mixed[:, :shots], mixed[:, shots:].flatten(0, 1)).double()
    own = torch.arange(classes).repeat_interleave(drawings - shots)
    posterior = -functional.cross_entropy(ratio, own)
    return {
        "ratio": float(ratio[torch.arange(len(own)), own].mean()),
        "normaliser": float((ratio.logsumexp(0) - math.log(len(own))).mean()),
        "posterior": float(math.log(classes) + posterior),
        "most": math.log(classes),
        "accuracy among all": float((ratio.argmax(1) == own).double().mean()),
        "classes": float(classes),
    }


def added(model: tzk_core.TzK, test: Characters, shots: int, *, seed: int) -> dict[str, float]:
    """A 20-way task with knowledge that `tzk_core.add` adds one by one, beside the closed form."""
    task = next(tasks(1, len(test.images), ways=20, shots=shots, seed=seed + 1))
    rows = torch.from_numpy(task.characters)[:, None]
    support, queries = (
        dequantise(test.images[rows, torch.from_numpy(chosen)].flatten(0, 1), stream(seed, "added", name), LEVELS)
        for name, chosen in (("support", task.support), ("queries", task.queries))
    )
    ways, start = [], time.process_time()
    for way, T in enumerate(support.split(shots)):
        name = f"way-{way:02}-of-{shots}"
        knowledge = tzk_core.build_knowledge("exchangeable", model.latent_shape, name=name)
        knowledge.describe_as(implies=[CLASSES])
        closed_form = {"steps": 1, "learning_rate": 1e-9, "batch_size": 8, "start": {name: CLASSES}}
        negatives = Negatives(own_samples=16)
        tzk_core.add(model, {name: knowledge}, T, {name: torch.ones(shots)}, negatives=negatives, **closed_form)
        ways.append(knowledge)
    seconds = (time.process_time() - start) / 20
    with torch.no_grad():
        z, own = (model.flow.encode(T)[0] for T in (queries, support))
        ratio = torch.stack([knowledge.log_ratio(z) for knowledge in ways], 1)
        features = [ways[0].features(values) for values in (z, own)]
        expected = exchangeable(ways[0].between)(features[1].view(20, shots, -1), features[0])
    answers = torch.arange(20).repeat_interleave(QUERIES)
    return {
        "accuracy": float((ratio.argmax(1) == answers).float().mean()),
        "largest difference from the closed form, nats": float((ratio - expected).abs().max()),
        "seconds a class": seconds,
        "bytes a class": float(_bytes(ways[0])),
    }


def _bytes(knowledge: ExchangeableKnowledge) -> int:
    return sum(value.numel() * value.element_size() for value in knowledge.state_dict().values())


def train(characters: Characters, options: argparse.Namespace) -> tuple[Features, float]:
    """Train features on the characters, and average them over the views of an image.

    With them go the processor seconds of the training, over all its starts.
    """
    names = ("seed", "steps", "channels", "stride", "residual", "within", "bfloat16")
    settings = Settings(**{name: getattr(options, name) for name in names})
    mask = seen(shape_of(characters), settings.features)
    alphabets = torch.from_numpy(np.unique(characters.alphabet, return_inverse=True)[1])
    training = FeatureTraining(characters.images, settings, alphabets=alphabets, mask=mask, file=options.features)

    def watch(step: int, loss: Any) -> None:
        if step % 100 == 0:
            print(f"step {step}: -log p(class) {float(loss.ways):.3f} nats", flush=True)

    features = training.run(watch)
    return averaged(features, classes_to_average(characters), options.views, mask=mask), training.seconds


def classes_to_average(characters: Characters) -> Tensor:
    """Half of the drawings of every character, the next quarter turn of each."""
    quarter = torch.arange(len(characters.images)) % 4
    images = characters.images[:, ::2].clone()
    for turns in range(1, 4):
        images[quarter == turns] = torch.rot90(images[quarter == turns], turns, (-2, -1))
    return images


def shape_of(characters: Characters) -> tuple[int, int, int]:
    c, h, w = characters.images.shape[2:]
    return c, h, w


def official(
    model: tzk_core.TzK, methods: Mapping[str, Method], *, size: int, seed: int
) -> dict[str, dict[str, float]]:
    """The accuracy on the 20 one-shot runs, if their file is beside the data."""
    right: dict[str, list[float]] = {name: [] for name in methods}
    for run in one_shot_runs(size):
        images = torch.cat([run.support, run.queries])[:, None]
        features = latents(model, images, name=run.name, seed=seed, most=methods["exchangeable"].values.shape[2])
        values = {"exchangeable": features[:, 0], "nearest in pixels": pixels(images)[:, 0]}
        for name, own in values.items():
            support, queries = own[: len(run.support), None], own[len(run.support) :]
            chosen = methods[name].score(support, queries).argmax(1).numpy()
            right[name].append(float((chosen == run.answers).mean()))
    return {name: summary(values) for name, values in right.items() if values}


def rival(options: argparse.Namespace, images: Tensor, test: Tensor) -> Method:
    """The type `few-shot` on pixels or the z of a run.

    The training characters are its reference.
    """
    if options.run is not None:
        to_values = partial(latents, tzk_core.load(options.run), seed=options.seed)
    else:
        to_values = partial(_noisy_pixels, seed=options.seed)
    reference = to_values(images, name="train").flatten(0, 1)
    groups = torch.arange(len(images)).repeat_interleave(images.shape[1])
    hierarchy = estimate(reference, groups)
    values = to_values(test, name="test")
    return Method(hierarchy.whiten(values.flatten(0, 1)).view(values.shape), few_shot(hierarchy))


def _noisy_pixels(images: Tensor, *, name: str, seed: int) -> Tensor:
    return dequantise(images, stream(seed, "rival", name), LEVELS).flatten(2)


def evaluate(model: tzk_core.TzK, between: Tensor, divided: Division, *, options: argparse.Namespace) -> dict[str, Any]:
    """All figures, by table."""
    number, (training, test) = len(between), divided
    turned = test.turned() if options.turned else test
    z = latents(model, turned.images, name="test, turned", seed=options.seed, most=number)
    own, near = Method(z, exchangeable(between)), Method(pixels(turned.images), nearest)
    plain = {
        "exchangeable": Method(z[: len(test.images)], own.score),
        "nearest in pixels": Method(near.values[: len(test.images)], nearest),
    }
    results = {"tasks": task_table(plain, options)}
    if options.turned:
        results["tasks, turned"] = task_table({"exchangeable": own, "nearest in pixels": near}, options)
    if options.split == "alphabets":
        rivals = (
            {"few-shot": rival(options, training.images[: options.reference], test.images)} if options.reference else {}
        )
        for count in (20, options.runs):
            drawn = list(runs_alike(test, count, seed=options.seed))
            results[f"{count} runs"] = accuracies({**plain, **rivals}, drawn)
        results["official runs"] = official(model, plain, size=test.images.shape[-1], seed=options.seed)
    results["worth"] = {f"{shots}-shot": worth(plain["exchangeable"], shots, seed=options.seed) for shots in (1, 5)}
    if options.added:
        results["added"] = {f"{shots}-shot": added(model, test, shots, seed=options.seed) for shots in (1, 5)}
    return results


def task_table(methods: Mapping[str, Method], options: argparse.Namespace) -> dict[str, Any]:
    """Accuracies of 20-way and 5-way tasks, with 1 and 5 drawings."""
    characters = len(methods["exchangeable"].values)
    table = {}
    for ways in (20, 5):
        for shots in (1, 5):
            drawn = tasks(options.tasks, characters, ways=ways, shots=shots, seed=options.seed)
            table[f"{ways}-way, {shots}-shot"] = accuracies(methods, list(drawn))
    return table


def show(results: Mapping[str, Any]) -> None:
    for title, table in results.items():
        print(f"\n{title}")
        for name, row in table.items():
            cells = row if all(isinstance(value, float) for value in row.values()) else {}
            for method, value in row.items() if not cells else ():
                print(f"  {name:18} {method:18} {value['mean']:.4f} ± {value['error']:.4f}")
            if cells:
                print(f"  {name:18} " + ", ".join(f"{key} {value:.4g}" for key, value in cells.items()))


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--split", choices=SPLITS, default="alphabets", help="(default: %(default)s)")
    parser.add_argument(
        "--choose", action="store_true", help="measure on what is held out of the training, for choices"
    )
    parser.add_argument("--features", type=Path, help="where the training of the features is kept")
    parser.add_argument("--steps", type=int, default=Settings.steps, help="of training (default: %(default)s)")
    parser.add_argument("--size", type=int, default=28, help="of the images, in pixels (default: %(default)s)")
    parser.add_argument("--channels", type=int, default=32, help="of the first convolution (default: %(default)s)")
    parser.add_argument("--plain", dest="residual", action="store_false", help="convolutions without residual blocks")
    parser.add_argument("--within", type=float, default=0.5, help="share of last episodes of few alphabets")
    parser.add_argument("--views", type=int, default=8, help="of an image, averaged after training (%(default)s)")
    parser.add_argument("--float32", dest="bfloat16", action="store_false", help="train in float32, not bfloat16")
    parser.add_argument("--turned", action="store_true", help="tasks of turned test characters, too, as classes")
    parser.add_argument("--added", action="store_true", help="add 40 classes by tzk_core.add, too: a minute or two")
    parser.add_argument("--tasks", type=int, default=1000, help="of every form (default: %(default)s)")
    parser.add_argument("--runs", type=int, default=400, help="in the form of the 20 (default: %(default)s)")
    parser.add_argument("--run", type=Path, help="a run, whose z the type few-shot takes in the place of pixels")
    parser.add_argument("--reference", type=int, default=500, help="characters that few-shot learns from, 0 without")
    parser.add_argument("--save", type=Path, help="a new folder for the model, with no class added yet")
    parser.add_argument("--seed", type=int, default=0, help="of the division, training and tasks")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    options = parser.parse_args()
    options.stride = 2 if options.size >= 56 else 1
    return options


def main() -> None:
    options = read_options()
    torch.set_flush_denormal(True)
    torch.set_num_threads(1)
    divided = division(options.split, seed=options.seed, size=options.size, choose=options.choose)
    features, trained = train(divided.train, options)
    start = time.process_time()
    model = model_of(features, shape_of(divided.train))
    model.flow.to(memory_format=torch.channels_last)  # a third faster on a CPU
    if options.save is not None:
        tzk_core.save(model, options.save)
    results = evaluate(model, features.between.detach(), divided, options=options)
    seconds = {"training": trained, "evaluation": time.process_time() - start}
    show(results)
    if options.json is not None:
        described = {name: getattr(options, name) for name in DESCRIBED}
        counts = {name: len(part.images) for name, part in divided._asdict().items()}
        written = {"options": described, "characters": counts, "processor seconds": seconds, **results}
        options.json.write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    with edge.script():
        main()
