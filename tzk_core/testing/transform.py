"""Checks of an nflows `Transform`: inverse, and log-determinant by autograd's Jacobian."""

from __future__ import annotations

import copy
from functools import partial

import torch
from nflows.transforms.base import Transform
from torch import Tensor

from tzk_core.testing.expectations import (
    expect,
    expect_equal,
    expect_finite,
    expect_gradients,
    expect_shape,
    jacobian,
)


def check_transform(
    transform: Transform, inputs: Tensor, context: Tensor | None = None, *, tolerance: float = 1e-6
) -> None:
    """Check the inverse and the log-determinant of a `Transform` in evaluation mode.

    The log-determinant has to be that of autograd's Jacobian. The samples of a batch may not influence each other, and
    every parameter has to get a finite gradient.

    Args:
        inputs: (batch, *shape) inside the transform's domain, few and small: the Jacobian takes a backward pass for
            each output.
        context: (batch, ...), or None.
        tolerance: absolute for the inverse, in nats for log-determinants.

    Raises:
        NotConforming: with what was expected and what it got.
    """
    name = type(transform).__name__
    transform = copy.deepcopy(transform).double().eval()
    inputs = inputs.detach().double()
    context = None if context is None else context.detach().double()
    batch = inputs.shape[0]

    outputs, logabsdet = transform(inputs, context)
    expect_shape(f"{name}: logabsdet", logabsdet, (batch,))
    expect(outputs.shape[0] == batch, f"{name}: expected {batch} outputs, one a sample; got {outputs.shape[0]}")
    expect_finite(f"{name}: outputs", outputs)
    expect_finite(f"{name}: logabsdet", logabsdet)

    restored, inverse_logabsdet = transform.inverse(outputs, context)
    expect_equal(f"{name}: inverse(forward(inputs))", restored, inputs, tolerance=tolerance)
    expect_equal(f"{name}: logabsdet of the inverse, negated,", -inverse_logabsdet, logabsdet, tolerance=tolerance)

    for row in range(batch):
        row_context = None if context is None else context[row : row + 1]
        matrix = jacobian(partial(_outputs, transform, row_context), inputs[row : row + 1])
        rows, columns = matrix.shape
        expect(rows == columns, f"{name}: expected as many outputs as inputs; got {rows} and {columns}")
        expected = torch.linalg.slogdet(matrix).logabsdet
        expect_equal(f"{name}: logabsdet of sample {row}", logabsdet[row], expected, tolerance=tolerance)
    expect_gradients(name, transform, outputs, logabsdet)


def _outputs(transform: Transform, context: Tensor | None, inputs: Tensor) -> Tensor:
    return transform(inputs, context)[0]
