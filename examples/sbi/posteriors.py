"""Simulation-based inference on two tasks of sbibm: TzK beside NPE of `sbi`.

    pip install "tzk-core[sklearn]" ./plugins/tzk-plugin-baselines sbi
    python examples/sbi/posteriors.py [--simulations 1000] [--observations 2] [--seeds 2] [--out FILE]
    python examples/sbi/posteriors.py --samples 0 --methods TzK --architectures maf    # held-out log posteriors alone

T is a simulator's parameters θ and C its data x, observed. p(T) is then the prior of θ, p(T given C, κ=1) the posterior
for any x, and p(C given T, κ=1) a Gaussian model of the simulator. The knowledge type is `conditional-flow`.

The tasks are Gaussian linear and two moons (Lueckmann et al. 2021), written here from their definitions. Their
posteriors are sampled exactly, so that no sampler's error is in the reference. All methods get the same simulations, a
tenth of them for validation. `sbi` has its own flows and training, by default. Samples outside of the prior's support
are drawn again in all methods.

C2ST is the cross-validated accuracy of a network, as in sbibm, that tells samples of a posterior from the reference:
0.5 is perfect, 1 is the worst. The held-out log posterior is the mean log p(θ given x) of further simulations, in nats,
which settings were chosen by. A seed sets the simulations, what is observed, and the training.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.model_selection import KFold, cross_val_score
from sklearn.neural_network import MLPClassifier
from torch import Tensor

import tzk_core
from tzk_core import TzK
from tzk_core.cli import edge
from tzk_core.domain import intervals
from tzk_core.errors import TzkError

HELD_OUT = 2000
"""So many further simulations have their posterior evaluated."""


class Posterior(NamedTuple):
    """Of any data.

    sample: an observation, (c,), and a number to so many samples of θ, (n, dims).
    log_prob: θ, (n, dims), and x, (n, c), to log p(θ given x), (n,), without regard to the prior's support.
    """

    sample: Callable[[Tensor, int], Tensor]
    log_prob: Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Training:
    """How TzK's posterior is trained.

    architectures: of `conditional-flow`; validation data choose one. bounded: whether the flow maps onto the prior's
    interval. activation: of maf. `hidden` and `blocks` are of networks, `layers` of the flow.
    """

    architectures: tuple[str, ...]
    steps: int
    learning_rate: float
    bounded: bool
    activation: str
    layers: int = 5
    hidden: int = 50
    blocks: int = 1


@dataclass(frozen=True)
class Task:
    """A prior, a simulator, and exact samples of the posterior.

    domain: of θ, the prior's support (`tzk_core.domain`).
    prior: so many samples of θ, (n, dims).
    simulate: θ to data, (n, c).
    reference: an observation, (c,), and a number to so many samples of the posterior.
    """

    domain: str
    prior: Callable[[int], Tensor]
    simulate: Callable[[Tensor], Tensor]
    reference: Callable[[Tensor, int], Tensor]


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


def trained(task: Task, theta: Tensor, x: Tensor, *, architecture: str, training: Training, seed: int) -> TzK:
    """A model of θ with the knowledge x.

    The first tenth of the simulations are for validation. λ = 0: the Gaussian model of the data would otherwise hold
    the posterior back.
    """
    dims, held_out = theta.shape[1], len(theta) // 10
    domain = task.domain if training.bounded else "real"
    model = TzK(tzk_core.build_flow((dims,), "logit", seed=seed, domain=domain))
    kind = tzk_core.build_knowledge(
        "conditional-flow", (dims,), seed, name="x", characteristics=x.shape[1], architecture=architecture,
        activation=training.activation, steps=training.layers, hidden=training.hidden, blocks=training.blocks,
    )  # fmt: skip
    model.add("x", kind)
    train, validation = slice(held_out, None), slice(held_out)
    tzk_core.fit(
        model,
        theta[train],
        {"x": torch.ones(len(theta) - held_out)},
        characteristics={"x": x[train]},
        validation=(theta[validation], {"x": torch.ones(held_out)}, {"x": x[validation]}),
        steps=training.steps,
        batch_size=200,
        learning_rate=training.learning_rate,
        validate_every=10,
        patience=10,
        multiplier=0.0,
        multiplier_rate=0.0,
        seed=seed,
    )
    return model


def tzk_posterior(task: Task, theta: Tensor, x: Tensor, *, training: Training, seed: int) -> Posterior:
    """TzK's, of the architecture with the best log posterior of the validation simulations."""
    dims, held_out = theta.shape[1], len(theta) // 10

    def validated(model: TzK) -> float:
        with torch.no_grad():
            return float(model.log_prob(theta[:held_out], "x", x[:held_out]).mean())

    models = [
        trained(task, theta, x, architecture=name, training=training, seed=seed) for name in training.architectures
    ]
    model = max(models, key=validated)
    low, high = torch.tensor(intervals(task.domain, dims), dtype=theta.dtype).unbind(1)

    def sample(observed: Tensor, count: int) -> Tensor:
        kept = theta[:0]
        for attempt in range(100):
            drawn = model.sample(count, "x", observed, seed=seed + attempt)
            kept = torch.cat([kept, drawn[((drawn > low) & (drawn < high)).all(1)]])
            if len(kept) >= count:
                return kept[:count]
        raise TzkError(
            f"expected {count} samples within the prior's support, {task.domain}; got {len(kept)} of {100 * count} at "
            f"x = {observed.tolist()}: train longer, or with --bounded"
        )

    return Posterior(sample, lambda theta, x: model.log_prob(theta, "x", x))


