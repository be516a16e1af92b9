"""Comparisons of values with what is expected, which the checks share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
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


@contextmanager
def returning(what: str, advice: str = "") -> Iterator[None]:
    """Raise `NotConforming` for any exception of the part itself within the block.

    Args:
        what: the call, as the beginning of the message.
        advice: what to change, as its end.
    """
    try:
        yield
    except NotConforming:
        raise
    except Exception as error:
        reason = str(error).strip().split("\n")[0]
        more = f". {advice}" if advice else ""
        raise NotConforming(f"{what} should return; it raises {type(error).__name__}: {reason}{more}") from error


def expect_shape(what: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    """Check a shape; `what` names the tensor in the message."""
    expect(isinstance(tensor, Tensor), f"{what} should be a tensor; got {type(tensor).__name__}")
    expect(tuple(tensor.shape) == shape, f"{what} should have the shape {shape}; got {tuple(tensor.shape)}")


def expect_finite(what: str, tensor: Tensor, advice: str = "") -> None:
    """Check that all values are finite."""
    bad = int((~tensor.isfinite()).sum())
    more = f": {advice}" if advice else ""
    expect(bad == 0, f"{what} should be finite; {bad} of {tensor.numel()} values are not{more}")


def expect_equal(  # noqa: PLR0917  the values compared come first, as in torch.testing
    what: str, actual: Tensor, expected: Tensor, advice: str = "", *, tolerance: float, relative: float = 0.0
) -> None:
    """Check shape and values.

    Args:
        advice: what to change, as the end of the message.
        tolerance: absolute.
        relative: so much more is allowed for the size of what is expected.
    """
    expect_shape(what, actual, tuple(expected.shape))
    actual, expected = actual.detach().double(), expected.detach().double()
    same = (actual == expected) | (actual.isnan() & expected.isnan())
    errors = torch.where(same, 0.0, (actual - expected).abs()).nan_to_num(nan=torch.inf)
    allowed = tolerance + relative * expected.abs().nan_to_num(posinf=0.0, neginf=0.0)
    worst = int((errors - allowed).argmax()) if errors.numel() else 0
    error, most = (float(values.flatten()[worst]) if errors.numel() else 0.0 for values in (errors, allowed))
    more = f": {advice}" if advice else ""
    expect(error <= most, f"{what} is off by {error:.3g}; at most {most:.3g} is allowed{more}")


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
