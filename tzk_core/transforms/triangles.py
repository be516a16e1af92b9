"""A matrix by its triangles, W = L U: products with them, and gradients.

Half of a triangle is zero. Products are taken in two blocks, which leave out half of the zeros.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tzk_core.transforms.layer import leading

LEAST = 128
"""The smallest matrix that is cut into blocks: with smaller ones the calls cost more than the zeros."""

Blocks = tuple[tuple[slice, slice], ...]
"""Rows of a matrix, and the columns in which they are not zero."""


class Factors(NamedTuple):
    """L and U, (…, d, d) each."""

    lower: Tensor
    upper: Tensor


class Gradients(NamedTuple):
    """Gradients of `through`.

    rows: None where it is not needed. triangles: (…, d, d), zero on the diagonal. diagonal: of U, (…, d).
    """

    rows: Tensor | None
    triangles: Tensor
    diagonal: Tensor


class Triangles(torch.autograd.Function):
    """`factors`, with a backward that joins both gradients in one pass; autograd takes three."""

    @staticmethod
    def forward(triangles: Tensor, diagonal: Tensor) -> tuple[Tensor, Tensor]:
        return factors(triangles, diagonal)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: tuple[Tensor, Tensor]) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, grad_lower: Tensor, grad_upper: Tensor) -> tuple[Tensor, Tensor]:
        grad = torch.lerp(grad_upper, grad_lower, _masks(grad_lower.shape[-1], grad_lower.device, grad_lower.dtype)[0])
        grad.diagonal(dim1=-2, dim2=-1).zero_()
        return grad, grad_upper.diagonal(dim1=-2, dim2=-1)

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], *tensors: Tensor
    ) -> tuple[tuple[Tensor, Tensor], tuple[int, int]]:
        return Triangles.apply(*leading(info, in_dims, tensors)), (0, 0)


def factors(triangles: Tensor, diagonal: Tensor) -> Factors:
    """L with ones on its diagonal, and U with this one, from one matrix."""
    below, above = _masks(triangles.shape[-1], triangles.device, triangles.dtype)
    lower, upper = triangles * below, triangles * above
    lower.diagonal(dim1=-2, dim2=-1).fill_(1)
    upper.diagonal(dim1=-2, dim2=-1).copy_(diagonal)
    return Factors(lower, upper)


def few(rows: Tensor) -> bool:
    """Whether there are fewer rows than columns.

    Two products then cost less than forming W first.
    """
    return rows.shape[-2] < rows.shape[-1]


def through(rows: Tensor, both: Factors) -> tuple[Tensor, Tensor]:
    """x Wᵀ of every row x, (…, n, d), and what `gradients` needs.

    Of few rows that is x Uᵀ, (…, n, d), else W, (…, d, d).
    """
    lower, upper = _blocks(rows.shape[-1])
    if few(rows):
        inner = _times(rows, both.upper, upper)
        return _times(inner, both.lower, lower), inner
    weight = _times(both.lower, both.upper.mT, lower)
    return rows @ weight.mT, weight


def gradients(grad: Tensor, rows: Tensor, both: Factors, *, kept: Tensor, of_rows: bool = True) -> Gradients:
    """The gradients of `through`, from that of its first result."""
    lower, upper = _blocks(rows.shape[-1])
    if few(rows):
        inner = _times(grad, both.lower.mT, upper)
        of_lower, of_upper = _outer(grad, kept, lower), _outer(inner, rows, upper)
        return Gradients(_times(inner, both.upper.mT, lower) if of_rows else None, *_joined(of_lower, of_upper))
    weight = grad.mT @ rows
    of_lower, of_upper = _outer(weight.mT, both.upper.mT, lower), _outer(both.lower, weight, upper)
    return Gradients(grad @ kept if of_rows else None, *_joined(of_lower, of_upper))


def _blocks(dims: int) -> tuple[Blocks, Blocks]:
    """Of a lower and of an upper triangle."""
    if dims < LEAST:
        return ((slice(dims), slice(dims)),), ((slice(dims), slice(dims)),)
    first, second, every = slice(dims // 2), slice(dims // 2, dims), slice(dims)
    return ((first, first), (second, every)), ((first, every), (second, second))


def _times(rows: Tensor, matrix: Tensor, blocks: Blocks) -> Tensor:
    """x Mᵀ of every row x, for a matrix that is zero outside its blocks."""
    parts = [rows[..., columns] @ matrix[..., own, columns].mT for own, columns in blocks]
    return torch.cat(parts, -1) if len(parts) > 1 else parts[0]


def _outer(grad: Tensor, rows: Tensor, blocks: Blocks) -> list[Tensor]:
    """The gradient of `_times` in the matrix, gᵀ x, by block."""
    return [grad[..., own].mT @ rows[..., columns] for own, columns in blocks]


def _joined(of_lower: list[Tensor], of_upper: list[Tensor]) -> tuple[Tensor, Tensor]:
    """The gradients of the matrix that holds both triangles, and of the diagonal of U."""
    half = of_lower[0].shape[-1]
    below, _ = _masks(half, of_lower[0].device, of_lower[0].dtype)
    if len(of_lower) == 1:
        diagonal = of_upper[0].diagonal(dim1=-2, dim2=-1).clone()
        grad = of_upper[0].lerp_(of_lower[0], below)
    else:
        diagonal = torch.cat([block.diagonal(dim1=-2, dim2=-1) for block in (of_upper[0][..., :half], of_upper[1])], -1)
        grad = torch.cat([of_upper[0], of_lower[1]], -2)
        grad[..., :half, :half].lerp_(of_lower[0], below)
        below, _ = _masks(of_upper[1].shape[-1], below.device, below.dtype)
        grad[..., half:, half:] = of_upper[1].lerp_(of_lower[1][..., half:], below)
    grad.diagonal(dim1=-2, dim2=-1).zero_()
    return grad, diagonal


@functools.cache
def _masks(dims: int, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Ones below and ones above the diagonal, (dims, dims), contiguous.

    On a CPU a product with one of them takes half of the time of `tril`.
    """
    with torch.inference_mode(mode=False):  # training may follow an evaluation in inference mode, and uses them too
        ones = torch.ones(dims, dims, device=device, dtype=dtype)
        return ones.tril(-1), ones.triu(1)
