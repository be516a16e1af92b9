"""Part of a flow whose backward recomputes every layer's inputs from its outputs.

Only the outputs of the whole part are stored, so that memory does not grow with its depth (Gomez et al. 2017). It costs
one inverse and one more evaluation of every layer, and the rounding of the inverses. `benchmarks/kernels.py` shows all
three.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from nflows.transforms.base import Transform
from torch import Tensor, nn

from tzk_core import TzkError
from tzk_core.transforms.composite import Run
from tzk_core.transforms.reshape import Rearrangement
from tzk_core.transforms.squeeze import Squeeze, Unsqueeze

MOVES = (Rearrangement, Squeeze, Unsqueeze)
STORED = ("outputs", "last")


@dataclass(frozen=True)
class Stage:
    """A layer or a run, forward and inverse, with its parameters."""

    forward: Callable[[Tensor], tuple[Tensor, Tensor]]
    inverse: Callable[[Tensor], tuple[Tensor, Tensor]]
    parameters: tuple[Tensor, ...]


class Reversible:
    """Runs, and layers between them that only move values, as one run.

    It recomputes nothing with torch.compile, whose graph cannot contain this backward, nor with parameters that are not
    the layers' own (`torch.func`).
    """

    def __init__(self, runs: Sequence[Run]) -> None:
        self.runs = tuple(runs)

    def forward(self, layers: Sequence[Transform], inputs: Tensor) -> tuple[Tensor, Tensor]:
        stages = self._stages(layers)
        parameters = [parameter for stage in stages for parameter in stage.parameters]
        own = all(isinstance(parameter, nn.Parameter) for parameter in parameters)
        if not torch.is_grad_enabled() or torch.compiler.is_compiling() or not own:
            return _through([stage.forward for stage in stages], inputs)
        return _Recomputed.apply(stages, inputs, *parameters)

    def inverse(self, layers: Sequence[Transform], inputs: Tensor) -> tuple[Tensor, Tensor]:
        return _through([stage.inverse for stage in self._stages(layers)[::-1]], inputs)

    def _stages(self, layers: Sequence[Transform]) -> list[Stage]:
        first = self.runs[0].start
        stages: list[Stage] = []
        at = first
        for run in self.runs:
            moves = layers[at - first : run.start - first]
            stages += [Stage(layer, layer.inverse, tuple(layer.parameters())) for layer in moves]
            stages.append(_stage(run, layers[run.start - first : run.stop - first]))
            at = run.stop
        return stages


def joined(layers: Sequence[Transform], runs: Sequence[Run]) -> tuple[Run, ...]:
    """Join runs with only moves between them, with TZK_KERNELS_KEEP=last; else leave them.

    Raises:
        TzkError: for another value than "outputs", the default, or "last".
    """
    stored = os.environ.get("TZK_KERNELS_KEEP", "outputs")
    if stored not in STORED:
        raise TzkError(
            f"the environment variable TZK_KERNELS_KEEP should be one of {', '.join(STORED)}; got {stored!r}"
        )
    if stored == "outputs":
        return tuple(runs)
    groups: list[list[Run]] = []
    for run in runs:
        between = layers[groups[-1][-1].stop : run.start] if groups else []
        if groups and all(isinstance(layer, MOVES) for layer in between):
            groups[-1].append(run)
        else:
            groups.append([run])
    return tuple(
        Run(group[0].start, group[-1].stop, Reversible(group), tuple(name for run in group for name in run.names))
        for group in groups
    )


class _Recomputed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, stages: list[Stage], inputs: Tensor, *parameters: Tensor) -> tuple[Tensor, Tensor]:
        outputs, logabsdet = _through([stage.forward for stage in stages], inputs)
        ctx.stages = stages
        ctx.save_for_backward(outputs)
        return outputs, logabsdet

    @staticmethod
    def backward(ctx: Any, grad: Tensor, grad_logabsdet: Tensor) -> tuple[Any, ...]:
        (outputs,) = ctx.saved_tensors
        parameter_grads: list[Tensor | None] = []
        for stage in ctx.stages[::-1]:
            inputs = stage.inverse(outputs)[0].detach().requires_grad_()
            with torch.enable_grad():
                again = stage.forward(inputs)
                pairs = zip(again, (grad, grad_logabsdet), strict=True)
                reached, grads = zip(*[pair for pair in pairs if pair[0].requires_grad], strict=True)
                grad, *own_grads = torch.autograd.grad(reached, (inputs, *stage.parameters), grads, allow_unused=True)
            parameter_grads = [*own_grads, *parameter_grads]
            outputs = inputs.detach()
        return None, grad, *parameter_grads


def _stage(run: Run, layers: Sequence[Transform]) -> Stage:
    return Stage(
        lambda inputs: run.fused.forward(layers, inputs),
        lambda inputs: run.fused.inverse(layers, inputs),
        tuple(parameter for layer in layers for parameter in layer.parameters()),
    )


def _through(functions: Sequence[Callable[[Tensor], tuple[Tensor, Tensor]]], inputs: Tensor) -> tuple[Tensor, Tensor]:
    outputs, total = inputs, inputs.new_zeros(inputs.shape[0])
    for function in functions:
        outputs, logabsdet = function(outputs)
        total = total + logabsdet
    return outputs, total
