"""Several transforms in sequence, as a pure function, and their start from data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from nflows.transforms.base import CompositeTransform, InputOutsideDomain, Transform
from torch import Tensor

from tzk_core.closed_form import usable
from tzk_core.errors import TzkError
from tzk_core.inputs import check_domain
from tzk_core.transforms.flow_step import LENGTH, flow_step, is_step


class Fused(Protocol):
    """One computation of several consecutive layers, from their parameters at the time of the call.

    It may also have `joined(layers, runs) -> runs`: from all layers of a composite and the runs in it, it makes fewer
    and longer runs.

    Args:
        layers: the layers of the run, in order.
        inputs: (batch, *shape).

    Returns:
        The outputs, (batch, *shape), and log|det| of all layers together, (batch,).
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
    """The implementations that compute it, each as "plugin/name"."""


class Composite(CompositeTransform):
    """nflows' composite, without its addition in place.

    `torch.func` refuses that addition where only parameters are stacked. `runs` has the layers that implementations of
    plugins compute at once, in order and without overlap. The layers themselves, with their parameters, stay where they
    are (`tzk_core.implementations`).
    """

    runs: tuple[Run, ...] = ()

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if self.runs:
            return self._cascade(inputs, self._stages("forward"), context)
        return self._cascade(inputs, _in_steps(self._transforms) if usable(inputs) else self._transforms, context)

    def inverse(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._cascade(inputs, self._stages("inverse")[::-1], context)

    def layers_of(self, run: Run) -> list[Transform]:
        """The layers that a run computes."""
        return list(self._transforms)[run.start : run.stop]

    def _stages(self, direction: str) -> list[Callable[..., tuple[Tensor, Tensor]]]:
        """The functions to call in order: a run where there is one, else a layer."""
        stages: list[Callable[..., tuple[Tensor, Tensor]]] = []
        layers, start = list(self._transforms), 0
        for run in self.runs:
            stages += [_direction_of(layer, direction) for layer in layers[start : run.start]]
            stages.append(partial(_without_context, getattr(run.fused, direction), layers[run.start : run.stop]))
            start = run.stop
        return stages + [_direction_of(layer, direction) for layer in layers[start:]]

    @staticmethod
    def _cascade(
        inputs: Tensor, funcs: Iterable[Callable[..., tuple[Tensor, Tensor]]], context: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        outputs, total = inputs, inputs.new_zeros(inputs.shape[0])
        for func in funcs:
            try:
                outputs, logabsdet = func(outputs, context)
            except InputOutsideDomain as error:  # nflows names neither the layer nor the values
                raise _outside_domain(func, outputs) from error
            total = total + logabsdet
        return outputs, total


def _in_steps(layers: Iterable[Transform]) -> Iterator[Callable[..., tuple[Tensor, Tensor]]]:
    """The layers, every flow step among them as one function."""
    rest = list(layers)
    while rest:
        count = LENGTH if is_step(rest) else 1
        yield partial(_without_context, flow_step, rest[:count]) if count > 1 else rest[0]
        rest = rest[count:]


def _outside_domain(func: Callable[..., tuple[Tensor, Tensor]], inputs: Tensor) -> TzkError:
    """The error for inputs outside the domain of an nflows layer."""
    layer = getattr(func, "__self__", func)
    return TzkError(
        f"layer {type(layer).__name__} got values from {inputs.min().item():.4g} to {inputs.max().item():.4g}, some of "
        "them outside its domain, which for a spline without tails is 0 to 1. Give a spline tails = 'linear' and a "
        "tail_bound, or put a layer before it that brings values there, such as 'sigmoid'"
    )


def _direction_of(layer: Transform, direction: str) -> Callable[..., tuple[Tensor, Tensor]]:
    """The layer's "forward" or "inverse"."""
    return layer if direction == "forward" else layer.inverse  # calling the layer itself calls its hooks


def _without_context(  # noqa: PLR0917  called by position, as a layer is
    function: Callable[..., tuple[Tensor, Tensor]], layers: Sequence[Transform], inputs: Tensor, context: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Call a function of `Fused` as a layer, whose context it ignores."""
    return function(layers, inputs)


@torch.no_grad()
def initialise(transform: Transform, inputs: Tensor) -> Tensor:
    """Set every layer that starts from data, in order, from the values that reach it.

    A layer that holds others calls this for them in its own `initialise`.

    Args:
        inputs: (batch, *shape).

    Returns:
        The outputs of the transform.

    Raises:
        TzkError: if a layer gets values outside its domain, before any later layer is set from them.
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
        raise _outside_domain(transform, inputs) from error
    check_domain(logabsdet)
    return outputs
