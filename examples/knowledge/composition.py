"""Compositions of drawn digits that can be counted.

They are "and" and "not" of 2, 3 and 4 knowledge types.

    tzk run examples/knowledge/composition.toml --out runs/composition
    python examples/knowledge/composition.py runs/composition --json composition.json

A sample is right if it shows all present members and no absent one. The judge is fitted on real glyphs of another seed,
and its own accuracy on real test glyphs, printed first, bounds what can be measured. The rival takes samples of the
model's p(T), and accepts each with the product of the probabilities of independent classifiers of its members. Both are
measured as they are ("exact") and with all ratios taken to the power --guidance ("guided"). "Among" is the composition
that is led by the mixture of the digits, one of which every glyph is, where it asks for none.

The compositions are drawn by seed (`drawn`): factors, values and negations at random. Those of the seed 0 are for
choosing (--split validation), those of the seed 1 for the figures, without what both have.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from glyph_judges import CLASSES, DIGIT_MEMBERS, Judge, classifiers, members, pixels, shown
from results_files import write_results
from torch import Tensor

import tzk_core
from tzk_core.cli import edge
from tzk_core.data.dequantise import dequantise
from tzk_core.data.glyphs import GlyphDigits
from tzk_core.errors import TzkError
from tzk_core.model.smc import Tempering
from tzk_core.random_streams import stream

EACH = 8  # compositions of each number of members
SIZES = (2, 3, 4)
REAL = 24_000  # real glyphs whose variance is compared with
MOST_TRIES = 10_000  # samples of p(T) that the rival may look at for one composition
CHUNK = 2000
LEARNERS = ("exact", "exact among", "guided", "guided among", "rejection", "guided rejection")

Row = dict[str, Any]
Shown = dict[str, Tensor]


@dataclass(frozen=True)
class Asked:
    """A composition: members that are present, and members that are absent."""

    present: tuple[str, ...]
    absent: tuple[str, ...]

    def __str__(self) -> str:
        return " and ".join([*self.present, *(f"not {name}" for name in self.absent)])

    def right(self, shows: Shown) -> Tensor:
        """Which images are what is asked for, (n,) bool."""
        return torch.stack([*(shows[name] for name in self.present), *(~shows[name] for name in self.absent)]).all(0)


def drawn(seed: int) -> list[Asked]:
    """`EACH` compositions of each size, of members of different factors.

    A digit is present; the class of another factor is absent in one of three cases. At least one member is present.
    """
    source, found = random.Random(seed), []
    values = {"digit": list(DIGIT_MEMBERS), **CLASSES}
    for size in SIZES:
        asked: list[Asked] = []
        while len(asked) < EACH:
            chosen = [(factor, source.choice(values[factor])) for factor in source.sample(sorted(values), size)]
            absent = tuple(sorted(name for factor, name in chosen if factor != "digit" and source.random() < 1 / 3))
            present = tuple(sorted(name for _, name in chosen if name not in absent))
            if present and Asked(present, absent) not in asked:
                asked.append(Asked(present, absent))
        found += asked
    return found


def compositions(split: str) -> list[Asked]:
    """Those for choosing ("validation"), or others for the figures ("test")."""
    chosen = drawn(0)
    return chosen if split == "validation" else [asked for asked in drawn(1) if asked not in chosen]


def composed(
    model: tzk_core.TzK,
    judge: Judge,
    asked: Asked,
    *,
    options: argparse.Namespace,
    guidance: float = 1.0,
    among: tuple[str, ...] = (),
) -> Row:
    """Judged samples of a composition; a refusal counts as nothing right."""
    started = time.process_time()
    try:
        composition = model.compose(*asked.present, without=asked.absent, guidance=guidance, among=among)
        population = composition.populate(seed=0, settings=Tempering(particles=options.particles))
        images = composition.sample(options.number, population)
    except TzkError as error:
        return {"right": 0.0, "refused": str(error), "seconds": time.process_time() - started}
    seconds = time.process_time() - started
    row: Row = {"right": _share(asked.right(judge(images))), "particles": len(population.noise)}
    row |= {"effective": population.ess, "steps": population.steps, "seconds": seconds}
    return row | {"discriminators": composition.agreement(population), "variance": _variance(images)}


def rejected(
    samples: list[tuple[Tensor, Shown, Shown]], seconds: float, asked: Asked, *, number: int, guidance: float = 1.0
) -> Row:
    """The rival: samples of p(T) that independent classifiers accept, judged, until `number` are accepted.

    Args:
        guidance: the power of the product of their probabilities.
        samples: chunks of probabilities by member, uniform numbers, and what the judge says.
        seconds: what sampling and classifying a chunk took.
    """
    accepted: list[Tensor] = []
    tries = chunks = 0
    for uniform, probability, shows in samples:
        factors = [probability[name] for name in asked.present] + [1 - probability[name] for name in asked.absent]
        accepted.append(asked.right(shows)[uniform < torch.stack(factors).prod(0) ** guidance])
        tries, chunks = tries + len(uniform), chunks + 1
        if sum(map(len, accepted)) >= number:
            break
    right = torch.cat(accepted)
    share = _share(right) if len(right) else None
    return {"right": share, "accepted": len(right), "tries": tries, "seconds": seconds * chunks}


def prior_samples(model: tzk_core.TzK, judge: Judge, options: argparse.Namespace) -> tuple[list[Any], float]:
    """Samples of p(T) in chunks, as `rejected` takes them.

    With them go the seconds for one chunk, without the judge's.
    """
    classify = classifiers(GlyphDigits(train=options.glyphs).split("train"))
    chunks, spent = [], 0.0
    for chunk in range(MOST_TRIES // CHUNK):
        started = time.process_time()
        images = model.sample(CHUNK, seed=chunk)
        probability = classify(images)
        spent += time.process_time() - started
        uniform = torch.rand(CHUNK, generator=torch.Generator().manual_seed(chunk), dtype=torch.float64)
        chunks.append((uniform, probability, judge(images)))
    return chunks, spent / len(chunks)


def single_members(model: tzk_core.TzK, judge: Judge, options: argparse.Namespace) -> dict[str, Row]:
    """Each member alone: what its samples show, and its discriminator on test glyphs.

    The samples of all members bound what compositions can reach only where they lead.
    """
    test = GlyphDigits(seed=1).split("test")
    T = dequantise(test.T, stream(0, "composition", "noise"), 256)
    known, posterior, rows = shown(test), model.posterior(T), {}
    for name in members():
        samples = model.sample(options.number, name, seed=0)
        verdict = posterior[name].presence > 0.5
        rows[name] = {"right": _share(judge(samples)[name]), "discriminator": _share(verdict == known[name])}
    return rows


def judged(judge: Judge, asked: list[Asked]) -> Row:
    """What the judge makes of test glyphs, whose factors are known."""
    test = GlyphDigits(seed=1, test=2000).split("test")
    known, answers = shown(test), judge(pixels(test))
    row: Row = {"members": {name: _share(known[name] == answers[name]) for name in members()}}
    for size in SIZES:
        found = [one for one in asked if _size(one) == size]
        hits = [(one.right(known) & one.right(answers)).double().sum() for one in found]
        row[f"of_{size}"] = float(sum(hits) / sum(one.right(known).double().sum() for one in found))
    return row


def measure(model: tzk_core.TzK, options: argparse.Namespace) -> Row:
    """All figures of a model."""
    judge, asked = Judge(options.glyphs), compositions(options.split)
    results: Row = {"judge": judged(judge, asked), "members": single_members(model, judge, options)}
    chunks, seconds = prior_samples(model, judge, options) if options.rival else ([], 0.0)
    train = GlyphDigits(train=REAL).split("train")
    known, real = shown(train), pixels(train)
    results["compositions"] = {}
    for one in asked:
        row: Row = {"members": _size(one), "real variance": _variance(real[one.right(known)])}
        for learner, guidance in (("exact", 1.0), ("guided", options.guidance)):
            row[learner] = composed(model, judge, one, guidance=guidance, options=options)
            row[f"{learner} among"] = (
                row[learner]
                if _asks_for_a_digit(one)
                else composed(model, judge, one, guidance=guidance, among=DIGIT_MEMBERS, options=options)
            )
        if chunks:
            row["rejection"] = rejected(chunks, seconds, one, number=options.number)
            row["guided rejection"] = rejected(chunks, seconds, one, number=options.number, guidance=options.guidance)
        results["compositions"][str(one)] = row
        rights = ", ".join(f"{learner} {row[learner]['right']:.1%}" for learner in LEARNERS[:4])
        print(f"{one}: {rights}", file=sys.stderr, flush=True)
    results["means"] = dict(means(results["compositions"].values()))
    return results


def means(rows: Collection[Row]) -> Iterator[tuple[str, Row]]:
    """Mean figures by number of members and learner.

    These are the share that is right, how many were refused or had no sample, and seconds. With these goes the variance
    of the pixels of samples, as a share of that of real glyphs.
    """
    for size in SIZES:
        found = [row for row in rows if row["members"] == size]
        for learner in LEARNERS:
            ours = [row[learner] for row in found if learner in row]
            if ours:
                shares = [row["right"] or 0.0 for row in ours]
                variances = [row[learner].get("variance", 0.0) / row["real variance"] for row in found]
                figures: Row = {"right": sum(shares) / len(shares), "variance": sum(variances) / len(ours)}
                figures["without"] = sum(row["right"] is None or "refused" in row for row in ours)
                yield f"{size} {learner}", figures | {"seconds": sum(row["seconds"] for row in ours) / len(ours)}


def written(results: Row) -> str:
    """The figures as tables of Markdown."""
    judge = results["judge"]
    bounds = ", ".join(f"{judge[f'of_{size}']:.1%} of {size}" for size in SIZES)
    lines = [f"`{results['command']}`\n", f"The judge finds what real test glyphs are: {bounds} members.\n"]
    lines += ["| members | learner | right | variance of real | none | seconds |", "|---|---|---:|---:|---:|---:|"]
    for name, row in results["means"].items():
        size, _, learner = name.partition(" ")
        variance = f"{row['variance']:.0%}" if row["variance"] else "—"
        lines.append(
            f"| {size} | {learner} | {row['right']:.1%} | {variance} | {row['without']} | {row['seconds']:.1f} |"
        )
    lines += ["", f"| composition | {' | '.join(LEARNERS)} | particles, effective | accepted of tries |"]
    lines += ["|---|" + "---:|" * (len(LEARNERS) + 2)]
    lines += [_line(name, row) for name, row in results["compositions"].items()]
    lines += ["", "| member | its samples show it | discriminator right | judge right |", "|---|---:|---:|---:|"]
    for name, row in results["members"].items():
        lines.append(f"| {name} | {row['right']:.1%} | {row['discriminator']:.1%} | {judge['members'][name]:.1%} |")
    return "\n".join(lines) + "\n"


def _line(name: str, row: Row) -> str:
    """The line of a composition; a dash where there is no sample."""
    shares = [row[learner]["right"] if learner in row else None for learner in LEARNERS]
    cells = [name, *("—" if share is None else f"{share:.1%}" for share in shares)]
    sides = row["exact"], row["guided"]
    effective = [f"{side['effective']:.0f}" if "effective" in side else "refused" for side in sides]
    rival = row.get("rejection", {})
    cells += [f"{row['exact'].get('particles', '—')}, {' and '.join(effective)}"]
    return "| " + " | ".join([*cells, f"{rival.get('accepted', '—')} of {rival.get('tries', '—')}"]) + " |"


def _variance(images: Tensor) -> float:
    """Mean variance of the pixels."""
    return images.double().var(0).mean().item()


def _share(values: Tensor) -> float:
    return values.double().mean().item()


def _asks_for_a_digit(asked: Asked) -> bool:
    return any(name in DIGIT_MEMBERS for name in asked.present)


def _size(asked: Asked) -> int:
    return len(asked.present) + len(asked.absent)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Count what compositions of examples/knowledge/composition.toml show.")
    parser.add_argument("run", type=Path, help="a run folder of examples/knowledge/composition.toml")
    parser.add_argument("--number", type=int, default=512, help="samples of each composition (default: %(default)s)")
    parser.add_argument("--particles", type=int, default=512, help="of each composition (default: %(default)s)")
    parser.add_argument("--guidance", type=float, default=10.0, help="power of the ratios (default: %(default)s)")
    parser.add_argument("--glyphs", type=int, default=4000, help="that the judge is fitted to (default: %(default)s)")
    parser.add_argument("--split", choices=["validation", "test"], default="test", help="which compositions")
    parser.add_argument("--no-rival", dest="rival", action="store_false", help="leave out the rejection")
    parser.add_argument("--json", type=Path, help="where to write the figures; a table goes beside it, as .md")
    return parser.parse_args()


def main() -> None:
    options = _options()
    results = {"command": " ".join(["python", *sys.argv]), **measure(tzk_core.load(options.run), options)}
    print(written(results))
    write_results(options.json, results, title="Composition that can be counted", text=written(results))


if __name__ == "__main__":
    with edge.script():
        main()
