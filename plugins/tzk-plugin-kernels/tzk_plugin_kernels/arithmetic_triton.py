"""Functions that Triton lacks, or has not to full precision near zero.

Triton's interpreter has no CUDA libdevice. log(1 + m) and exp(v) - 1 are corrected for the rounding of 1 + m and of
exp(v) (Kahan; Higham 2002, Section 1.14.1), which holds as long as no compiler reorders them.
"""

import triton
import triton.language as tl


@triton.jit
def log1p(m):
    """log(1 + m) for m of 0 or more."""
    one_more = 1.0 + m
    exact = tl.where(one_more == 1.0, m, tl.log(one_more) * (m / (one_more - 1.0)))
    return tl.where(m > 1e18, tl.log(one_more), exact)


@triton.jit
def expm1(v):
    """exp(v) - 1; near zero in float32 by its series, a fifth of the instructions.

    The first term left out is 0.5**8 / 9! = 1e-8 of it.
    """
    e = tl.exp(v)
    if v.dtype == tl.float64:
        near = tl.where(e == 1.0, v, (e - 1.0) * (v / tl.log(e)))
    else:
        near = 1.0 + v * (1 / 8)
        near = 1.0 + near * v * (1 / 7)
        near = 1.0 + near * v * (1 / 6)
        near = 1.0 + near * v * (1 / 5)
        near = 1.0 + near * v * (1 / 4)
        near = 1.0 + near * v * (1 / 3)
        near = (1.0 + near * v * (1 / 2)) * v
    return tl.where(tl.abs(v) > 0.5, e - 1.0, near)


@triton.jit
def symlog(m, knee: tl.constexpr):
    """|y| and -log dy/du of SymLog, for |u| = m; `knee` as in `affine_symlog_torch`."""
    if knee > 0.0:
        inside = tl.where(m > knee, knee, m)
        log_shrink = log1p(inside)
        magnitude = log_shrink + (m - inside) * (1.0 / (1.0 + knee))
    else:
        log_shrink = log1p(m)
        magnitude = log_shrink
    return magnitude, log_shrink


@triton.jit
def tanh(v):
    """tanh(v)."""
    twice = tl.abs(v) * 2.0
    more = expm1(tl.where(twice > 40.0, 40.0, twice))
    magnitude = more / (more + 2.0)
    return tl.where(v < 0.0, -magnitude, magnitude)


@triton.jit
def sign(v):
    """-1, 0 or 1."""
    return tl.where(v > 0.0, 1.0, 0.0) - tl.where(v < 0.0, 1.0, 0.0)


@triton.jit
def log_sigmoid(v):
    """log(1 / (1 + exp(-v)))."""
    return tl.where(v < 0.0, v, 0.0) - log1p(tl.exp(-tl.abs(v)))


@triton.jit
def soft_bound(raw, bound: tl.constexpr):
    """`tzk_core.transforms.bounds.soft_bound`."""
    return bound * tanh(raw / bound)
