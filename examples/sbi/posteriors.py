"""Simulation-based inference on two tasks of sbibm: TzK's posterior beside NPE of `sbi`, by C2ST.

    pip install "tzk-core[sklearn]" ./plugins/tzk-plugin-baselines sbi
    python examples/sbi/posteriors.py [--simulations 1000] [--observations 2] [--out FILE]

T is a simulator's parameters θ and C its data x, observed. p(T) is then the prior of θ, p(T given C, κ=1) the posterior
for any x, and p(C given T, κ=1) a Gaussian model of the simulator. The knowledge type is `conditional-flow`.

The tasks are Gaussian linear and two moons (Lueckmann et al. 2021), written here from their definitions. Their
posteriors are sampled exactly, so that no sampler's error is in the reference. Both methods get the same simulations, a
tenth of them for validation, and masked autoregressive flows of the same sizes. C2ST is the cross-validated accuracy of
a network, as in sbibm, that tells samples of a posterior from the reference: 0.5 is perfect, 1 is the worst.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.model_selection import KFold, cross_val_score
from sklearn.neural_network import MLPClassifier
from torch import Tensor

import tzk_core
from tzk_core.cli import edge

STEPS, HIDDEN, BLOCKS = 5, 50, 1
"""Of the flows: layers, and the width and number of hidden layers beyond the first of each network."""

Posterior = Callable[[Tensor, int], Tensor]
"""An observation, (c,), and a number of samples to samples of θ, (n, dims)."""


@dataclass(frozen=True)
class Task:
    """A prior, a simulator, and exact samples of the posterior.

    domain: of θ (`tzk_core.domain`).
    prior: so many samples of θ, (n, dims).
    simulate: θ to data, (n, c).
    reference: an observation, (c,), and a number to so many samples of the posterior.
    """

    domain: str
    prior: Callable[[int], Tensor]
    simulate: Callable[[Tensor], Tensor]
    reference: Posterior


def _moon(count: int) -> Tensor:
    """The noise of two moons: points of a crescent, (n, 2)."""
    angle, radius = math.pi * (torch.rand(count) - 0.5), 0.1 + 0.01 * torch.randn(count)
    return torch.stack([radius * angle.cos() + 0.25, radius * angle.sin()], 1)


def _two_moons(theta: Tensor) -> Tensor:
    first, second = theta.unbind(1)
    return _moon(len(theta)) + torch.stack([-(first + second).abs(), second - first], 1) / 2**0.5


def _two_moons_posterior(observed: Tensor, count: int) -> Tensor:
    """Noise, either sign of θ₁ + θ₂, and what is within the prior."""
    kept = torch.empty(0, 2)
    while len(kept) < count:
        shift = observed - _moon(4 * count)
        shift = shift[shift[:, 0] <= 0] * 2**0.5
        total = -shift[:, 0] * (1 - 2 * torch.randint(2, (len(shift),)))
        theta = torch.stack([total - shift[:, 1], total + shift[:, 1]], 1) / 2
        kept = torch.cat([kept, theta[theta.abs().amax(1) < 1]])
    return kept[:count]


TASKS = {
    "gaussian linear": Task(
        domain="real",
        prior=lambda count: 0.1**0.5 * torch.randn(count, 10),
        simulate=lambda theta: theta + 0.1**0.5 * torch.randn_like(theta),
        reference=lambda observed, count: observed / 2 + 0.05**0.5 * torch.randn(count, 10),
    ),
    "two moons": Task(
        domain="(-1, 1)",
        prior=lambda count: 2 * torch.rand(count, 2) - 1,
        simulate=_two_moons,
        reference=_two_moons_posterior,
    ),
}


def tzk_posterior(task: Task, theta: Tensor, x: Tensor, *, steps: int, seed: int) -> Posterior:
    """TzK's, with λ = 0: the data's Gaussian model would otherwise hold the posterior back."""
    dims, characteristics = theta.shape[1], x.shape[1]
    model = tzk_core.TzK(tzk_core.build_flow((dims,), "logit", seed=seed, domain=task.domain))
    kind = tzk_core.build_knowledge(
        "conditional-flow", (dims,), seed, name="x", characteristics=characteristics, steps=STEPS, hidden=HIDDEN,
        blocks=BLOCKS,
    )  # fmt: skip
    model.add("x", kind)
    held_out = len(theta) // 10
    train, validation = slice(held_out, None), slice(held_out)
    tzk_core.fit(
        model,
        theta[train],
        {"x": torch.ones(len(theta) - held_out)},
        characteristics={"x": x[train]},
        validation=(theta[validation], {"x": torch.ones(held_out)}, {"x": x[validation]}),
        steps=steps,
        batch_size=200,
        learning_rate=2e-3,
        validate_every=25,
        patience=8,
        multiplier=0.0,
        multiplier_rate=0.0,
        seed=seed,
    )
    return lambda observed, count: model.sample(count, "x", observed, seed=seed)


def sbi_posterior(task: Task, theta: Tensor, x: Tensor, *, steps: int, seed: int) -> Posterior:
    """`sbi`'s, with the training that it has by default."""
    from sbi.inference import NPE
    from sbi.neural_nets import posterior_nn
    from sbi.utils import BoxUniform

    torch.manual_seed(seed)
    dims = theta.shape[1]
    prior: Any = torch.distributions.MultivariateNormal(torch.zeros(dims), 0.1 * torch.eye(dims))
    if task.domain != "real":
        prior = BoxUniform(-torch.ones(dims), torch.ones(dims))
    estimator = posterior_nn(model="maf", hidden_features=HIDDEN, num_transforms=STEPS, num_blocks=1 + BLOCKS)
    inference = NPE(prior=prior, density_estimator=estimator, show_progress_bars=False)
    inference.append_simulations(theta, x).train()
    posterior = inference.build_posterior()
    return lambda observed, count: posterior.sample((count,), x=observed, show_progress_bars=False)


