"""A layer whose map is the flow of an ordinary differential equation."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tzk_core.errors import TzkError
from tzk_core.random_streams import stream
from tzk_core.tensors import mapped
from tzk_core.transforms.layer import Layer
from tzk_plugin_continuous.dynamics import Dynamics
from tzk_plugin_continuous.evaluations import Evaluations
from tzk_plugin_continuous.solver import Augmented, Solved, Solver, check_times, extrapolated, solve, solve_each
from tzk_plugin_continuous.trace import basis, rademacher

TRACES = ("auto", "exact", "hutchinson")
EXACT_IN_TRAINING, EXACT_IN_EVALUATION = 8, 64
"""Up to so many dimensions "auto" is "exact", which costs a product with the Jacobian for each."""


class Ffjord(Layer):
    """z = x(1) of dx/dt = f(t, x) from x(0), with log|det| = ∫ tr ∂f/∂x dt.

    Sources: Chen et al. 2018, Theorem 1; FFJORD, Grathwohl et al. 2018.

    Training solves by `solver`, all samples of a batch together. Evaluation solves by rk4, and halves the steps of each
    sample by itself until two grids agree: what comes out depends on the sample alone.

    Args:
        shape: (d,), or (channels, height, width).
        hidden, depth: width and number of the hidden layers of f (`dynamics.Dynamics`).
        solver: of training, a method of torchdiffeq, on a grid ("rk4") or adaptive ("dopri5").
        steps: of a solver on a grid, and of the first grid of evaluation.
        tolerance: of an adaptive solver in training, relative and absolute.
        evaluation_tolerance: of x and log|det| in evaluation (`solver.solve_each`).
        adjoint: whether gradients solve the adjoint equation instead of going back through the steps.
        trace: in training "exact", "hutchinson", an unbiased estimate (FFJORD, Eq. 7), or "auto", exact
            up to 8 dimensions.
        evaluation_trace: the same in evaluation, where "auto" is exact up to 64 dimensions.
        probes: the number of noise vectors in an estimate.
        seed: of the noise, together with a sample's own values. In training each call has other noise, by torch's
            generator, which a training seeds for every step.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        hidden: int = 64,
        depth: int = 2,
        *,
        solver: str = "rk4",
        steps: int = 4,
        tolerance: float = 1e-5,
        evaluation_tolerance: float = 1e-6,
        adjoint: bool = False,
        trace: str = "auto",
        evaluation_trace: str = "auto",
        probes: int = 1,
        seed: int = 0,
    ) -> None:
        super().__init__()
        _check(shape, hidden=hidden, depth=depth, probes=probes)
        check_times(steps, min(tolerance, evaluation_tolerance))
        self.output_shape = tuple(shape)
        self.training_solver = Solver(solver, steps, tolerance, adjoint)
        self.evaluation_solver = Solver("rk4", steps, evaluation_tolerance, adjoint)
        dims = math.prod(shape)
        self.exact_in_training = _is_exact("trace", trace, dims <= EXACT_IN_TRAINING)
        self.exact_in_evaluation = _is_exact("evaluation_trace", evaluation_trace, dims <= EXACT_IN_EVALUATION)
        self.probes = probes
        self.key = int(torch.randint(2**62, (), generator=stream(seed, "ffjord", "hutchinson")))
        self.evaluations = Evaluations()
        self.dynamics = Dynamics(tuple(shape), hidden, depth)

    @property
    def log_det_estimate(self) -> str:
        """How evaluation has the trace, as rows of results say it."""
        if self.exact_in_evaluation:
            return "exact trace"
        return f"Hutchinson's trace, {self.probes} probe{'s' if self.probes > 1 else ''}"

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._solved(inputs, backwards=False)

    def inverse(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._solved(inputs, backwards=True)

    def _solved(self, inputs: Tensor, *, backwards: bool) -> tuple[Tensor, Tensor]:
        solved = self._solver_of(self._augmented(inputs), inputs, backwards=backwards)
        self.evaluations.last = solved.evaluations
        return solved.x, solved.logabsdet

    def _solver_of(self, augmented: Augmented, inputs: Tensor, *, backwards: bool) -> Solved:
        if self.training:
            return solve(augmented, inputs, self.training_solver, backwards=backwards)
        if mapped():  # no value may decide how many steps there are
            return extrapolated(augmented, inputs, self.evaluation_solver, backwards=backwards)
        return solve_each(augmented, inputs, self.evaluation_solver, backwards=backwards)

    def _augmented(self, inputs: Tensor) -> Augmented:
        """The equation of a batch, with the directions of its trace."""
        exact = self.exact_in_training if self.training else self.exact_in_evaluation
        if exact:
            return Augmented(self.dynamics, basis(inputs), exact=True)
        key = int(torch.randint(2**62, ())) if self.training else self.key
        return Augmented(self.dynamics, rademacher(inputs, key, self.probes), exact=False)


def _is_exact(name: str, value: str, few: bool) -> bool:  # noqa: FBT001  the word, and what "auto" is
    if value not in TRACES:
        raise TzkError(f"ffjord: {name} is expected as one of {', '.join(TRACES)}; got {value!r}")
    return value == "exact" or (value == "auto" and few)


def _check(shape: tuple[int, ...], **counts: int) -> None:
    if len(shape) not in (1, 3):
        raise TzkError(f"ffjord expects vectors, (d,), or images, (channels, height, width); got {tuple(shape)}")
    for name, count in counts.items():
        if count < 1:
            raise TzkError(f"ffjord expects {name} of at least 1; got {count}")
