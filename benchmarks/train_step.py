"""How long a training step of `examples/joint.toml` takes, against stock nflows parts.

    python benchmarks/train_step.py [--json] [--rounds N] [--batch-size 256] [--threads N] [--compile]

Both models have the paper's architecture, 12 knowledge types and the same weights, and see the same batches of made-up
images. Before the timing, objective and gradients of both are compared in float64. Then they take turns within a
round, so that other load of the machine falls on both alike. Ratios are taken within a round; printed are
their median and quartiles over rounds, by the clock and by CPU seconds of the process, which a busy machine moves less.
With --compile our step is the compiled one; the round that warms up compiles it, which takes minutes.
"""

from __future__ import annotations

import copy
import json

import torch
from stock import StockTzK, as_image
from timing import CLOCKS, Options, machine, measure, of_two
from torch import Tensor

from tzk_core import Observations, TzK, build_flow, build_knowledge
from tzk_core.objective import mental_capacity
from tzk_core.random_streams import stream
from tzk_core.training.settings import Settings
from tzk_core.training.trainer import Trainer

GOAL = 3.0
SHAPE = (1, 32, 32)
NAMES = ("mnist", "omniglot", *(f"digit-{digit}" for digit in range(10)))
SHARE = 55_000 / (55_000 + 19_280)  # of MNIST in a batch, as many as it has training images


class Made:
    """Batches of images with the presence of joint.toml: bright squares on black, dequantised, made beforehand."""

    def __init__(self, size: int, count: int = 8) -> None:
        self.size = size
        self._batches = [self._made(number) for number in range(count)]

    def batch(self, step: int) -> Observations:
        return self._batches[step % len(self._batches)]

    def sources(self, step: int) -> dict[str, slice]:
        return {"mnist": slice(0, round(SHARE * self.size)), "omniglot": slice(round(SHARE * self.size), self.size)}

    def _made(self, number: int) -> Observations:
        source = stream(number, "made")
        corner = torch.randint(4, 20, (self.size, 2), generator=source)
        ticks = torch.arange(32)
        inside = [(ticks >= corner[:, i, None]) & (ticks < corner[:, i, None] + 8) for i in (0, 1)]
        ink = (inside[0][:, :, None] & inside[1][:, None, :]).float()
        levels = (ink * torch.randint(100, 256, (self.size, 32, 32), generator=source)).floor()
        T = (levels + torch.rand(self.size, 32, 32, generator=source)) / 256
        presence = torch.zeros(self.size, len(NAMES))
        mnist = self.sources(0)["mnist"].stop
        presence[:mnist, 0] = 1
        presence[mnist:, 1] = 1
        presence[torch.arange(mnist), 2 + torch.randint(10, (mnist,), generator=source)] = 1
        return Observations(T.clamp(0, 1)[:, None], presence, NAMES)


def perturbed_model(batches: Made) -> TzK:
    """The model of joint.toml with perturbed parameters.

    So no term of the objective is trivial.
    """
    model = TzK(build_flow(SHAPE, "paper", steps=10, tile=16))
    for name in NAMES:
        model.add(name, build_knowledge("flow", model.latent_shape, name=name))
    model.flow.initialise(batches.batch(0).T)
    source = stream(0, "moved")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.003 * torch.randn(parameter.shape, generator=source))
    return model


def compare(model: TzK, observations: Observations) -> dict[str, float]:
    """The relative differences of objective and of the gradients of common parameters, in float64.

    Raises `SystemExit` if they are more than rounding.
    """
    model = copy.deepcopy(model).double()
    stock = StockTzK(model, SHAPE, NAMES)
    few = torch.linspace(0, len(observations) - 1, 64).long()  # some of each data set
    observations = Observations(observations.T[few].double(), observations.presence[few], NAMES)
    noises = {name: torch.randn(64, 2, generator=stream(0, "noise", name)).double() for name in NAMES}
    multipliers = {name: 0.1 + 0.01 * number for number, name in enumerate(NAMES)}

    ours = mental_capacity(model, observations, lambda name, count: noises[name][:count], multipliers=multipliers).value
    theirs, _ = stock.objective(observations, multipliers, lambda name, n: noises[name][:n])
    ours.backward()
    theirs.backward()
    difference = {"objective": abs(ours.item() / theirs.item() - 1)}
    for title, pairs in stock.alike(model).items():
        gradients = [(as_image(a.grad, b.shape), b.grad) for a, b in pairs if a.grad is not None and b.grad is not None]
        scale = max(float(b.norm()) for _, b in gradients)
        difference[title] = max(float((a - b).norm()) for a, b in gradients) / scale
    if max(difference.values()) > 1e-9:
        raise SystemExit(f"the two models differ by more than rounding: {difference}")
    return difference


def main() -> None:
    parser = Options(__doc__, rounds=15, batch_size=256, least=64)
    parser.add_argument("--compile", action="store_true", help="compile our step")
    arguments = parser.read()

    batches = Made(arguments.batch_size)
    model = perturbed_model(batches)
    difference = compare(model, batches.batch(0))
    stock = StockTzK(model, SHAPE, NAMES)
    settings = Settings(steps=10**6, batch_size=arguments.batch_size, learning_rate=1e-3, compile=arguments.compile)
    trainer = Trainer(model, batches, settings)
    optimiser = torch.optim.Adam(stock.parameters(), lr=1e-3, fused=True)
    multipliers, number = dict.fromkeys(NAMES, 0.1), 0

    def stock_step() -> None:
        nonlocal number
        observations = batches.batch(number)
        value, gaps = stock.objective(observations, multipliers, _noise)
        optimiser.zero_grad(set_to_none=True)
        (-value / observations.T[0].numel()).backward()
        optimiser.step()
        for name, nats in gaps.items():
            rise = min(1.0, max(-1.0, float(nats) / 10 - 1))
            multipliers[name] = min(0.45, max(0.0, multipliers[name] + 1e-3 * rise))
        number += 1

    def step() -> None:
        trainer.advance()

    taken = measure({"tzk": step, "stock": stock_step}, arguments.rounds)
    report = {
        "goal": GOAL,
        **of_two(taken, "tzk", "stock"),
        "rounds": arguments.rounds,
        "batch_size": arguments.batch_size,
        "compiled": arguments.compile,
        "difference": difference,
        **machine(),
    }
    if arguments.json:
        print(json.dumps(report, indent=2))
        return
    print(f"{report['machine']}, torch {report['torch']}, {report['threads']} threads, batch {report['batch_size']}")
    print(f"{'':<6}{'TzK':>12}{'stock':>12}{'ratio':>8}   quartiles      (goal: at least {GOAL})")
    for clock in CLOCKS:
        times = report[clock]
        low, high = times["ratio_quartiles"]
        ours, theirs = times["tzk_milliseconds"], times["stock_milliseconds"]
        print(f"{clock:<6}{ours:>9.1f} ms{theirs:>9.1f} ms{times['ratio']:>8.2f}   {low:.2f} to {high:.2f}")
    print("differences before timing:", ", ".join(f"{title} {value:.0e}" for title, value in difference.items()))


def _noise(name: str, count: int) -> Tensor:
    return torch.randn(count, 2)


if __name__ == "__main__":
    main()
