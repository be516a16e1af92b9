"""Checks of what trains: optimisers, schedules and terms of the objective."""

from __future__ import annotations

import copy
import io
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from tzk_core.objective.extra import Term, TermBatch
from tzk_core.testing.expectations import expect, expect_equal, expect_finite, expect_shape
from tzk_core.training.optimizers import Optimiser, Trained, trained_tensors
from tzk_core.training.schedules import Shares

STEPS = 8


class _Problem(nn.Module):
    """A small regression, with a wide matrix and an idle parameter.

    The matrix is wide enough for optimisers of matrices.
    """

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.first, self.last = nn.Linear(40, 40), nn.Linear(40, 2)
        self.idle = nn.Parameter(torch.ones(3))
        for parameter in (*self.first.parameters(), *self.last.parameters()):
            parameter.data = 0.2 * torch.randn(parameter.shape, generator=generator)

    def loss(self, step: int) -> Tensor:
        x = torch.randn(64, 40, generator=torch.Generator().manual_seed(step))
        output: Tensor = self.last(self.first(x).tanh())
        return (output - x[:, :2].sin()).square().mean()


def check_optimizer(build: Callable[[Trained], Optimiser], *, learning_rate: float = 1e-3) -> None:
    """Check that an optimiser trains all its parameters, and goes on from its state.

    It trains at the rates that it is told.

    Args:
        build: the class of the plugin, or a function that calls it with arguments.
        learning_rate: one with which a few steps lower a loss.

    Raises:
        NotConforming: with what was expected and what it got.
    """
    module, optimizer = _built(build, learning_rate)
    name = type(optimizer).__name__
    mine = {id(parameter) for parameter in trained_tensors(optimizer)}
    expected = {id(parameter) for parameter in module.parameters()}
    expect(mine == expected, f"{name}: param_groups should hold all parameters of trained.groups, and no others")
    rated = all(isinstance(group.get("rate"), int | float) for group in optimizer.param_groups)
    expect(rated, f'{name}: every group should have the "rate" of its parameters; one has none')
    start = copy.deepcopy(module.state_dict())
    before = _mean_loss(module)
    _advance(module, optimizer, range(STEPS))
    for key, value in module.state_dict().items():
        expect_finite(f"{name}: parameter {key!r} after {STEPS} steps", value)
        moved = not torch.equal(value, start[key])
        if key == "idle":
            expect(not moved, f"{name}: a parameter whose gradient is None should stay as it is; it moves")
        else:
            expect(moved, f"{name}: every parameter that has a gradient should move; {key!r} does not")
    after = _mean_loss(module)
    expect(after < before, f"{name}: {STEPS} steps should lower the loss {before:.4g} of a regression; got {after:.4g}")
    _check_rate(name, build, learning_rate)
    _check_state(name, build, learning_rate)


def _built(build: Callable[[Trained], Optimiser], learning_rate: float) -> tuple[_Problem, Optimiser]:
    module = _Problem()
    groups = [
        {"params": [*module.first.parameters(), module.idle], "rate": learning_rate},
        {"params": list(module.last.parameters()), "rate": learning_rate},
    ]
    return module, build(Trained(groups, [module], learning_rate, (0.9, 0.99)))


def _advance(module: _Problem, optimizer: Optimiser, steps: range, *, share: float = 1.0) -> None:
    for step in steps:
        for group in optimizer.param_groups:
            group["lr"] = group["rate"] * share
        optimizer.zero_grad(set_to_none=True)
        module.loss(step).backward()
        optimizer.step()


@torch.no_grad()
def _mean_loss(module: _Problem) -> float:
    return torch.stack([module.loss(1000 + step) for step in range(4)]).mean().item()


def _check_rate(name: str, build: Callable[[Trained], Optimiser], learning_rate: float) -> None:
    """Check that "lr" of the groups is the rate of a step.

    With 0 nothing moves.
    """
    module, optimizer = _built(build, learning_rate)
    start = copy.deepcopy(module.state_dict())
    _advance(module, optimizer, range(1), share=0.0)
    still = all(torch.equal(value, start[key]) for key, value in module.state_dict().items())
    expect(still, f'{name}: a step should take the rate from "lr" of its group; with lr = 0 parameters move')


