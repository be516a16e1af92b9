"""An nflows `Transform` held to its laws: inverse, and log-determinant by autograd's Jacobian."""

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
    transform: Transform, inputs: Tensor, context: Tensor | None = None, tolerance: float = 1e-6
) -> None:
    """In evaluation mode a `Transform` inverts, and its log-determinant is that of autograd's Jacobian.

    Also: the samples of a batch do not influence each other, and every parameter gets a finite gradient.
    `inputs` is (batch, *shape) inside the transform's domain, few and small: the Jacobian takes a backward
    pass for each output. `tolerance` is absolute for the inverse, and in nats for log-determinants.
    """
    name = type(transform).__name__
    transform = copy.deepcopy(transform).double().eval()
    inputs = inputs.detach().double()
    context = None if context is None else context.detach().double()
    batch = inputs.shape[0]

    outputs, logabsdet = transform(inputs, context)
    expect_shape(f"{name}: logabsdet", logabsdet, (batch,))
    expect(
        outputs.shape[0] == batch, f"{name}: expected {batch} outputs, one a sample; got {outputs.shape[0]}"
    )
    expect_finite(f"{name}: outputs", outputs)
    expect_finite(f"{name}: logabsdet", logabsdet)

    restored, inverse_logabsdet = transform.inverse(outputs, context)
    expect_equal(f"{name}: inverse(forward(inputs))", restored, inputs, tolerance)
    expect_equal(f"{name}: logabsdet of the inverse, negated,", -inverse_logabsdet, logabsdet, tolerance)

    for row in range(batch):
        here = None if context is None else context[row : row + 1]
        matrix = jacobian(partial(_outputs, transform, here), inputs[row : row + 1])
        rows, columns = matrix.shape
        expect(rows == columns, f"{name}: expected as many outputs as inputs; got {rows} and {columns}")
        expected = torch.linalg.slogdet(matrix).logabsdet
        expect_equal(f"{name}: logabsdet of sample {row}", logabsdet[row], expected, tolerance)
    expect_gradients(name, transform, outputs, logabsdet)


def _outputs(transform: Transform, context: Tensor | None, inputs: Tensor) -> Tensor:
    return transform(inputs, context)[0]