def sbi_posterior(task: Task, theta: Tensor, x: Tensor, *, flow: str, seed: int) -> Posterior:
    """`sbi`'s of a flow by name, with the sizes and the training of its defaults."""
    from sbi.inference import NPE
    from sbi.utils import BoxUniform
    from sbi.utils.tracking import TensorBoardTracker
    from torch.utils.tensorboard import SummaryWriter

    torch.manual_seed(seed)
    dims = theta.shape[1]
    prior: Any = torch.distributions.MultivariateNormal(torch.zeros(dims), 0.1 * torch.eye(dims))
    if task.domain != "real":
        prior = BoxUniform(-torch.ones(dims), torch.ones(dims))
    with tempfile.TemporaryDirectory() as folder:  # its log would else lie in the working folder
        log = TensorBoardTracker(SummaryWriter(folder))
        inference = NPE(prior=prior, density_estimator=flow, show_progress_bars=False, tracker=log)
        estimator = inference.append_simulations(theta, x).train()
    posterior = inference.build_posterior()
    return Posterior(
        lambda observed, count: posterior.sample((count,), x=observed, show_progress_bars=False),
        lambda theta, x: estimator.log_prob(theta.unsqueeze(0), condition=x).squeeze(0),
    )


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


def methods(training: Training) -> dict[str, Callable[..., Posterior]]:
    """By name, functions of a task, θ, x and a seed."""
    return {
        "TzK": partial(tzk_posterior, training=training),
        "sbi NPE, maf": partial(sbi_posterior, flow="maf"),
        "sbi NPE, nsf": partial(sbi_posterior, flow="nsf"),
    }


def compared(
    task: Task,
    by_method: Mapping[str, Callable[..., Posterior]],
    *,
    simulations: int,
    observations: int,
    samples: int,
    seed: int,
) -> dict[str, Any]:
    """By method, C2ST at each observation, held-out log posterior, seconds of training."""
    torch.manual_seed(seed)
    theta = task.prior(simulations)
    x = task.simulate(theta)
    seen = task.simulate(task.prior(observations))
    references = [task.reference(observed, samples) for observed in seen] if samples else []
    further = task.prior(HELD_OUT)
    of_further = task.simulate(further)
    report: dict[str, Any] = {}
    for name, method in by_method.items():
        before = time.process_time()
        try:
            posterior = method(task, theta, x, seed=seed)
        except ImportError as missing:
            warnings.warn(f"{name} is left out: {missing}", stacklevel=2)
            continue
        spent = time.process_time() - before
        scores = [
            c2st(posterior.sample(observed, samples).detach(), reference, seed=seed)
            for observed, reference in zip(seen, references, strict=False)
        ]
        with torch.no_grad():
            held_out = float(posterior.log_prob(further, of_further).mean())
        report[name] = {"c2st": scores, "held_out": held_out, "seconds": round(spent, 1)}
    return report


def markdown(report: dict[str, Any]) -> str:
    """A row a task and method: means with their standard errors over seeds."""
    lines = ["| task | posterior | C2ST | held-out log posterior | seconds |", "|---|---|---:|---:|---:|"]
    for task, by_seed in report["tasks"].items():
        for method in by_seed[0]:
            of = [by_method[method] for by_method in by_seed if method in by_method]
            accuracy = _mean([statistics.fmean(run["c2st"]) for run in of if run["c2st"]])
            seconds = statistics.fmean(run["seconds"] for run in of)
            held_out = _mean([run["held_out"] for run in of])
            lines.append(f"| {task} | {method} | {accuracy} | {held_out} | {seconds:.0f} |")
    return "\n".join(lines)


def _mean(values: list[float]) -> str:
    if len(values) < 2:
        return f"{values[0]:.3f}" if values else "–"
    return f"{statistics.fmean(values):.3f} ± {statistics.stdev(values) / len(values) ** 0.5:.3f}"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=1000, help="to learn from (default: %(default)s)")
    parser.add_argument("--observations", type=int, default=2, help="of a posterior each (default: %(default)s)")
    parser.add_argument(
        "--samples", type=int, default=400, help="of a posterior; 0 leaves C2ST out (default: %(default)s)"
    )
    parser.add_argument("--seeds", type=int, default=2, help="from 0 on (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=500, help="of TzK at most (default: %(default)s)")
    parser.add_argument("--architectures", default="maf,rq-nsf-coupling", help="of TzK (default: %(default)s)")
    parser.add_argument("--activation", default="tanh", help="of TzK's maf (default: %(default)s)")
    parser.add_argument("--learning-rate", type=float, default=2e-3, help="of TzK (default: %(default)s)")
    parser.add_argument("--bounded", action="store_true", help="TzK's flow maps onto the prior's interval")
    parser.add_argument("--tasks", default=",".join(TASKS), help="(default: %(default)s)")
    parser.add_argument("--methods", help="names with semicolons between them (default: all)")
    parser.add_argument("--out", type=Path, help="a file for the results, as JSON")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    training = Training(
        tuple(options.architectures.split(",")),
        options.steps,
        options.learning_rate,
        bounded=options.bounded,
        activation=options.activation,
    )
    by_method = methods(training)
    chosen = options.methods.split(";") if options.methods else list(by_method)
    numbers = {key: getattr(options, key) for key in ("simulations", "observations", "samples")}
    report: dict[str, Any] = {"tasks": {}, **numbers, "training": asdict(training)}
    for name in options.tasks.split(","):
        report["tasks"][name] = []
        for seed in range(options.seeds):
            of_seed = compared(TASKS[name], {key: by_method[key] for key in chosen}, **numbers, seed=seed)
            report["tasks"][name].append(of_seed)
            if options.out:
                options.out.write_text(json.dumps(report, indent=2) + "\n")
    print(markdown(report))


if __name__ == "__main__":
    with edge.script():
        main()
