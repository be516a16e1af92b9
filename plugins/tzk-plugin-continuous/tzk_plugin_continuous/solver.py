"""Solutions of x with log|det| by torchdiffeq, on one grid or sample by sample."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torchdiffeq import odeint, odeint_adjoint

from tzk_core.errors import TzkError
from tzk_plugin_continuous.dynamics import Dynamics
from tzk_plugin_continuous.trace import trace

FIXED = ("euler", "midpoint", "heun2", "heun3", "rk4", "explicit_adams", "implicit_adams")
"""Solvers of torchdiffeq on a grid, on which samples do not influence one another."""

ADAPTIVE = ("dopri5", "dopri8", "bosh3", "fehlberg2", "adaptive_heun")
"""Solvers of torchdiffeq that choose their steps, for all samples of a batch at once."""

ORDER = 4
"""Of rk4, by which evaluation solves: its error falls by 2⁴ with half the step."""

MOST_STEPS = 1024
"""Of an evaluation; a sample that needs more keeps the solution of so many."""


class Augmented(nn.Module):
    """dx/dt = f(t, x) and d log|det|/dt = tr ∂f/∂x, for one batch.

    directions: by which the trace is taken (`trace.trace`).
    calls: how often it was evaluated.
    """

    def __init__(self, dynamics: Dynamics, directions: Tensor, *, exact: bool) -> None:
        super().__init__()
        self.dynamics, self.directions, self.exact, self.calls = dynamics, directions, exact, 0

    def forward(self, t: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        self.calls += 1
        velocity, products = self.dynamics(t, state[0], self.directions)
        return velocity, trace(self.directions, products, exact=self.exact).expand(len(velocity))

    def of_rows(self, rows: Tensor) -> Augmented:
        """The same for some samples, (n,)."""
        directions = self.directions if self.exact else self.directions[rows]
        return Augmented(self.dynamics, directions, exact=self.exact)


@dataclass(frozen=True)
class Solver:
    """How a batch is solved from time 0 to 1, or backwards.

    method: of torchdiffeq.
    steps: of a fixed method.
    tolerance: of an adaptive method, relative and absolute.
    adjoint: whether gradients solve the adjoint equation, which keeps no steps in memory.
    """

    method: str
    steps: int
    tolerance: float
    adjoint: bool

    def __post_init__(self) -> None:
        if self.method not in FIXED + ADAPTIVE:
            raise TzkError(f"ffjord: solver is expected as one of {', '.join(FIXED + ADAPTIVE)}; got {self.method!r}")


class Solved(NamedTuple):
    """x at the other end, log|det|, (batch,), and evaluations, the mean over samples."""

    x: Tensor
    logabsdet: Tensor
    evaluations: float


def solve(augmented: Augmented, x: Tensor, solver: Solver, *, backwards: bool) -> Solved:
    """Solve all samples on one grid, fixed or adaptive.

    An adaptive solver takes steps with which every sample is within its tolerance: the norm of an error is the largest
    of the samples' own.
    """
    before = augmented.calls
    ends = (1.0, 0.0) if backwards else (0.0, 1.0)
    times = torch.tensor(ends, dtype=x.dtype, device=x.device)
    options = _options(solver)
    tolerance = max(solver.tolerance, 32 * torch.finfo(x.dtype).eps)
    integrate: Callable[..., tuple[Tensor, Tensor]] = odeint
    if solver.adjoint:
        integrate = odeint_adjoint
        options |= {"adjoint_params": tuple(p for p in augmented.parameters() if p.requires_grad)}
    state = (x, torch.zeros(len(x), dtype=x.dtype, device=x.device))
    ends_of = integrate(augmented, state, times, method=solver.method, rtol=tolerance, atol=tolerance, **options)
    return Solved(ends_of[0][-1], ends_of[1][-1], float(augmented.calls - before))


def solve_each(augmented: Augmented, x: Tensor, solver: Solver, *, backwards: bool) -> Solved:
    """Solve by rk4, halving the steps of each sample by itself until it converges.

    The error is estimated by comparing a grid with the one before it, and the two are extrapolated (Richardson). So the
    grid of a sample, and with it the result, depends on the sample alone. The tolerance is per value, absolute below 1
    and relative above, of x and of log|det|. It is at least 64 roundings of the floating-point type.
    """
    tolerance = max(solver.tolerance, 64 * torch.finfo(x.dtype).eps)
    rows = torch.arange(len(x), device=x.device)
    coarse = solve(augmented, x, solver, backwards=backwards)
    count, steps = coarse.evaluations * len(x), solver.steps
    pieces: list[tuple[Tensor, Tensor, Tensor]] = []
    while True:
        steps *= 2
        grid = Solver(solver.method, steps, solver.tolerance, solver.adjoint)
        fine = solve(augmented.of_rows(rows), x[rows], grid, backwards=backwards)
        count += fine.evaluations * len(rows)
        x_better, x_error = _extrapolated(coarse.x, fine.x)
        l_better, l_error = _extrapolated(coarse.logabsdet, fine.logabsdet)
        going_on = (torch.maximum(x_error, l_error) > tolerance) & (2 * steps <= MOST_STEPS)  # not where it is nan
        pieces.append((rows[~going_on], x_better[~going_on], l_better[~going_on]))
        if not going_on.any():
            break
        rows, coarse = rows[going_on], Solved(fine.x[going_on], fine.logabsdet[going_on], 0.0)
    order = torch.cat([piece[0] for piece in pieces]).argsort()
    x_all, l_all = (torch.cat([piece[i] for piece in pieces])[order] for i in (1, 2))
    return Solved(x_all, l_all, count / max(len(x), 1))


def extrapolated(augmented: Augmented, x: Tensor, solver: Solver, *, backwards: bool) -> Solved:
    """The limit of 4 and 8 times the first steps, without a branch on values.

    `torch.func.vmap` needs that. It also refuses what torchdiffeq writes in place, so that the steps are taken here.
    """
    coarse, fine = (_rk4(augmented, x, times * solver.steps, backwards=backwards) for times in (4, 8))
    better = [_extrapolated(*pair)[0] for pair in ((coarse.x, fine.x), (coarse.logabsdet, fine.logabsdet))]
    return Solved(better[0], better[1], coarse.evaluations + fine.evaluations)


def _rk4(augmented: Augmented, x: Tensor, steps: int, *, backwards: bool) -> Solved:
    """The classical method of Runge and Kutta on one grid."""
    step = -1.0 / steps if backwards else 1.0 / steps
    state = (x, 0 * x.flatten(1).sum(1))
    for number in range(steps):
        t = torch.as_tensor(float(backwards) + number * step, dtype=x.dtype, device=x.device)
        first = augmented(t, state)
        second = augmented(t + step / 2, _moved(state, first, step / 2))
        third = augmented(t + step / 2, _moved(state, second, step / 2))
        fourth = augmented(t + step, _moved(state, third, step))
        slope = [(a + 2 * b + 2 * c + d) / 6 for a, b, c, d in zip(first, second, third, fourth, strict=True)]
        state = _moved(state, (slope[0], slope[1]), step)
    return Solved(*state, 4.0 * steps)


def _moved(state: tuple[Tensor, Tensor], slope: tuple[Tensor, Tensor], step: float) -> tuple[Tensor, Tensor]:
    return state[0] + step * slope[0], state[1] + step * slope[1]


def _extrapolated(coarse: Tensor, fine: Tensor) -> tuple[Tensor, Tensor]:
    """The limit of two grids, and the largest error of each sample, (batch,)."""
    correction = (fine - coarse) / (2**ORDER - 1)
    error = (correction / (1 + fine.abs())).detach().abs()
    return fine + correction, error.flatten(1).amax(1) if error.ndim > 1 else error


def _options(solver: Solver) -> dict[str, object]:
    if solver.method in FIXED:
        return {"options": {"grid_constructor": _Grid(solver.steps)}}
    return {"options": {"norm": largest_norm}}


@dataclass(frozen=True)
class _Grid:
    """Equal steps, as torchdiffeq asks for them."""

    steps: int

    def __call__(self, func: object, y0: Tensor, t: Tensor) -> Tensor:
        return torch.linspace(float(t[0]), float(t[-1]), self.steps + 1, dtype=t.dtype, device=t.device)


def largest_norm(state: tuple[Tensor, ...]) -> Tensor:
    """The largest over samples of the root mean square over x, and of log|det|."""
    x, logabsdet = state[:2]
    if not x.numel():
        return x.new_zeros(())
    return torch.maximum(x.flatten(1).square().mean(1).sqrt().max(), logabsdet.abs().max())


def check_times(steps: int, tolerance: float) -> None:
    """Raise `TzkError` unless there are steps, and a tolerance above 0."""
    if not 1 <= steps <= MOST_STEPS // 2 or not 0 < tolerance < math.inf:
        raise TzkError(
            f"ffjord expects steps from 1 to {MOST_STEPS // 2} and tolerances above 0; got steps = {steps}, "
            f"tolerance = {tolerance}"
        )
