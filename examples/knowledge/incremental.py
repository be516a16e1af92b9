"""Class-incremental learning on MNIST: digits come one after the other.

Of earlier ones only their knowledge stays.

    tzk run examples/knowledge/flow-omniglot.toml --out runs/flow-omniglot
    tzk run examples/knowledge/flow-two-digits.toml --out runs/flow-two-digits
    tzk run examples/knowledge/flow-mnist.toml --out runs/flow-mnist
    python examples/knowledge/incremental.py runs/flow-omniglot runs/flow-two-digits runs/flow-mnist --json out.json

The flows are frozen. A digit is added as knowledge of type `features`, in closed form from its own images. Its features
are fitted without labels to what the flow was trained on, or, with --dreams, to samples of the flow. After every digit
the program compares tensors and answers of all older ones with what they were, bit for bit. The rivals of rivals.py
learn the same images in the same order. Choices were made on the validation split; figures are of the test split
(--split).
"""

from __future__ import annotations

import argparse
import hashlib
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from results_files import write_results
from rivals import AutoencoderPerClass, ByClass, Learner, NearestMean, StreamingLDA, fourier
from torch import Tensor
from tzk_plugin_features.knowledge import FeatureKnowledge
from tzk_plugin_omniglot.omniglot import Omniglot

import tzk_core
from tzk_core.cli import edge
from tzk_core.data.dequantise import dequantise
from tzk_core.data.mnist import Mnist
from tzk_core.errors import TzkError
from tzk_core.random_streams import stream

LEVELS, SIZE, REFERENCE, CALIBRATION, PROBES = 256, 32, 10_000, 1000, 64

PAIRS = (
    "five pairs of digits; looked up: read off the figure of NeurIPStutorial in "
    "github.com/GMvandeVen/continual-learning, to a point"
)
QUOTED = [
    ("EWC", "20", PAIRS),
    ("SI", "23", PAIRS),
    ("deep generative replay", "90", PAIRS),
    ("iCaRL, 100 images of each digit kept", "92", PAIRS),
    ("VAE for each class", "94", PAIRS),
    ("joint training", "98", PAIRS),
    ("OvA-INN", "96.4", "Hocquet, Bichler and Querlioz 2020; from memory"),
    ("RanDumb, 25,000 features", "98.3", "Prabhu et al. 2024; from memory"),
]
"""Accuracies of others in percent. None was run here."""


