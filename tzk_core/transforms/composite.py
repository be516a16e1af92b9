"""Several transforms, one after the other, as a pure function, and their start from data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from nflows.transforms.base import CompositeTransform, InputOutsideDomain, Transform
from torch import Tensor

from tzk_core.errors import TzkError
from tzk_core.inputs import check_domain


class Fused(Protocol):
    """Computes several layers that follow one another at once, from their parameters at the time of the call.

    `layers` are these layers, in order; inputs are (batch, *shape), and so are the outputs, with the logarithm of the
    determinant of all of them together, (batch,). It may have `joined(layers, runs) -> runs`, which gets all layers of
    a composite with the runs found in it, and may make fewer and longer ones of them.
    """

    def forward(self, layers: Sequence[Transform], inputs: Tensor) -> tuple[Tensor, Tensor]: ...

    def inverse(self, layers: Sequence[Transform], inputs: Tensor) -> tuple[Tensor, Tensor]: ...


@dataclass(frozen=True)
class Run:
    """The layers from `start` to before `stop` of a composite, computed by `fused`."""

    start: int
    stop: int
    fused: Fused
    names: tuple[str, ...] = ()
    """Of the implementations that compute it, "plugin/name" each."""


class Composite(CompositeTransform):
    """nflows' composite without its addition in place, which `torch.func` refuses when only parameters are stacked.

    What implementations of plugins compute at once is in `runs`, in order and apart; the layers themselves, with their
    parameters, stay where they are (`tzk_core.implementations`).
    """

    runs: tuple[Run, ...] = ()

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if not self.runs:
            return self._cascade(inputs, self._transforms, context)
        return self._cascade(inputs, self._stages("forward"), context)

    def inverse(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._cascade(inputs, self._stages("inverse")[::-1], context)

    def layers_of(self, run: Run) -> list[Transform]:
        """The layers that a run computes."""
        return list(self._transforms)[run.start : run.stop]

    def _stages(self, direction: str) -> list[Callable[..., tuple[Tensor, Tensor]]]:
        """What is called one after the other: a run where there is one, else a layer."""
        stages: list[Callable[..., tuple[Tensor, Tensor]]] = []
        layers, at = list(self._transforms), 0
        for run in self.runs:
            stages += [_of(layer, direction) for layer in layers[at : run.start]]
            stages.append(partial(_computed, getattr(run.fused, direction), layers[run.start : run.stop]))
            at = run.stop
        return stages + [_of(layer, direction) for layer in layers[at:]]

    @staticmethod
    def _cascade(
        inputs: Tensor, funcs: Iterable[Callable[..., tuple[Tensor, Tensor]]], context: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        outputs, total = inputs, inputs.new_zeros(inputs.shape[0])
        for func in funcs:
            try:
                outputs, logabsdet = func(outputs, context)
            except InputOutsideDomain as error:  # nflows says neither where nor what came
                raise _outside(func, outputs) from error
            total = total + logabsdet
        return outputs, total


def _outside(func: Callable[..., tuple[Tensor, Tensor]], inputs: Tensor) -> TzkError:
    """What to raise where a layer of nflows finds inputs outside its domain."""
    layer = getattr(func, "__self__", func)
    return TzkError(
        f"layer {type(layer).__name__} got values from {inputs.min().item():.4g} to {inputs.max().item():.4g}, some of "
        "them outside its domain, which for a spline without tails is 0 to 1. Give a spline tails = 'linear' and a "
        "tail_bound, or put a layer before it that brings values there, such as 'sigmoid'"
    )


def _of(layer: Transform, direction: str) -> Callable[..., tuple[Tensor, Tensor]]:
    return layer if direction == "forward" else layer.inverse  # calling the layer itself calls its hooks


def _computed(
    function: Callable[..., tuple[Tensor, Tensor]], layers: Sequence[Transform], inputs: Tensor, context: Tensor | None
) -> tuple[Tensor, Tensor]:
    return function(layers, inputs)


@torch.no_grad()
def initialise(transform: Transform, inputs: Tensor) -> Tensor:
    """Starts every layer that starts from data, in order, from what reaches it; returns the outputs.

    A layer that holds others calls this for them in an `initialise` of its own. Raises `TzkError` if the inputs,
    (batch, *shape), are outside the domain of a layer, before anything behind it is set from them.
    """
    if isinstance(transform, CompositeTransform):
        for part in transform._transforms:
            inputs = initialise(part, inputs)
        return inputs
    if hasattr(transform, "initialise"):
        transform.initialise(inputs)
    try:
        outputs, logabsdet = transform(inputs)
    except InputOutsideDomain as error:
        raise _outside(transform, inputs) from error
    check_domain(logabsdet)
    return outputs
