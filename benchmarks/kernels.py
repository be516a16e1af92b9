"""What tzk-plugin-kernels saves in memory, time and bandwidth.

    python benchmarks/kernels.py [--json] [--device auto] [--rounds N] [--batch-size 256] [--depths 2 5 10]

On any device: forward and backward of the paper's flow of several depths, computed in three ways. These are the layers
themselves, the operators, which save outputs only (TZK_KERNELS=torch on a CPU), and operators that save the last
outputs only (TZK_KERNELS_KEEP=last). Printed are the bytes of activations saved for backward, without parameters and
tensors of the size of a matrix. The peak of allocated memory (CPU), time, and the distance of the gradient from that of
the layers in float64 follow.

On a GPU also: the kernels at batch sizes 64 to 16,384 of 1,024 dimensions, against torch.compile of their definitions.
Printed are times, and the bandwidth as a share of that of a device-to-device copy of as many values. Both are captured
in CUDA graphs, so that only the device is timed. All take turns within a round; printed are medians and quartiles of
ratios within a round.

`tzk doctor RUN` checks that the results of a run stay the same.
"""

from __future__ import annotations

import copy
import json
import os
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from add_cost import peak
from timing import Options, machine, measure, ratios, seconds, spread
from torch import Tensor
from train_step import Made

from tzk_core import TzK, build_flow
from tzk_core.implementations import places

SHAPE = (1, 32, 32)
WAYS = {
    "layers": {"TZK_PLUGINS": ""},
    "operators": {"TZK_KERNELS": "torch"},
    "last kept": {"TZK_KERNELS": "torch", "TZK_KERNELS_KEEP": "last"},
}
"""Environment variables of the ways to compute, on a CPU."""
BATCHES = (64, 256, 1024, 4096, 16384)
DIMS = 1024
GOALS = {"share_of_copy": 0.8, "ratio_to_compiled": 1.2}


