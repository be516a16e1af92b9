"""Samples at a grid of slants and thicknesses, measured as MNIST's images were.

They show whether C steers.

    tzk run examples/steered.toml --out runs/steered
    python examples/steered.py runs/steered

Prints a Markdown table. The requested C of a digit are the 5x5 quantiles from 10 to 90 % of its p(C). The median over
the samples at a C is the measured value. Printed are the correlation of both, and the slope of measured on requested.
"""

from __future__ import annotations

import argparse
import fnmatch

import numpy as np
import torch

import tzk_core
from tzk_core.cli import edge
from tzk_core.data.ink import slant, thickness

QUANTILES = torch.special.ndtri(torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9]))


def measured(model: tzk_core.TzK, name: str, C: torch.Tensor, *, samples: int, temperature: float) -> np.ndarray:
    """Median slant and thickness by C, (n, 2), nan where no sample has ink.

    Args:
        C: (n, 2).
    """
    T = model.sample(len(C) * samples, name, C.repeat_interleave(samples, 0), temperature=temperature, seed=0)
    images = (T[:, 0].clamp(0, 1) * 255).round().byte().numpy()
    both = np.stack([slant(images), thickness(images)], axis=1)
    return np.nanmedian(both.reshape(len(C), samples, 2), axis=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="a run whose knowledge types observe slant and thickness, in this order")
    parser.add_argument("--knowledge", default="digit-*", help="which of them (default: %(default)s)")
    parser.add_argument("--samples", type=int, default=40, help="at a C (default: %(default)s)")
    parser.add_argument("--temperature", type=float, default=1.0, help="of the noise of z (default: %(default)s)")
    options = parser.parse_args()
    model = tzk_core.load(options.run)
    print("| knowledge | slant, correlation | slope | thickness, correlation | slope |\n|---|---:|---:|---:|---:|")
    for name, knowledge in model.named_knowledge():
        if fnmatch.fnmatch(name, options.knowledge):
            requested = knowledge.imagine(torch.cartesian_prod(QUANTILES, QUANTILES))
            values = measured(model, name, requested, samples=options.samples, temperature=options.temperature)
            cells = []
            for x, y in zip(requested.T.numpy(), values.T, strict=True):
                cells += [f"{np.corrcoef(x, y)[0, 1]:.3f}", f"{np.polyfit(x, y, 1)[0]:.2f}"]
            print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    with edge.script():
        main()