def _check_state(name: str, build: Callable[[Trained], Optimiser], learning_rate: float) -> None:
    """Check that a training goes on from a saved state as if nothing had happened."""
    whole, optimizer = _built(build, learning_rate)
    _advance(whole, optimizer, range(STEPS))
    first, earlier = _built(build, learning_rate)
    _advance(first, earlier, range(STEPS // 2))
    file = io.BytesIO()
    torch.save(earlier.state_dict(), file)
    file.seek(0)
    state = torch.load(file, weights_only=True)  # as a checkpoint is read, which takes nothing but plain values
    second, later = _built(build, learning_rate)
    second.load_state_dict(first.state_dict())
    later.load_state_dict(state)
    _advance(second, later, range(STEPS // 2, STEPS))
    for key, value in whole.state_dict().items():
        what = f"{name}: parameter {key!r} of a training that goes on from its saved state"
        expect_equal(what, second.state_dict()[key], value, tolerance=0.0)


def check_schedule(build: Callable[[int], Shares], *, steps: int = 50) -> None:
    """Check that a schedule gives a finite share of at least 0 for every step.

    It does so whatever it was asked before.

    Args:
        build: the function of the plugin, or one that calls it with arguments.
        steps: the length of the training.

    Raises:
        NotConforming: with what was expected and what it got.
    """
    for length in (steps, 1, 0):  # a training of no steps builds its schedule, too
        shares = build(length)
        values = [shares(step) for step in range(length)]
        for step, share in enumerate(values):
            is_share = isinstance(share, int | float) and math.isfinite(share) and share >= 0
            expect(
                is_share, f"schedule: the share of step {step} of {length} should be a number from 0 on; got {share!r}"
            )
        expect(length == 0 or any(values), f"schedule: some step of {length} should have a share above 0; all have 0")
        again = build(length)
        backwards = [again(step) for step in reversed(range(length))][::-1]
        expect(backwards == values, "schedule: a share should depend on the step alone, as resuming needs; it does not")


def check_objective_term(term: Term, batch: TermBatch) -> None:
    """Check that a term gives every sample a finite value of its own.

    It is a pure function, and changes nothing.

    Args:
        batch: few and small samples; T and labels may be missing in some.

    Raises:
        NotConforming: with what was expected and what it got.
    """
    name = type(term).__name__
    z = batch.z.detach().clone().requires_grad_()
    batch = _with_z(batch, z)
    tensors = {"T": batch.T, "z": batch.z, "log_prob_T": batch.log_prob_T, **batch.presence, **batch.characteristics}
    before = {key: tensor.detach().clone() for key, tensor in tensors.items()}
    state = {key: value.clone() for key, value in batch.model.state_dict().items()}
    random_state = torch.get_rng_state()
    values = term(batch)
    expect_shape(f"{name}: the values", values, (len(z),))
    expect_finite(f"{name}: the values", values)
    changed = [key for key, value in before.items() if not _same(tensors[key], value)]
    changed += [key for key, value in batch.model.state_dict().items() if not torch.equal(value, state[key])]
    expect(not changed, f"{name}: a term should change nothing that it sees; it changes {', '.join(changed)}")
    unchanged = torch.equal(random_state, torch.get_rng_state())
    expect(unchanged, f"{name}: should use no random numbers of its own; it does")
    expect_equal(f"{name}: the values of the same batch again", term(batch), values, tolerance=0.0)
    expect_equal(f"{name}: the value of the first sample by itself", term(_rows(batch, 1)), values[:1], tolerance=1e-5)
    parameters = [z, *(parameter for parameter in batch.model.parameters() if parameter.requires_grad)]
    expect(values.requires_grad, f"{name}: the values should have a gradient; they have none")
    gradients = torch.autograd.grad(values.sum(), parameters, allow_unused=True)
    reached = [gradient for gradient in gradients if gradient is not None]
    expect(bool(reached), f"{name}: a gradient should reach z or the model; none does")
    for gradient in reached:
        expect_finite(f"{name}: the gradient", gradient)


def _with_z(batch: TermBatch, z: Tensor) -> TermBatch:
    return TermBatch(batch.T, z, batch.log_prob_T, batch.presence, batch.characteristics, batch.model)


def _rows(batch: TermBatch, count: int) -> TermBatch:
    """The first samples of a batch."""
    return TermBatch(
        batch.T[:count],
        batch.z[:count],
        batch.log_prob_T[:count],
        {name: column[:count] for name, column in batch.presence.items()},
        {name: C[:count] for name, C in batch.characteristics.items()},
        batch.model,
    )


def _same(one: Tensor, other: Tensor) -> bool:
    """Whether all values are equal, nan to nan."""
    return torch.allclose(one, other, rtol=0, atol=0, equal_nan=True)