@contextmanager
def environment(values: dict[str, str]) -> Iterator[None]:
    """Environment variables while a block runs."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def flows(depth: int, T: Tensor) -> dict[str, TzK]:
    """The same flow, computed in all ways."""
    model = TzK(build_flow(SHAPE, "paper", steps=depth))
    model.flow.initialise(T.cpu())
    report = {}
    for name, values in WAYS.items():
        if T.is_cuda:
            values = {key: value for key, value in values.items() if value != "torch"}
        with environment(values):
            report[name] = copy.deepcopy(model).to(T.device)
    return report


def gradient(model: TzK, T: Tensor) -> Tensor:
    """The gradient of the mean of log p(T), as one vector.

    It is over all parameters of the flow.
    """
    parameters = [parameter for parameter in model.flow.parameters() if parameter.requires_grad]
    return torch.cat([part.flatten() for part in torch.autograd.grad(model.log_prob(T).mean(), parameters)])


def saved_bytes(model: TzK, T: Tensor) -> int:
    """Bytes of activations saved for backward; shared storage counts once, parameters do not count."""
    own = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    sizes: dict[int, int] = {}
    alive = []  # what is freed may come again under the same address

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own and tensor.shape[:1] and tensor.numel() >= len(T) * T[0].numel():
            sizes[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model.log_prob(T).mean()
    return sum(sizes.values())


def steps_of(depth: int, T: Tensor, *, rounds: int, repeat: int = 1) -> dict[str, Any]:
    """Memory, seconds and the error of the gradient, by way.

    They are saved bytes, peak, and seconds with their ratio to the layers'.
    """
    models = flows(depth, T)
    exact = gradient(copy.deepcopy(models["layers"]).double(), T.double())
    steps = {name: partial(gradient, model, T) for name, model in models.items()}
    taken = measure(steps, rounds, repeat)
    report: dict[str, Any] = {}
    for name, model in models.items():
        report[name] = {
            "places": sum(places(model, T.device.type).values()) if name != "layers" else 0,
            "kept_bytes": saved_bytes(model, T),
            "peak_bytes": None if T.is_cuda else peak(steps[name]),
            "seconds": statistics.median(seconds(taken, name)),
            "ratio_of_time": _spread(ratios(taken, name, "layers")),
            "gradient_error": float((gradient(model, T).double() - exact).norm() / exact.norm()),
        }
    return report


def _spread(values: Sequence[float]) -> dict[str, float]:
    middle, (low, high) = spread(values, 3)
    return {"median": middle, "low": low, "high": high}


def kernels(batch: int, rounds: int) -> dict[str, Any]:
    """On a GPU: the kernels against torch.compile of their definitions and against a copy."""
    from kernel_cases import cases  # imports the plugin and Triton

    report: dict[str, Any] = {}
    for name, case in cases(batch, DIMS).items():
        source = torch.randn(case.bytes_moved // 8, device="cuda")
        target = torch.empty_like(source)
        graphs = {
            "kernel": _captured(case.kernel),
            "compiled": _captured(case.definition),
            "copy": _captured(lambda source=source, target=target: target.copy_(source)),
        }
        taken = {way: [] for way in graphs}
        for turn in range(rounds + 1):
            for way in graphs if turn % 2 else [*graphs][::-1]:
                taken[way].append(_seconds(graphs[way]))
        taken = {way: values[1:] for way, values in taken.items()}
        report[name] = {
            "microseconds": {way: round(1e6 * statistics.median(values), 2) for way, values in taken.items()},
            "ratio_to_compiled": _spread([b / a for a, b in zip(taken["kernel"], taken["compiled"], strict=True)]),
            "share_of_copy": _spread([b / a for a, b in zip(taken["kernel"], taken["copy"], strict=True)])
            if case.elementwise
            else None,
        }
    return report


REPEATS = 20
"""Calls in one CUDA graph."""


def _captured(function: Callable[[], Any]) -> Any:
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):  # compiles
            function()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(REPEATS):
            function()
    return graph


def _seconds(graph: Any) -> float:
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    graph.replay()
    begin.record()
    graph.replay()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / 1000 / REPEATS


def main() -> None:
    parser = Options(__doc__, rounds=5, batch_size=256, device="auto")
    parser.add_argument("--depths", type=int, nargs="+", default=[2, 5, 10], help="of the flow (default: %(default)s)")
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES, help="of the kernels (default: %(default)s)")
    arguments = parser.read()
    torch.set_flush_denormal(True)
    cuda = arguments.device != "cpu" and torch.cuda.is_available()
    if arguments.device == "cuda" and not cuda:
        parser.error("torch finds no CUDA device")

    T = Made(arguments.batch_size, count=1).batch(0).T.to("cuda" if cuda else "cpu")
    report = {
        "goals": GOALS,
        "flow": {depth: steps_of(depth, T, rounds=arguments.rounds) for depth in arguments.depths},
        "kernels": {batch: kernels(batch, arguments.rounds) for batch in arguments.batches} if cuda else {},
        "batch_size": arguments.batch_size,
        "rounds": arguments.rounds,
        **machine(),
    }
    if cuda:
        report["machine"] = torch.cuda.get_device_name()
    print(json.dumps(report, indent=2) if arguments.json else shown(report))


def shown(report: dict[str, Any]) -> str:
    """The tables for people."""
    lines = [
        f"{report['machine']}, torch {report['torch']}, {report['threads']} threads; "
        f"flow at batch {report['batch_size']}",
        f"{'steps':>5}  {'computed by':<12}{'saved MB':>9}{'peak MB':>9}{'ms':>9}{'time':>7}"
        f"   {'quartiles':<14}gradient error",
    ]
    for depth, ways in report["flow"].items():
        for name, value in ways.items():
            peaked = "-" if value["peak_bytes"] is None else f"{value['peak_bytes'] / 1e6:.1f}"
            ratio = value["ratio_of_time"]
            lines.append(
                f"{depth:>5}  {name:<12}{value['kept_bytes'] / 1e6:>9.1f}{peaked:>9}{1e3 * value['seconds']:>9.1f}"
                f"{ratio['median']:>7.2f}   {ratio['low']:.2f} to {ratio['high']:<7.2f}{value['gradient_error']:.0e}"
            )
    if not report["kernels"]:
        return "\n".join([*lines, "kernels: torch finds no CUDA device, or --device cpu"])
    lines.append(f"{'batch':>6}  {'kernel':<28}{'us':>8}{'compiled':>10}{'copy':>8}   compiled/kernel   share of copy")
    for batch, cases in report["kernels"].items():
        for name, value in cases.items():
            times, ratio, share = value["microseconds"], value["ratio_to_compiled"], value["share_of_copy"]
            lines.append(
                f"{batch:>6}  {name:<28}{times['kernel']:>8.1f}{times['compiled']:>10.1f}{times['copy']:>8.1f}   "
                f"{ratio['median']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})"
                + (f"   {share['median']:.0%}" if share else "")
            )
    goals = report["goals"]
    return "\n".join([*lines, f"goals: {goals['ratio_to_compiled']} or more; {goals['share_of_copy']:.0%} or more"])


if __name__ == "__main__":
    main()
