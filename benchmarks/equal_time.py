"""Held-out bits of variants of a config, each trained for the same processor time.

    python benchmarks/equal_time.py CONFIG [--seconds 60] [--samples 2000] VARIANT ...

VARIANT is "NAME" or "NAME KEY=VALUE ...", with overrides as of `tzk run`. A few steps are timed first, which gives the
steps that fit; the rates fall over just these. Bits are of p(T) on validation samples of the first data set, one draw
of the noise, per pixel of the images without their padding. The test split is not read.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from tzk_core.config import load_config
from tzk_core.runs.experiment import Experiment
from tzk_core.units import bits_per_image

TIMED = 8
"""Steps that are timed."""


def trained(config: Path, overrides: list[str], steps: int) -> tuple[Experiment, list[float]]:
    """The experiment after so many steps, and the processor time after each, in seconds."""
    text = [*overrides, f"training.steps={steps}", "training.validate_every=0"]
    experiment = Experiment(load_config(config, text))
    clock: list[float] = []
    experiment.train(None, progress=lambda _: clock.append(time.process_time()))
    return experiment, clock


def compared(config: Path, variant: str, *, seconds: float, samples: int) -> dict[str, Any]:
    """A variant's steps, its seconds and its bits per pixel on validation samples."""
    name, *overrides = variant.split()
    _, clock = trained(config, overrides, TIMED)
    step = statistics.median(after - before for before, after in pairwise(clock))
    steps = max(1, int(seconds / step))
    experiment, clock = trained(config, overrides, steps)
    dataset = next(iter(experiment.datasets))
    T, _ = experiment.samples(dataset, "validation", samples)
    with torch.no_grad():
        log_prob = torch.cat([experiment.model.log_prob(part) for part in T.split(250)])
    pixels = experiment.datasets[dataset].original_dims or T[0].numel()
    bits = bits_per_image(log_prob, T[0].numel(), experiment.levels) / pixels
    return {
        "variant": variant,
        "name": name,
        "steps": steps,
        "seconds": round(clock[-1] - clock[0], 1),
        "bits_per_pixel": round(bits.mean().item(), 4),
        "standard_error": round(bits.std().item() / len(bits) ** 0.5, 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("variants", nargs="+")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--samples", type=int, default=2000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for variant in options.variants:
        found = compared(options.config, variant, seconds=options.seconds, samples=options.samples)
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
