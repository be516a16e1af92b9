"""The tiled convolution with affine map and SymLog as its end, in Triton.

A matrix product by blocks, in float32 throughout: TF32, Triton's default, has 10 bits and breaks invertibility. The
map follows while a block is in registers, so that the product is never written.
"""

# ruff: noqa: PLR0917 - kernels are launched by position, and operators call these functions so.

import triton
import triton.language as tl
from torch import Tensor

from tzk_plugin_kernels.arithmetic_triton import soft_bound, symlog

BLOCK = 64
DEPTH = 32
MOST_ROWS = 4096
"""More rows than this are left to cuBLAS with the element-wise kernel after it.

A product of 256 terms takes about four times as long as writing and reading its result. So saving that cannot make up
for a slower product, only for a launch. This is a bound from the numbers of an H100's data sheet, not from a
measurement: `benchmarks/kernels.py` compares."""


@triton.jit
def convolving(
    rows,
    weight,
    raw_log_scale,
    shift,
    outputs,
    logabsdet,
    count,
    dims,
    tiles,
    bound: tl.constexpr,
    knee: tl.constexpr,
    M: tl.constexpr,
    N: tl.constexpr,
    K: tl.constexpr,
):
    """The tiled map; program (i, j, g) computes block (i, j) of group g.

    It computes its part of log|det| of its rows too.
    """
    group = tl.program_id(2).to(tl.int64)
    row = tl.program_id(0) * M + tl.arange(0, M)
    column = tl.program_id(1) * N + tl.arange(0, N)
    real, inside = row < count, column < dims
    product = tl.zeros([M, N], tl.float32)
    for start in range(0, dims, K):
        depth = start + tl.arange(0, K)
        along = depth < dims
        place = (group * count + row)[:, None] * dims + depth[None, :]
        values = tl.load(rows + place, mask=real[:, None] & along[None, :], other=0.0)
        place = (group * dims + column)[None, :] * dims + depth[:, None]
        matrix = tl.load(weight + place, mask=along[:, None] & inside[None, :], other=0.0)
        product = tl.dot(values, matrix, product, input_precision="ieee")
    mask = real[:, None] & inside[None, :]
    parameter = (group * tiles + row % tiles)[:, None] * dims + column[None, :]
    log_scale = soft_bound(tl.load(raw_log_scale + parameter, mask=mask, other=0.0), bound)
    u = product * tl.exp(log_scale) + tl.load(shift + parameter, mask=mask, other=0.0)
    magnitude, log_shrink = symlog(tl.abs(u), knee)
    place = (group * count + row)[:, None] * dims + column[None, :]
    tl.store(outputs + place, tl.where(u < 0.0, -magnitude, magnitude), mask=mask)
    blocks = tl.num_programs(1)
    parts = tl.sum(log_scale - log_shrink, 1)
    tl.store(logabsdet + (group * count + row) * blocks + tl.program_id(1), parts, mask=real)


def forward(
    rows: Tensor, weight: Tensor, raw_log_scale: Tensor, shift: Tensor, bound: float, knee: float
) -> tuple[Tensor, Tensor]:
    """`tiled_torch.forward`, of float32."""
    groups, count, dims = rows.shape
    tiles = raw_log_scale.shape[1]
    outputs = rows.new_empty(rows.shape)
    columns = min(max(16, triton.next_power_of_2(max(dims, 1))), BLOCK)
    blocks = triton.cdiv(dims, columns)
    parts = rows.new_empty(groups, count // tiles, tiles * blocks)
    if rows.numel():
        convolving[(triton.cdiv(count, BLOCK), blocks, groups)](
            rows.contiguous(),
            weight.contiguous(),
            raw_log_scale.contiguous(),
            shift.contiguous(),
            outputs,
            parts,
            count,
            dims,
            tiles,
            bound,
            knee,
            BLOCK,
            columns,
            DEPTH,
        )
    return outputs, parts.sum(-1)
