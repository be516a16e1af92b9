"""Comparisons of values with what is expected, which the checks share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tzk_core.errors import TzkError


class NotConforming(TzkError, AssertionError):
    """A part breaks a law."""


def expect(condition: bool, message: str) -> None:  # noqa: FBT001  an assertion has its condition first
    """Raise `NotConforming` with this message unless the condition holds."""
    if not condition:
        raise NotConforming(message)


def expect_shape(what: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    """Check a shape; `what` names the tensor in the message."""
    expect(tuple(tensor.shape) == shape, f"{what} should have the shape {shape}; got {tuple(tensor.shape)}")


def expect_finite(what: str, tensor: Tensor) -> None:
    """Check that all values are finite."""
    bad = int((~tensor.isfinite()).sum())
    expect(bad == 0, f"{what} should be finite; {bad} of {tensor.numel()} values are not")


def expect_equal(what: str, actual: Tensor, expected: Tensor, *, tolerance: float) -> None:
    """Check shape and values; `tolerance` is absolute."""
    expect_shape(what, actual, tuple(expected.shape))
    error = float((actual - expected).detach().abs().max()) if expected.numel() else 0.0
    expect(error <= tolerance, f"{what} is off by {error:.3g}; at most {tolerance:.3g} is allowed")


def expect_gradients(name: str, module: nn.Module, *values: Tensor) -> None:
    """Check that every trained parameter takes part in a value, with a finite gradient."""
    parameters = {key: parameter for key, parameter in module.named_parameters() if parameter.requires_grad}
    total = torch.stack([value.square().sum() for value in values]).sum()  # a plain sum may be a constant
    if not parameters:
        return
    expect(total.requires_grad, f"{name}: no result has a gradient; {len(parameters)} parameters wait for one")
    gradients = torch.autograd.grad(total, list(parameters.values()), allow_unused=True)
    for key, gradient in zip(parameters, gradients, strict=True):
        expect(gradient is not None, f"{name}: parameter {key!r} takes no part in any result")
        expect_finite(f"{name}: gradient of parameter {key!r}", gradient)


def jacobian(function: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
    """d function / d inputs, (outputs, inputs), at one sample, (1, *shape)."""
    rows: Any = torch.autograd.functional.jacobian(lambda x: function(x).reshape(-1), inputs)
    return rows.reshape(-1, inputs.numel())