METHODS = {"TzK": tzk_posterior, "sbi NPE": sbi_posterior}


def c2st(samples: Tensor, reference: Tensor, *, seed: int) -> float:
    """The accuracy of a network that tells one from the other, by 5-fold cross-validation.

    Args:
        samples, reference: as many rows, (n, dims); the reference sets the standardisation.
    """
    mean, deviation = reference.mean(0), reference.std(0)
    both = ((torch.cat([reference, samples]) - mean) / deviation).numpy()
    which = np.repeat([0, 1], [len(reference), len(samples)])
    width = 10 * both.shape[1]
    network = MLPClassifier(hidden_layer_sizes=(width, width), max_iter=1000, random_state=seed)
    folds = KFold(5, shuffle=True, random_state=seed)
    return float(cross_val_score(network, both, which, cv=folds).mean())


def compared(task: Task, *, simulations: int, observations: int, samples: int, steps: int, seed: int) -> dict[str, Any]:
    """By method, C2ST at each observation, and seconds of CPU time for the training."""
    torch.manual_seed(seed)
    theta = task.prior(simulations)
    x = task.simulate(theta)
    seen = task.simulate(task.prior(observations))
    references = [task.reference(observed, samples) for observed in seen]
    report: dict[str, Any] = {}
    for name, method in METHODS.items():
        before = time.process_time()
        try:
            posterior = method(task, theta, x, steps=steps, seed=seed)
        except ImportError as missing:
            warnings.warn(f"{name} is left out: {missing}", stacklevel=2)
            continue
        spent = time.process_time() - before
        scores = [
            c2st(posterior(observed, samples).detach(), reference, seed=seed)
            for observed, reference in zip(seen, references, strict=True)
        ]
        report[name] = {"c2st": scores, "seconds": round(spent, 1)}
    return report


def markdown(report: dict[str, Any]) -> str:
    """A row a task and method: mean C2ST with its standard error over observations."""
    lines = ["| task | posterior | C2ST | seconds |", "|---|---|---:|---:|"]
    for task, by_method in report["tasks"].items():
        for method, of in by_method.items():
            scores = of["c2st"]
            error = statistics.stdev(scores) / len(scores) ** 0.5 if len(scores) > 1 else math.nan
            lines.append(f"| {task} | {method} | {statistics.fmean(scores):.3f} ± {error:.3f} | {of['seconds']:.0f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    numbers = {"simulations": 1000, "observations": 2, "samples": 400, "steps": 500, "seed": 0}
    for key, default in numbers.items():
        parser.add_argument(f"--{key}", type=int, default=default, help="(default: %(default)s)")
    parser.add_argument("--tasks", default=",".join(TASKS), help="(default: %(default)s)")
    parser.add_argument("--out", type=Path, help="a file for the results, as JSON")
    options = parser.parse_args()
    settings = {key: getattr(options, key) for key in numbers}
    report: dict[str, Any] = {"tasks": {}, **settings}
    for name in options.tasks.split(","):
        report["tasks"][name] = compared(TASKS[name], **settings)
        if options.out:
            options.out.write_text(json.dumps(report, indent=2) + "\n")
    print(markdown(report))


if __name__ == "__main__":
    with edge.script():
        main()
