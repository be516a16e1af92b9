"""Element-wise affine map, SymLog and log-determinant in Triton; see `affine_symlog_torch`.

Every kernel passes once over the values. The map reads and writes them once and sums every row within a program.
Backward reads two and writes one. Sums over the batch are taken within chunks of rows, then over the chunks, so that
results do not depend on the order in which programs end. Float64 is computed in float64, other types in float32.
"""

# ruff: noqa: PLR0917, FBT003 - kernels are launched by position, and operators call these functions so.

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from tzk_plugin_kernels.arithmetic_triton import expm1, sign, soft_bound, symlog, tanh

TILE = 2048
"""Values of a program at a time: 128 threads, four accesses of 16 bytes a thread in float32."""
COLUMNS_BACKWARD = 128
PROGRAMS = 528
"""The least number of programs of backward, where there are enough rows: four a multiprocessor of an H100 (132)."""


@triton.jit
def mapping(
    values,
    raw_log_scale,
    shift,
    mapped,
    logabsdet,
    rows,
    dims,
    bound: tl.constexpr,
    limit: tl.constexpr,
    knee: tl.constexpr,
    INVERSE: tl.constexpr,
    DOUBLE: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """The map or its inverse; program (i, g) computes `ROWS` rows of group g.

    `limit` is the |y| up to which SymLog is curved: log(1 + knee), or without a knee where its inverse stops.
    """
    TYPE: tl.constexpr = tl.float64 if DOUBLE else tl.float32
    group = tl.program_id(1).to(tl.int64)
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    total = tl.zeros([ROWS], TYPE)
    for start in range(0, dims, COLUMNS):
        column = start + tl.arange(0, COLUMNS)
        inside = column < dims
        parameter = group * dims + column
        log_scale = soft_bound(tl.load(raw_log_scale + parameter, mask=inside, other=0.0).to(TYPE), bound)[None, :]
        moved = tl.load(shift + parameter, mask=inside, other=0.0).to(TYPE)[None, :]
        place = (group * rows + row)[:, None] * dims + column[None, :]
        mask = (row < rows)[:, None] & inside[None, :]
        inputs = tl.load(values + place, mask=mask, other=0.0).to(TYPE)
        if INVERSE:
            magnitude = tl.abs(inputs)
            curved = tl.where(magnitude > limit, limit, magnitude)
            u = expm1(curved)
            if knee > 0.0:
                u += (magnitude - curved) * (1.0 + knee)
            outputs = (tl.where(inputs < 0.0, -u, u) - moved) * tl.exp(-log_scale)
            total += tl.sum(curved - log_scale, 1)
        else:
            u = inputs * tl.exp(log_scale) + moved
            magnitude, log_shrink = symlog(tl.abs(u), knee)
            outputs = tl.where(u < 0.0, -magnitude, magnitude)
            total += tl.sum(log_scale - log_shrink, 1)
        tl.store(mapped + place, outputs.to(mapped.dtype.element_ty), mask=mask)
    tl.store(logabsdet + group * rows + row, total.to(logabsdet.dtype.element_ty), mask=row < rows)


@triton.jit
def _map_gradients(outputs, grad, volume, log_scale, moved, limit: tl.constexpr, knee: tl.constexpr):
    """Gradients of the map by its values, its bounded log scale and its shift.

    `grad` and `volume` are those by the outputs and by the log-determinant.
    """
    magnitude = tl.abs(outputs)
    at_y = grad - volume * sign(outputs)
    curved = magnitude
    beyond = 0.0
    if knee > 0.0:
        at_y = tl.where(magnitude < limit, at_y, grad)
        curved = tl.where(magnitude > limit, limit, magnitude)
        beyond = magnitude - curved
    slope = tl.exp(-curved)
    at_u = at_y * slope
    at_scale = at_y * (sign(outputs) * (beyond - expm1(-curved)) - moved * slope) + volume
    return at_u * tl.exp(log_scale), at_scale, at_u


@triton.jit
def _inverse_gradients(y, grad, volume, log_scale, moved, limit: tl.constexpr, knee: tl.constexpr):
    """The same of the inverse, from its input `y`."""
    magnitude = tl.abs(y)
    curved = tl.where(magnitude > limit, limit, magnitude)
    at_u = grad * tl.exp(-log_scale)
    through = at_u * tl.exp(curved)
    u = expm1(curved)
    if knee > 0.0:
        at_values = through + tl.where(magnitude <= limit, volume * sign(y), 0.0)
        u += (magnitude - curved) * (1.0 + knee)
    else:
        at_values = tl.where(magnitude <= limit, through + volume * sign(y), 0.0)
    u = tl.where(y < 0.0, -u, u)
    return at_values, -(at_u * (u - moved) + volume), -at_u


@triton.jit
def differentiating(
    grad_mapped,
    grad_logabsdet,
    y,
    raw_log_scale,
    shift,
    grad_values,
    grad_parameters,
    rows,
    dims,
    chunk,
    bound: tl.constexpr,
    limit: tl.constexpr,
    knee: tl.constexpr,
    INVERSE: tl.constexpr,
    DOUBLE: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Backward of the map or of its inverse.

    Program (i, j, g) goes through the rows of chunk j in its columns. `grad_parameters` is (2, groups, chunks, dims),
    of raw_log_scale and shift. `limit` is as in `mapping`.
    """
    TYPE: tl.constexpr = tl.float64 if DOUBLE else tl.float32
    group = tl.program_id(2).to(tl.int64)
    part = tl.program_id(1)
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    inside = column < dims
    parameter = group * dims + column
    squashed = tanh(tl.load(raw_log_scale + parameter, mask=inside, other=0.0).to(TYPE) / bound)
    log_scale = (bound * squashed)[None, :]
    moved = tl.load(shift + parameter, mask=inside, other=0.0).to(TYPE)[None, :]
    of_scale = tl.zeros([COLUMNS], TYPE)
    of_shift = tl.zeros([COLUMNS], TYPE)
    last = tl.minimum(part * chunk + chunk, rows)
    for start in range(part * chunk, last, ROWS):
        row = start + tl.arange(0, ROWS)
        real = row < last
        place = (group * rows + row)[:, None] * dims + column[None, :]
        mask = real[:, None] & inside[None, :]
        outputs = tl.load(y + place, mask=mask, other=0.0).to(TYPE)
        grad = tl.load(grad_mapped + place, mask=mask, other=0.0).to(TYPE)
        volume = tl.load(grad_logabsdet + group * rows + row, mask=real, other=0.0).to(TYPE)[:, None]
        if INVERSE:
            at_values, at_scale, at_shift = _inverse_gradients(outputs, grad, volume, log_scale, moved, limit, knee)
        else:
            at_values, at_scale, at_shift = _map_gradients(outputs, grad, volume, log_scale, moved, limit, knee)
        of_scale += tl.sum(at_scale, 0)
        of_shift += tl.sum(at_shift, 0)
        tl.store(grad_values + place, at_values.to(grad_values.dtype.element_ty), mask=mask)
    groups = tl.num_programs(2)
    chunks = tl.num_programs(1)
    place = (group * chunks + part) * dims + column
    tl.store(grad_parameters + place, of_scale * (1.0 - squashed * squashed), mask=inside)
    tl.store(grad_parameters + groups * chunks * dims + place, of_shift, mask=inside)


def forward(x: Tensor, raw_log_scale: Tensor, shift: Tensor, bound: float, knee: float) -> tuple[Tensor, Tensor]:
    """`affine_symlog_torch.forward`."""
    return _map(x, raw_log_scale, shift, bound=bound, limit=0.0, knee=knee, inverse=False)


def inverse(
    y: Tensor, raw_log_scale: Tensor, shift: Tensor, bound: float, limit: float, knee: float
) -> tuple[Tensor, Tensor]:
    """`affine_symlog_torch.inverse`."""
    return _map(y, raw_log_scale, shift, bound=bound, limit=limit, knee=knee, inverse=True)


def backward(
    grad_y: Tensor,
    grad_logabsdet: Tensor,
    y: Tensor,
    raw_log_scale: Tensor,
    shift: Tensor,
    bound: float,
    knee: float,
) -> tuple[Tensor, Tensor]:
    """`affine_symlog_torch.backward`."""
    constants = {"bound": bound, "limit": 0.0, "knee": knee}
    return _differentiate(grad_y, grad_logabsdet, y, raw_log_scale, shift, **constants, inverse=False)


def inverse_backward(
    grad_x: Tensor,
    grad_logabsdet: Tensor,
    y: Tensor,
    raw_log_scale: Tensor,
    shift: Tensor,
    bound: float,
    limit: float,
    knee: float,
) -> tuple[Tensor, Tensor]:
    """`affine_symlog_torch.inverse_backward`."""
    constants = {"bound": bound, "limit": limit, "knee": knee}
    return _differentiate(grad_x, grad_logabsdet, y, raw_log_scale, shift, **constants, inverse=True)


def _map(
    values: Tensor, raw_log_scale: Tensor, shift: Tensor, *, bound: float, limit: float, knee: float, inverse: bool
) -> tuple[Tensor, Tensor]:
    groups, rows, dims = values.shape
    mapped, logabsdet = values.new_empty(values.shape), values.new_zeros(groups, rows)
    if not logabsdet.numel():
        return mapped, logabsdet
    columns = min(triton.next_power_of_2(max(dims, 1)), 1024)
    # few rows: one for each program, so that all multiprocessors have work; many: several share their parameters
    together = min(max(1, groups * rows // PROGRAMS), TILE // columns)
    together = triton.next_power_of_2(together + 1) // 2
    mapping[(triton.cdiv(rows, together), groups)](
        values.contiguous(),
        raw_log_scale.contiguous(),
        shift.contiguous(),
        mapped,
        logabsdet,
        rows,
        dims,
        bound,
        math.log1p(knee) if knee else limit,
        knee,
        inverse,
        values.dtype == torch.float64,
        together,
        columns,
    )
    return mapped, logabsdet


def _differentiate(
    grad_mapped: Tensor,
    grad_logabsdet: Tensor,
    y: Tensor,
    raw_log_scale: Tensor,
    shift: Tensor,
    *,
    bound: float,
    limit: float,
    knee: float,
    inverse: bool,
) -> tuple[Tensor, Tensor]:
    groups, rows, dims = y.shape
    grad_values = y.new_empty(y.shape)
    if not grad_values.numel():
        return grad_values, raw_log_scale.new_zeros(2, *raw_log_scale.shape)
    columns = min(triton.next_power_of_2(dims), COLUMNS_BACKWARD)
    together = min(TILE // columns, triton.next_power_of_2(rows))
    wanted = triton.cdiv(PROGRAMS, triton.cdiv(dims, columns) * groups)
    chunk = triton.cdiv(triton.cdiv(rows, wanted), together) * together
    chunks = triton.cdiv(rows, chunk)
    double = y.dtype == torch.float64
    partial = torch.empty(2, groups, chunks, dims, device=y.device, dtype=torch.float64 if double else torch.float32)
    differentiating[(triton.cdiv(dims, columns), chunks, groups)](
        grad_mapped.contiguous(),
        grad_logabsdet.contiguous(),
        y.contiguous(),
        raw_log_scale.contiguous(),
        shift.contiguous(),
        grad_values,
        partial,
        rows,
        dims,
        chunk,
        bound,
        math.log1p(knee) if knee else limit,
        knee,
        inverse,
        double,
        together,
        columns,
    )
    return grad_values, (partial.squeeze(2) if chunks == 1 else partial.sum(2)).to(raw_log_scale.dtype)
