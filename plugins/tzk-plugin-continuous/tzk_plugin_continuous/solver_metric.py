"""A metric of continuous flows: what a solution costs, and how far it is off."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import replace

from torch import Tensor

from tzk_core.errors import TzkError
from tzk_core.evaluation.metrics import Column, Evaluated
from tzk_core.model import SharedFlow
from tzk_plugin_continuous.evaluations import evaluations_of
from tzk_plugin_continuous.ffjord import Ffjord

FINER = 1e-10
"""The tolerance of what solutions are compared with, in float64."""


class SolverMetric:
    """Evaluations, the error of log p(T), and the deviation of an estimated trace.

    The error is the difference from a solution in float64 to a tolerance of 1e-10. That of the training solver says
    what training has seen: where it is large, write more `steps`, or a smaller `tolerance`. Where the trace is
    estimated there is no error, since that of the estimate is far larger. "deviation" is the standard deviation of
    log p(T) of one sample over the noise of the estimate.

    samples: how many of a split are solved again.
    """

    columns: Sequence[Column] = (
        Column("evaluations", "a sample", "lower"),
        Column("mean error", "nats", "lower"),
        Column("largest error", "nats", "lower"),
        Column("deviation", "nats", "lower"),
    )

    def __init__(self, samples: int = 256) -> None:
        if samples < 1:
            raise TzkError(f"the metric solver expects samples of at least 1; got {samples}")
        self.samples = samples

    def rows(self, evaluated: Evaluated) -> Iterator[dict[str, float | str | None]]:
        """A row for each solver, of evaluation and of training; none for other flows."""
        flow = evaluated.model.flow
        layers = layers_of(flow)
        if not layers:
            return
        T = evaluated.held_out.T[: self.samples].to(flow.like)
        for name, solved in (
            ("evaluation, rk4", flow),
            (f"training, {layers[0].training_solver.method}", _as_in_training(flow)),
        ):
            numbers = {"mean error": None, "largest error": None, "deviation": None, **_measured(flow, solved, T)}
            yield {"solver": name, "trace": layers[0].log_det_estimate, **numbers}


def _measured(flow: SharedFlow, solved: SharedFlow, T: Tensor) -> dict[str, float]:
    """Columns of a solution of T, (n, *shape)."""
    log_prob = solved.log_prob(T).double()
    evaluations = {"evaluations": evaluations_of(solved)}
    if all(layer.exact_in_evaluation for layer in layers_of(flow)):
        error = (log_prob - _finer(flow).log_prob(T.double())).abs()
        return evaluations | {"mean error": error.mean().item(), "largest error": error.max().item()}
    again = _with_other_noise(solved).log_prob(T).double()
    return evaluations | {"deviation": ((log_prob - again).square().mean() / 2).sqrt().item()}


def layers_of(flow: SharedFlow) -> list[Ffjord]:
    """The continuous layers of a flow."""
    return [part for part in flow.modules() if isinstance(part, Ffjord)]


def _finer(flow: SharedFlow) -> SharedFlow:
    finer = copy.deepcopy(flow).double()
    for layer in layers_of(finer):
        layer.evaluation_solver = replace(layer.evaluation_solver, tolerance=FINER)
    return finer


def _with_other_noise(flow: SharedFlow) -> SharedFlow:
    copied = copy.deepcopy(flow)
    for layer in layers_of(copied):
        layer.key += 1
    return copied


def _as_in_training(flow: SharedFlow) -> SharedFlow:
    """A copy that solves as training does, with the trace of evaluation."""
    copied = copy.deepcopy(flow)
    for layer in layers_of(copied):
        layer.exact_in_training = layer.exact_in_evaluation
        layer.train()
    return copied
