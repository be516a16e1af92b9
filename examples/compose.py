"""Judgements of samples of "digit 3 and thick and not slanted" and its parts.

The judges are fitted on real glyphs.

    tzk run examples/compose.toml --out runs/compose
    python examples/compose.py runs/compose [--number 512] [--temperature 1]

The judges never see the model: kernel ridge regressions, in closed form, from the pixels of drawn digits of another
seed to their class, thickness and slant. What they make of test glyphs, whose factors are known, is printed first.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection
from pathlib import Path
from typing import get_args

import torch
from torch import Tensor

import tzk_core
from tzk_core.cli import edge
from tzk_core.data.glyphs import CLASS_EDGE, DIGITS, GlyphDigits
from tzk_core.errors import TzkError
from tzk_core.model.composition import Side

ASKED = {"digit-3": "is 3", "thick": "thick", "slanted": "upright"}
"""The column of the table that says whether a member is right."""

COMPOSITIONS = ((("digit-3", "thick"), ()), (("digit-3",), ("slanted",)), (("digit-3", "thick"), ("slanted",)))
"""Present and absent members of each."""

WIDTH, RIDGE = 5.0, 0.01  # of 3, 5 and 8, and of 0.01 and 0.1, what judged test glyphs best

Judged = tuple[Tensor, Tensor, Tensor]
"""Number of the class, thickness and slant in standard deviations, (n,) each."""


def judges(glyphs: int) -> Callable[[Tensor], Judged]:
    """From images in [0, 1], (n, 1, 16, 16), to what is judged of them."""
    samples = GlyphDigits(train=glyphs, seed=1).split("train")
    inputs = (samples.T.double() / 255).flatten(1)
    known = torch.tensor([list(DIGITS).index(label) for label in samples.labels["label"]])
    factors = torch.stack([samples.characteristics[name] for name in ("thickness", "slant")], 1)
    targets = torch.cat([torch.nn.functional.one_hot(known, len(DIGITS)), factors], 1).double()

    def kernel(T: Tensor) -> Tensor:
        return torch.exp(-torch.cdist(T, inputs).square() / (2 * WIDTH**2))

    weights = torch.linalg.solve(kernel(inputs) + RIDGE * torch.eye(glyphs, dtype=torch.float64), targets)

    def judge(T: Tensor) -> Judged:
        answers = kernel(T.double().flatten(1).clamp(0, 1)) @ weights
        return answers[:, : len(DIGITS)].argmax(1), answers[:, -2], answers[:, -1]

    return judge


def row(name: str, judged: Judged, asked: Collection[str]) -> str:
    """A line of the table of judged samples.

    It has the shares of each property and of all that are asked for, and the means of the factors.
    """
    digit, thickness, slant = judged
    right = {"is 3": digit == 3, "thick": thickness > CLASS_EDGE, "upright": slant.abs() < CLASS_EDGE}
    shares = [*right.values(), torch.stack([right[ASKED[member]] for member in asked]).all(0)]
    cells = [f"{share.double().mean():>6.0%}" for share in shares]
    return " | ".join([f"| {name:<44}", *cells, f"{thickness.mean():.2f}", f"{slant.abs().mean():.2f} |"])


def composed(
    model: tzk_core.TzK, judge: Callable[[Tensor], Judged], *, number: int, temperature: float
) -> list[tuple[str, str]]:
    """A row of the table for each composition and side.

    With it goes what to say of its particles; where it is refused, why.
    """
    results = []
    for present, absent in COMPOSITIONS:
        for side in get_args(Side):
            composition = model.compose(*present, without=absent, side=side, temperature=temperature)
            name = f"{composition} ({side})"
            try:
                population = composition.populate(seed=0)
            except TzkError as error:
                results.append((f"| {name:<44} |" + " refused |" * 4 + " — | — |", f"{name}: {error}"))
                continue
            judged = judge(composition.sample(number, population))
            effective = f"effective sample size {population.ess:.0f} of {len(population.noise)}"
            normaliser = f"log normaliser {population.log_normaliser:.2f} ± {population.standard_error:.2f} nats"
            agreement = ", ".join(f"{value} {share:.0%}" for value, share in composition.agreement(population).items())
            note = f"{name}: {effective} after {population.steps} steps, {normaliser}; discriminators: {agreement}"
            results.append((row(name, judged, (*present, *absent)), note))
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description="Judge samples of a composition of examples/compose.toml.")
    parser.add_argument("run", type=Path, help="a run folder of examples/compose.toml")
    parser.add_argument("--number", type=int, default=512, help="samples of each row (default: %(default)s)")
    parser.add_argument("--temperature", type=float, default=1.0, help="of the noise of z (default: %(default)s)")
    parser.add_argument("--glyphs", type=int, default=3000, help="that the judges are fitted on (default: %(default)s)")
    options = parser.parse_args()
    model, judge = tzk_core.load(options.run), judges(options.glyphs)

    test = GlyphDigits(seed=1).split("test")
    images = test.T.float() / 255
    digit, thickness, slant = judge(images)
    known = torch.tensor([list(DIGITS).index(label) for label in test.labels["label"]])
    errors = [
        (judged - test.characteristics[name]).square().mean().sqrt()
        for name, judged in (("thickness", thickness), ("slant", slant))
    ]
    print(f"judges on test glyphs: {(digit == known).double().mean():.1%} of the classes right, thickness within")
    print(f"{errors[0]:.2f} and slant within {errors[1]:.2f} standard deviations (root mean square)\n")

    print(f"| {'':<44} |   is 3 |  thick | upright |  asked | mean thickness | mean abs. slant |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    print(row("test glyphs of a 3, of all that is asked", judge(images[known == 3]), tuple(ASKED)))
    for name in ("digit-3", "thick"):
        samples = model.sample(options.number, name, temperature=options.temperature, seed=0)
        print(row(f"samples of {name}", judge(samples), tuple(ASKED)), flush=True)
    rows = composed(model, judge, number=options.number, temperature=options.temperature)
    print(*(line for line, _ in rows), "", *(note for _, note in rows), sep="\n")


if __name__ == "__main__":
    with edge.script():
        main()
