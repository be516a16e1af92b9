"""The time of log-likelihood with gradient, and of sampling, in libraries of flows.

TzK is compared with five others.

    pip install ".[peers]" ./plugins/tzk-plugin-baselines ./plugins/tzk-plugin-fast-nflows
    python benchmarks/peers.py [--json] [--rounds N] [--batch-size 256] [--dims 64] [--hidden 256] [--steps 6] \
        [--flows couplings,splines,autoregressive] [--compile] [--device auto] [--threads N]

There are three flows of `steps` layers over vectors, with a standard Gaussian base. Two have couplings of the halves in
turn, affine or rational-quadratic splines; the third has masked autoregressive layers, the order reversed from one to
the next. Our couplings are nflows' layers with the implementations of `tzk-plugin-fast-nflows`. All libraries use their
own layers and, where the user supplies the network, the same one. Before the timing, numbers of parameters are checked
to be equal. The layers of nflows compute the same function as ours: weights are copied and log-likelihoods compared.
The other libraries bound the scale in another way, or order the outputs of the network differently. flowjax runs
under jit. With --compile ours is timed by `torch.compile` too, as "tzk-compiled".

All take turns within a round; ratios are taken within a round, and their medians and quartiles over rounds are printed.
Above 1 the other library takes longer than TzK. Libraries that are not installed, or have no such flow, are left out
and named.
"""

from __future__ import annotations

import importlib
import json
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jax_flows import JaxFlow
from nflows.nn.nets import ResidualNet
from timing import CLOCKS, Options, Taken, machine, measure, ratios, seconds, spread
from torch import Tensor, nn

from tzk_core import TzK, accelerate
from tzk_core.distributions.standard import StandardGaussian
from tzk_core.errors import TzkError
from tzk_core.implementations import places
from tzk_core.model import SharedFlow
from tzk_core.runs.tables import chosen_device
from tzk_core.transforms.composite import Composite

LIBRARIES = ("nflows", "normflows", "zuko", "FrEIA", "flowjax")
FLOWS = ("couplings", "splines", "autoregressive")
CHOSEN = ("batch_size", "rounds", "compile")
BINS, TAIL = 8, 5.0
"""Of the splines."""


@dataclass(frozen=True)
class Sizes:
    """dims: of an observation. hidden: width of a network. steps: layers of the flow."""

    dims: int
    hidden: int
    steps: int


@dataclass(frozen=True)
class Flow:
    """One flow in one library.

    log_prob: log p(x) of (batch, dims). sample: so many samples.
    """

    module: nn.Module
    log_prob: Callable[[Tensor], Tensor]
    sample: Callable[[int], Tensor]

    @property
    def parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.module.parameters() if parameter.requires_grad)

    def tasks(self, x: Tensor, samples: int) -> dict[str, Callable[[], None]]:
        """The timed steps: "log_prob" with the gradient of all parameters, and "sample"."""

        def log_prob() -> None:
            self.module.zero_grad(set_to_none=True)
            (-self.log_prob(x).mean()).backward()

        def sample() -> None:
            with torch.no_grad():
                self.sample(samples)

        return {"log_prob": log_prob, "sample": sample}


class Unavailable(Exception):
    """A library is not installed, or has no such flow; the text says which."""


def network(inputs: int, outputs: int, hidden: int) -> nn.Module:
    """What couplings regress scale and shift by, the same in every library."""
    return ResidualNet(inputs, outputs, hidden, num_blocks=1)