class Knowing(ByClass):
    """A frozen flow to which classes are added as knowledge of type `features`; a `Learner`."""

    def __init__(self, model: tzk_core.TzK, reference: Tensor, seed: int, **arguments: Any) -> None:
        super().__init__()
        self.model, self.calibration, self.seed, self.arguments = model, reference[:CALIBRATION], seed, arguments
        self.features = self._build("reference").latent.seen
        self.features.fit(reference, stream(seed, "features", "reference"))
        self.names: list[str] = []
        self.probes = dequantise((255 * reference[:PROBES]).round().to(torch.uint8), stream(seed, "probes"), LEVELS)

    def learn(self, images: Tensor) -> None:
        """Add one class.

        Raises:
            TzkError: if a tensor or an answer of an older class is not what it was.
        """
        before = self.fingerprint()
        knowledge, name = self._build("class"), f"class-{len(self.names)}"
        knowledge.share(self.features)
        knowledge.condition(images, self.calibration)
        self.model.add(name, knowledge)
        after = self.fingerprint()
        if any(after[older] != before[older] for older in before):
            raise TzkError(f"{name} changed older knowledge, which it must not")
        self.names.append(name)

    @torch.no_grad()
    def fingerprint(self) -> dict[str, str]:
        """By class the sha256 of its tensors and of its log ratios.

        The ratios are of fixed images, through the flow.
        """
        z = self.model.encode_with_logabsdet(self.probes)[0] if self.names else None
        prints = {}
        for name in self.names:
            knowledge = self.model.find(name)
            assert isinstance(knowledge, FeatureKnowledge) and z is not None
            digest = hashlib.sha256(knowledge.log_ratio(z).numpy().tobytes())
            for key, value in sorted(knowledge.state_dict().items()):
                digest.update(key.encode() + value.numpy().tobytes())
            prints[name] = digest.hexdigest()
        return prints

    def count(self) -> int:
        return len(self.names)

    def prepare(self, images: Tensor) -> Tensor:
        return torch.cat([self.features(part) for part in images.split(512)])

    def column(self, number: int, prepared: Tensor) -> Tensor:
        return self.find(self.names[number]).log_ratio_of(prepared)

    @torch.no_grad()
    def difference(self, images: Tensor) -> tuple[float, float]:
        """The model's own log p(T given κ=1) - log p(T) against `scores`.

        Returns:
            The largest difference in nats, and the share of images with the same class.
        """
        direct = self.scores(images)
        prior = self.model.log_prob(images)
        through = torch.stack([self.model.log_prob(images, name) - prior for name in self.names], 1)
        same = (through.argmax(1) == direct.argmax(1)).float().mean()
        return float((through - direct).abs().max()), float(same)

    def bytes(self) -> int:
        """Bytes of the last class without the features, which all share."""
        state = self.find(self.names[-1]).state_dict()
        return sum(value.nbytes for key, value in state.items() if not key.startswith("latent.seen."))

    def find(self, name: str) -> FeatureKnowledge:
        knowledge = self.model.find(name)
        assert isinstance(knowledge, FeatureKnowledge)
        return knowledge

    def _build(self, name: str) -> FeatureKnowledge:
        shape = self.model.latent_shape
        knowledge = tzk_core.build_knowledge("features", shape, self.seed, name=name, **self.arguments)
        assert isinstance(knowledge, FeatureKnowledge)
        knowledge.attach(self.model.flow.transform, self.model.flow.base)
        return knowledge


def learn_all(learner: Learner, classes: list[Tensor], test: list[Tensor]) -> dict[str, Any]:
    """Teach classes in turn, and measure after each.

    Returns:
        `accuracy` over all classes so far after each; `forgetting`, the mean over classes of their best accuracy less
        their last; seconds and bytes for a class.
    """
    images, answers = torch.cat(test), torch.cat([torch.full((len(each),), i) for i, each in enumerate(test)])
    by_class, accuracy, seconds = [], [], []
    for number, examples in enumerate(classes):
        started = time.process_time()
        learner.learn(examples)
        seconds.append(time.process_time() - started)
        seen = answers <= number
        right = (learner.scores(images)[seen].argmax(1) == answers[seen]).float()
        accuracy.append(float(right.mean()))
        by_class.append([float(right[answers[seen] == each].mean()) for each in range(number + 1)])
    best = [max(row[each] for row in by_class if len(row) > each) for each in range(len(classes))]
    drops = [most - last for most, last in zip(best[:-1], by_class[-1], strict=False)]
    return {
        "accuracy": accuracy,
        "accuracy_last": accuracy[-1],
        "forgetting": sum(drops) / max(1, len(drops)),
        "seconds_per_class": sum(seconds) / len(seconds),
        "bytes_per_class": learner.bytes(),
    }


def digits(split: str, most: int | None) -> list[Tensor]:
    """The images of every digit, in order, in [0, 1]; at most `most` of each."""
    samples = Mnist(size=SIZE).split(split)
    labels = samples.labels["label"]
    return [samples.T[torch.from_numpy(labels == str(digit))][:most].float() / (LEVELS - 1) for digit in range(10)]


def trained_on(run: Path, seed: int) -> Tensor:
    """Images that the flow was trained on, without labels, in [0, 1].

    Raises:
        TzkError: unless it was trained on one data set, MNIST or Omniglot.
    """
    tables = tomllib.loads((run / "config.toml").read_text())["datasets"]
    if len(tables) != 1 or tables[0]["name"] not in ("mnist", "omniglot"):
        raise TzkError(f"{run} is expected to be trained on mnist or omniglot alone; got {tables}: use --dreams")
    only = tables[0].get("digits")
    samples = (Mnist(size=SIZE, digits=only) if tables[0]["name"] == "mnist" else Omniglot(size=SIZE)).split("train")
    rows = torch.randperm(len(samples.T), generator=stream(seed, "reference"))[:REFERENCE]
    return samples.T[rows].float() / (LEVELS - 1)


