"""What ONNX or onnxruntime has no operator for in float64, by others.

Triangular systems are solved by products alone.
"""

from __future__ import annotations

import torch
from torch import Tensor


def solve(A: Tensor, B: Tensor, *, upper: bool, left: bool = True, unitriangular: bool = False) -> Tensor:
    """X with A X = B, or X A = B without `left`; arguments as of `torch.linalg.solve_triangular`.

    A = D (I - N) with N strictly triangular, whose n-th power is zero. So its inverse is the finite product
    (I + N)(I + N²)(I + N⁴)… D⁻¹, of about log2 n factors.
    """
    if not left:
        return solve(A.mT, B.mT, upper=not upper, unitriangular=unitriangular).mT
    if not unitriangular:
        diagonal = A.diagonal(dim1=-2, dim2=-1).unsqueeze(-1)
        A, B = A / diagonal, B / diagonal
    power = -(A.triu(1) if upper else A.tril(-1))
    X, covered = B + power @ B, 2
    while covered < A.shape[-1]:
        power = power @ power
        X, covered = X + power @ X, 2 * covered
    return X


def copysign(magnitude: Tensor, sign: Tensor) -> Tensor:
    """`torch.copysign`, with a minus zero taken for zero."""
    return torch.where(sign < 0, -magnitude.abs(), magnitude.abs())


def prelu(inputs: Tensor, weight: Tensor) -> Tensor:
    """`torch.prelu`: one weight, or one for each of dimension 1. onnxruntime has none of float64."""
    if weight.numel() > 1:
        weight = weight.view(1, -1, *[1] * (inputs.dim() - 2))
    return torch.where(inputs > 0, inputs, weight * inputs)


DECOMPOSITIONS = {
    torch.ops.aten.prelu.default: prelu,
    torch.ops.aten.linalg_solve_triangular.default: solve,
    torch.ops.aten.copysign.Tensor: copysign,
}
"""What takes the place of which operator of a program."""