def halves(dims: int, step: int) -> Tensor:
    """1 where the coupling of this step transforms."""
    mask = (torch.arange(dims) >= dims // 2).int()
    return mask if step % 2 == 0 else 1 - mask


def coupling_layers(architecture: str, sizes: Sizes) -> list[Any]:
    """The couplings of nflows."""
    from nflows.transforms.coupling import AffineCouplingTransform, PiecewiseRationalQuadraticCouplingTransform

    def net(inputs: int, outputs: int) -> nn.Module:
        return network(inputs, outputs, sizes.hidden)

    masks = [halves(sizes.dims, step) for step in range(sizes.steps)]
    if architecture == "couplings":
        return [AffineCouplingTransform(mask, net) for mask in masks]
    spline = {"num_bins": BINS, "tails": "linear", "tail_bound": TAIL}
    return [PiecewiseRationalQuadraticCouplingTransform(mask, net, **spline) for mask in masks]


def tzk(architecture: str, sizes: Sizes) -> Flow:
    from nflows.transforms.permutations import ReversePermutation

    parts: list[Any] = []
    if architecture != "autoregressive":
        parts = coupling_layers(architecture, sizes)
    else:
        try:
            from tzk_plugin_baselines.made import AutoregressiveAffine
        except ImportError as missing:
            raise SystemExit("this flow is in a plugin: pip install ./plugins/tzk-plugin-baselines") from missing
        for _ in range(sizes.steps):
            parts += [AutoregressiveAffine(sizes.dims, hidden=sizes.hidden, blocks=1), ReversePermutation(sizes.dims)]
    model = TzK(SharedFlow((sizes.dims,), Composite(parts), StandardGaussian((sizes.dims,))))
    return Flow(model, model.flow.log_prob, model.sample)


def nflows(architecture: str, sizes: Sizes) -> Flow:
    from nflows.distributions.normal import StandardNormal
    from nflows.flows.base import Flow as Whole
    from nflows.transforms.autoregressive import MaskedAffineAutoregressiveTransform
    from nflows.transforms.base import CompositeTransform
    from nflows.transforms.permutations import ReversePermutation

    parts: list[Any] = []
    if architecture != "autoregressive":
        parts = coupling_layers(architecture, sizes)
    else:
        for _ in range(sizes.steps):
            layer = MaskedAffineAutoregressiveTransform(
                sizes.dims, sizes.hidden, num_blocks=1, use_residual_blocks=False
            )
            parts += [layer, ReversePermutation(sizes.dims)]
    flow = Whole(CompositeTransform(parts), StandardNormal([sizes.dims]))
    return Flow(flow, flow.log_prob, lambda n: flow.sample(n))


def normflows(architecture: str, sizes: Sizes) -> Flow:
    library = _imported("normflows")
    if architecture == "splines":
        raise Unavailable("has splines of the other half in its spline couplings too, which are more parameters")
    parts: list[Any] = []
    for _ in range(sizes.steps):
        if architecture == "couplings":
            half = sizes.dims // 2
            parts += [
                library.flows.AffineCouplingBlock(network(half, 2 * (sizes.dims - half), sizes.hidden)),
                library.flows.Permute(sizes.dims, mode="swap"),
            ]
        else:
            layer = library.flows.MaskedAffineAutoregressive(
                sizes.dims, sizes.hidden, num_blocks=1, use_residual_blocks=False
            )
            # its forward direction is from latent to observation; the density is the slow one unless turned round
            order = library.flows.Permute(sizes.dims)
            order.perm = order.inv_perm = torch.arange(sizes.dims).flip(0)
            parts += [library.flows.Reverse(layer), order]
    flow = library.NormalizingFlow(library.distributions.DiagGaussian(sizes.dims, trainable=False), parts)
    return Flow(flow, flow.log_prob, lambda n: flow.sample(n)[0])


def zuko(architecture: str, sizes: Sizes) -> Flow:
    library = _imported("zuko")
    from zuko.flows.autoregressive import MaskedAutoregressiveTransform
    from zuko.flows.coupling import GeneralCouplingTransform

    parts: list[Any] = []
    for step in range(sizes.steps):
        if architecture != "autoregressive":
            # its mask has ones where nothing is transformed
            mask, more, numbers = halves(sizes.dims, step) == 0, {}, 2
            if architecture == "splines":  # its intervals are [-5, 5]
                shapes = [(BINS,), (BINS,), (BINS - 1,)]
                more = {"univariate": library.transforms.MonotonicRQSTransform, "shapes": shapes}
                numbers = 3 * BINS - 1
            layer = GeneralCouplingTransform(sizes.dims, mask=mask, hidden_features=[1], **more)
            inputs = int(layer.mask.sum())
            layer.hyper = network(inputs, numbers * (sizes.dims - inputs), sizes.hidden)
        else:
            order = torch.arange(sizes.dims)
            order = order if step % 2 == 0 else order.flip(0)
            layer = MaskedAutoregressiveTransform(sizes.dims, order=order, hidden_features=[sizes.hidden] * 2)
        parts.append(layer)
    base = library.lazy.UnconditionalDistribution(
        library.distributions.DiagNormal, torch.zeros(sizes.dims), torch.ones(sizes.dims), buffer=True
    )
    flow = library.lazy.Flow(parts, base)
    return Flow(flow, lambda x: flow().log_prob(x), lambda n: flow().sample((n,)))


def FrEIA(architecture: str, sizes: Sizes) -> Flow:
    _imported("FrEIA")
    from FrEIA.framework import SequenceINN
    from FrEIA.modules import GLOWCouplingBlock

    if architecture != "couplings":
        none = "has no masked autoregressive layers"
        raise Unavailable(none if architecture == "autoregressive" else "has spline couplings of another form")
    if sizes.steps % 2:
        raise Unavailable("has couplings of both halves in one layer: expected an even --steps")
    flow = SequenceINN(sizes.dims)
    for _ in range(sizes.steps // 2):
        flow.append(GLOWCouplingBlock, subnet_constructor=lambda i, o: network(i, o, sizes.hidden))
    base = StandardGaussian((sizes.dims,))

    def log_prob(x: Tensor) -> Tensor:
        z, logabsdet = flow(x)
        return base.log_prob(z) + logabsdet

    def sample(n: int) -> Tensor:
        return flow(torch.randn(n, sizes.dims, device=next(flow.parameters()).device), rev=True)[0]

    return Flow(flow, log_prob, sample)


def flowjax(architecture: str, sizes: Sizes) -> JaxFlow:
    if architecture == "autoregressive":
        raise Unavailable("is compared by couplings alone")
    of = {"dims": sizes.dims, "hidden": sizes.hidden, "layers": sizes.steps}
    try:
        return JaxFlow(**of, spline=(BINS, TAIL) if architecture == "splines" else None)
    except ImportError as missing:
        raise Unavailable("is not installed") from missing


Flows = dict[str, Flow | JaxFlow]
BUILDERS: dict[str, Callable[[str, Sizes], Flow | JaxFlow]] = {
    "nflows": nflows,
    "normflows": normflows,
    "zuko": zuko,
    "FrEIA": FrEIA,
    "flowjax": flowjax,
}


def same_flows(architecture: str, sizes: Sizes, device: torch.device) -> tuple[Flows, dict[str, str]]:
    """The flow in the libraries that have it, ours first.

    With it goes why the others are left out.

    Raises `SystemExit` if numbers of parameters differ, or log-likelihoods where weights can be copied.
    """
    ours = tzk(architecture, sizes)
    report: Flows = {"tzk": ours}
    missing: dict[str, str] = {}
    for name in LIBRARIES:
        try:
            report[name] = BUILDERS[name](architecture, sizes)
        except Unavailable as reason:
            missing[name] = str(reason)
    for name, flow in report.items():
        if isinstance(flow, Flow):
            flow.module.to(device)
        if name == "tzk" and architecture != "autoregressive":
            accelerate(ours.module)
        if flow.parameters != ours.parameters:
            raise SystemExit(f"{architecture}: {name} has {flow.parameters} parameters, TzK {ours.parameters}")
    theirs = report["nflows"]
    assert isinstance(theirs, Flow)
    check_same_density(ours, theirs, torch.randn(32, sizes.dims, device=device))
    return report, missing


@torch.no_grad()
def check_same_density(ours: Flow, theirs: Flow, x: Tensor) -> None:
    """Copy our weights and masks to nflows' flow, in order, and compare.

    Raises:
        SystemExit: if log p(x) then differs.
    """
    for mine, other in zip(_tensors(ours.module), _tensors(theirs.module), strict=True):
        other.copy_(mine)
    difference = (ours.log_prob(x) - theirs.log_prob(x)).abs().max().item()
    if difference > 1e-3:
        raise SystemExit(f"with the same weights TzK and nflows differ by {difference} nats")


def _tensors(module: nn.Module) -> list[Tensor]:
    """Parameters and the masks of networks, in order."""
    masks = [buffer for name, buffer in module.named_buffers() if name.endswith("mask")]
    return [*module.parameters(), *masks]


def summary(taken: Taken) -> dict[str, Any]:
    """By library, milliseconds and the ratio to ours.

    They are by the clock, and "cpu_…" in CPU seconds. "…_to_compiled" are ratios to ours by `torch.compile`.
    """
    report: dict[str, Any] = {}
    for name in taken:
        report[name] = {}
        for clock, prefix in zip(CLOCKS, ("", "cpu_"), strict=True):
            milliseconds = 1000 * statistics.median(seconds(taken, name, clock))
            report[name][f"{prefix}milliseconds"] = round(milliseconds, 2)
            for ours, suffix in (("tzk", ""), ("tzk-compiled", "_to_compiled")):
                if ours in taken:
                    ratio, quartiles = spread(ratios(taken, name, ours, clock=clock), 2)
                    report[name] |= {f"{prefix}ratio{suffix}": ratio, f"{prefix}ratio{suffix}_quartiles": quartiles}
    return report


def compared(
    architecture: str,
    sizes: Sizes,
    *,
    batch_size: int,
    rounds: int,
    device: torch.device,
    compile: bool = False,
) -> dict[str, Any]:
    """One flow in all libraries, timed."""
    torch.manual_seed(0)
    flows, missing = same_flows(architecture, sizes, device)
    ours = flows["tzk"]
    assert isinstance(ours, Flow)
    if compile:
        flows["tzk-compiled"] = Flow(ours.module, torch.compile(ours.log_prob), torch.compile(ours.sample))
    x = torch.randn(batch_size, sizes.dims, device=device)
    by_library = {name: flow.tasks(x, batch_size) for name, flow in flows.items()}
    timed = {
        task: summary(measure({name: steps[task] for name, steps in by_library.items()}, rounds))
        for task in ("log_prob", "sample")
    }
    used = places(ours.module, device.type)
    return {"parameters": ours.parameters, "implementations": used, "left_out": missing, **timed}


def _imported(library: str) -> Any:
    try:
        return importlib.import_module(library)
    except ImportError as missing:
        raise Unavailable("is not installed") from missing


def main() -> None:
    parser = Options(__doc__, rounds=10, batch_size=256, device="auto")
    parser.add_argument("--dims", type=int, default=64, help="of an observation, even (default: %(default)s)")
    parser.add_argument("--hidden", type=int, default=256, help="width of the networks (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=6, help="layers of a flow (default: %(default)s)")
    parser.add_argument("--flows", default=",".join(FLOWS), help="(default: %(default)s)")
    parser.add_argument("--compile", action="store_true", help="time our flows by torch.compile too")
    arguments = parser.read()
    architectures = arguments.flows.split(",")
    if arguments.dims % 2 or not set(architectures) <= set(FLOWS):
        parser.error(f"expected even --dims, and --flows of {', '.join(FLOWS)}")
    try:
        device = chosen_device(arguments.device)
    except TzkError as error:
        raise SystemExit(str(error)) from error
    sizes = Sizes(arguments.dims, arguments.hidden, arguments.steps)
    report: dict[str, Any] = {
        architecture: compared(architecture, sizes, **{key: getattr(arguments, key) for key in CHOSEN}, device=device)
        for architecture in architectures
    }
    report |= {
        "dims": sizes.dims,
        "hidden": sizes.hidden,
        "steps": sizes.steps,
        "batch_size": arguments.batch_size,
        "rounds": arguments.rounds,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        **machine(),
    }
    if arguments.json:
        print(json.dumps(report, indent=2))
        return
    print(f"{report['machine']}, {report['device']}, torch {report['torch']}, {report['threads']} threads")
    for architecture in architectures:
        of = report[architecture]
        print(f"\n{architecture}: {of['parameters']:,} parameters; ratios to TzK, above 1 slower")
        for task in ("log_prob", "sample"):
            for name, value in of[task].items():
                low, high = value["ratio_quartiles"]
                took = f"{value['milliseconds']:>10.2f} ms{value['ratio']:>8.2f}   {low:.2f} to {high:.2f}"
                print(f"  {task:<10}{name:<10}{took}")
        for name, reason in of["left_out"].items():
            print(f"  {name} {reason}")


if __name__ == "__main__":
    main()