def of_flow(run: Path, classes: list[Tensor], test: list[Tensor], *, dreams: bool, seed: int) -> dict[str, Any]:
    """Figures of one frozen flow, the folder `run`, to which the classes are added."""
    model = tzk_core.load(run)
    started = time.process_time()
    if dreams:
        probe = FeatureKnowledge(model.latent_shape)
        probe.attach(model.flow.transform, model.flow.base)
        reference = probe.dream().clamp(0, 1)
    else:
        reference = trained_on(run, seed)
    learner = Knowing(model, reference, seed)
    shared = time.process_time() - started
    row = learn_all(learner, classes, test)  # which ends with an error if older knowledge changes
    some = torch.cat([each[:5] for each in test])
    noisy = dequantise((255 * some).round().to(torch.uint8), stream(seed, "noise"), LEVELS)
    nats, same = learner.difference(noisy)
    shared_bytes = sum(value.nbytes for value in learner.features.state_dict().values())
    row |= {"unchanged": True, "shared_seconds": shared, "shared_bytes": shared_bytes}
    return row | {"through_the_flow": {"images": len(some), "largest_difference_nats": nats, "same_class": same}}


def rivals(seed: int, features: int) -> dict[str, Callable[[], Learner]]:
    dims = SIZE * SIZE
    return {
        "nearest class mean": NearestMean,
        "streaming LDA, pixels": lambda: StreamingLDA(lambda images: images.flatten(1), 1e-2),
        f"RanDumb, {features:,} features": lambda: StreamingLDA(fourier(dims, features, width=0.01, seed=seed), 1e-4),
        "VAE for each class": lambda: AutoencoderPerClass(seed=seed),
    }


def characters(run: Path, count: int, seed: int, *, most: int = 15) -> list[dict[str, Any]]:
    """Accuracy and time as characters are added one by one.

    Each has 15 drawings, and is tested on the other 5.

    Characters of the evaluation alphabets come first. The flow saw those of the background alphabets without labels.
    """
    omniglot = [Omniglot(size=SIZE, validation=0).split(split) for split in ("test", "train")]
    T = torch.cat([samples.T for samples in omniglot]).float() / (LEVELS - 1)
    rows: dict[str, list[int]] = {}
    for row, name in enumerate(name for samples in omniglot for name in samples.labels["character"]):
        rows.setdefault(str(name), []).append(row)
    chosen = list(rows.values())[:count]
    learner = Knowing(tzk_core.load(run), trained_on(run, seed), seed, components=1, trust=60.0)
    y = torch.cat([learner.features(part) for part in T.split(512)])
    table, scores, seconds = [], [], 0.0
    test = torch.tensor([row for each in chosen for row in each[most:]])
    answers = torch.tensor([number for number, each in enumerate(chosen) for _ in each[most:]])
    for number, each in enumerate(chosen):
        started = time.process_time()
        knowledge = learner._build("class")
        components = knowledge.latent.components
        components.fit(y[each[:most]], shrinkage=0.2, trust=60.0, generator=stream(seed, "components"))
        seconds += time.process_time() - started
        scores.append(torch.cat([components(part)[:, 0] for part in y[test].split(2048)]))
        if number + 1 in (10, 20, 50, 100, 200, 500, 1000, count):
            seen = answers <= number
            right = torch.stack(scores, 1)[seen].argmax(1) == answers[seen]
            table.append({"classes": number + 1, "accuracy": float(right.float().mean()), "seconds": seconds})
    return table


def written(results: dict[str, Any]) -> str:
    """The results as a table in Markdown."""
    lines = [
        f"Command: `{results['command']}`. Split: {results['split']}; seed {results['seed']}; {results['machine']}; "
        f"{results['seconds']:.0f} s of processor time in all, without the training of the flows.",
        "",
        "| learner | all ten, % | forgetting, points | older answers | seconds a class | bytes a class |",
        "|---|---:|---:|---|---:|---:|",
    ]
    for name, row in results["rows"].items():
        older = "same to the bit" if row.get("unchanged") else "—"
        lines.append(
            f"| {name} | {100 * row['accuracy_last']:.2f} | {100 * row['forgetting']:.2f} | {older} "
            f"| {row['seconds_per_class']:.2f} | {row['bytes_per_class']:,} |"
        )
    lines += [f"| *{name}* (quoted) | {value} | | | | |" for name, value, _ in QUOTED]
    lines += [
        "",
        "| after digits | " + " | ".join(str(number) for number in range(1, 11)) + " |",
        "|---|" + "---:|" * 10,
    ]
    for name, row in results["rows"].items():
        lines.append(f"| {name} | " + " | ".join(f"{100 * value:.2f}" for value in row["accuracy"]) + " |")
    if results["omniglot"]:
        lines += ["", "| characters of Omniglot | accuracy, % | seconds so far |", "|---:|---:|---:|"]
        lines += [f"| {r['classes']} | {100 * r['accuracy']:.1f} | {r['seconds']:.1f} |" for r in results["omniglot"]]
    lines += ["", "Quoted:"]
    return "\n".join([*lines, *(f"- {name}: {value} % ({source})" for name, value, source in QUOTED)]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="*", help="run folders of the frozen flows")
    parser.add_argument("--dreams", action="store_true", help="rows with features fitted to samples of the flow, too")
    parser.add_argument("--split", choices=("validation", "test"), default="test")
    parser.add_argument("--most", type=int, help="images of a digit to learn from at most; default all")
    parser.add_argument("--no-rivals", action="store_true", help="only the flows")
    parser.add_argument("--fourier", type=int, default=3000, help="features of RanDumb (default: %(default)s)")
    parser.add_argument("--omniglot", type=int, default=0, help="characters to add to the first run, one by one")
    parser.add_argument("--machine", default="", help="a description of the machine, for the record")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="where to write the figures; a table goes beside it, as .md")
    options = parser.parse_args()

    torch.set_flush_denormal(True)
    started = time.process_time()
    for run in options.runs:
        tzk_core.load(run)  # what is not there is said before anything is computed
    classes, test = digits("train", options.most), digits(options.split, None)
    rows: dict[str, dict[str, Any]] = {}
    for run in options.runs:
        for dreams in (False, True) if options.dreams else (False,):
            title = f"TzK, {run.name}" + (", features of its samples" if dreams else "")
            rows[title] = of_flow(run, classes, test, dreams=dreams, seed=options.seed)
            print(f"{title}: {100 * rows[title]['accuracy_last']:.2f} %", flush=True)
    if not options.no_rivals:
        for title, build in rivals(options.seed, options.fourier).items():
            rows[title] = learn_all(build(), classes, test)
            print(f"{title}: {100 * rows[title]['accuracy_last']:.2f} %", flush=True)
    table = characters(options.runs[0], options.omniglot, options.seed) if options.omniglot else []
    results = {
        "format": 1,
        "command": "python examples/knowledge/incremental.py " + " ".join(_words(options)),
        "split": options.split,
        "seed": options.seed,
        "machine": options.machine,
        "seconds": time.process_time() - started,
        "rows": rows,
        "omniglot": table,
        "quoted": [{"name": name, "percent": value, "source": source} for name, value, source in QUOTED],
    }
    print("\n" + written(results))
    write_results(options.json, results, title="Class-incremental MNIST", text=written(results))


def _words(options: argparse.Namespace) -> list[str]:
    """The command again, with run folders as they would be named here."""
    words = [f"runs/{run.name}" for run in options.runs]
    words += ["--dreams"] * options.dreams + ["--no-rivals"] * options.no_rivals
    words += ["--split validation"] * (options.split == "validation")
    words += [f"--fourier {options.fourier}"]
    words += [f"--most {options.most}"] * (options.most is not None)
    return words + [f"--omniglot {options.omniglot}"] * bool(options.omniglot)


if __name__ == "__main__":
    with edge.script():
        main()
