"""The map of a mixture-of-logistics coupling in Triton, and its backward; see `mixture_torch`.

A program has `BLOCK` numbers and goes through their logistics one after the other. So nothing of the size (batch, K, n)
is ever written but the gradient of the parameters. Log-sum-exps are running ones.
"""

# ruff: noqa: PLR0917 - kernels are launched by position, and operators call these functions so.

import torch
import triton
import triton.language as tl
from torch import Tensor
from tzk_plugin_glow.mixture import CLOSE, FLAT, ITERATIONS

from tzk_plugin_kernels.arithmetic_triton import log_sigmoid, soft_bound, tanh

BLOCK = 256


@triton.jit
def added(largest, total, value):
    """A running log-sum-exp, log(total) + largest, with one value more."""
    new = tl.where(value > largest, value, largest)
    return new, total * tl.exp(largest - new) + tl.exp(value - new)


@triton.jit
def logistic(parameters, k: tl.constexpr, mask, n, bound: tl.constexpr, K: tl.constexpr, TYPE: tl.constexpr):
    """Logit of the weight, mean and log-scale of logistic k.

    `parameters` points at the first parameter of every number.
    """
    logit = tl.load(parameters + k * n, mask=mask, other=0.0).to(TYPE)
    mean = tl.load(parameters + (K + k) * n, mask=mask, other=0.0).to(TYPE)
    raw = tl.load(parameters + (2 * K + k) * n, mask=mask, other=0.0).to(TYPE)
    return logit, mean, soft_bound(raw, bound)


@triton.jit
def logarithms(x, parameters, mask, n, bound: tl.constexpr, K: tl.constexpr, TYPE: tl.constexpr):
    """log Σ exp(logits), and log F, log(1 - F) and log f plus that, at x."""
    for k in tl.static_range(K):
        logit, mean, log_scale = logistic(parameters, k, mask, n, bound, K, TYPE)
        standard = (x - mean) * tl.exp(-log_scale)
        below = log_sigmoid(standard)
        above = below - standard
        if k == 0:
            w, ws = logit, tl.full(x.shape, 1.0, TYPE)
            a, as_ = logit + below, tl.full(x.shape, 1.0, TYPE)
            s, ss = logit + above, tl.full(x.shape, 1.0, TYPE)
            d, ds = logit - log_scale + below + above, tl.full(x.shape, 1.0, TYPE)
        else:
            w, ws = added(w, ws, logit)
            a, as_ = added(a, as_, logit + below)
            s, ss = added(s, ss, logit + above)
            d, ds = added(d, ds, logit - log_scale + below + above)
    return w + tl.log(ws), a + tl.log(as_), s + tl.log(ss), d + tl.log(ds)


@triton.jit
def logit_cdf(x, parameters, mask, n, bound: tl.constexpr, K: tl.constexpr, TYPE: tl.constexpr):
    """logit F(x) and the logarithm of its derivative."""
    w, a, s, d = logarithms(x, parameters, mask, n, bound, K, TYPE)
    return a - s, d - a - s + w


@triton.jit
def mapping(
    x, parameters, y, log_slope, count, n, bound: tl.constexpr, K: tl.constexpr, DOUBLE: tl.constexpr, B: tl.constexpr
):
    TYPE: tl.constexpr = tl.float64 if DOUBLE else tl.float32
    place = tl.program_id(0).to(tl.int64) * B + tl.arange(0, B)
    mask = place < count
    first = parameters + (place // n) * (3 * K + 2) * n + place % n
    inputs = tl.load(x + place, mask=mask, other=0.0).to(TYPE)
    logit, slope = logit_cdf(inputs, first, mask, n, bound, K, TYPE)
    log_scale = soft_bound(tl.load(first + 3 * K * n, mask=mask, other=0.0).to(TYPE), bound * 0.5)
    shift = tl.load(first + (3 * K + 1) * n, mask=mask, other=0.0).to(TYPE)
    tl.store(y + place, (logit * tl.exp(log_scale) + shift).to(y.dtype.element_ty), mask=mask)
    tl.store(log_slope + place, (slope + log_scale).to(y.dtype.element_ty), mask=mask)


@triton.jit
def differentiating(
    grad_y,
    grad_log_slope,
    x,
    parameters,
    grad_x,
    grad_parameters,
    count,
    n,
    bound: tl.constexpr,
    K: tl.constexpr,
    DOUBLE: tl.constexpr,
    B: tl.constexpr,
):
    TYPE: tl.constexpr = tl.float64 if DOUBLE else tl.float32
    place = tl.program_id(0).to(tl.int64) * B + tl.arange(0, B)
    mask = place < count
    offset = (place // n) * (3 * K + 2) * n + place % n
    first = parameters + offset
    gradients = grad_parameters + offset
    out = grad_parameters.dtype.element_ty
    inputs = tl.load(x + place, mask=mask, other=0.0).to(TYPE)
    at_y = tl.load(grad_y + place, mask=mask, other=0.0).to(TYPE)
    at_slope = tl.load(grad_log_slope + place, mask=mask, other=0.0).to(TYPE)
    w, a, s, d = logarithms(inputs, first, mask, n, bound, K, TYPE)

    squashed = tanh(tl.load(first + 3 * K * n, mask=mask, other=0.0).to(TYPE) / (bound * 0.5))
    at_logit = at_y * tl.exp(bound * 0.5 * squashed)
    at_scale = (at_logit * (a - s) + at_slope) * (1.0 - squashed * squashed)
    tl.store(gradients + 3 * K * n, at_scale.to(out), mask=mask)
    tl.store(gradients + (3 * K + 1) * n, at_y.to(out), mask=mask)

    at_x = tl.zeros([B], TYPE)
    for k in tl.static_range(K):
        logit, mean, log_scale = logistic(first, k, mask, n, bound, K, TYPE)
        shrink = tl.exp(-log_scale)
        standard = (inputs - mean) * shrink
        below = log_sigmoid(standard)
        above = below - standard
        p = (at_logit - at_slope) * tl.exp(logit + below - a)
        q = (-at_logit - at_slope) * tl.exp(logit + above - s)
        r = at_slope * tl.exp(logit - log_scale + below + above - d)
        cdf, rest = tl.exp(below), tl.exp(above)
        at_standard = p * rest - q * cdf + r * (rest - cdf)
        at_x += at_standard * shrink
        inner = log_scale / bound
        at_raw = -(at_standard * standard + r) * (1.0 - inner * inner)
        tl.store(gradients + k * n, (p + q + r + tl.exp(logit - w) * at_slope).to(out), mask=mask)
        tl.store(gradients + (K + k) * n, (-at_standard * shrink).to(out), mask=mask)
        tl.store(gradients + (2 * K + k) * n, at_raw.to(out), mask=mask)
    tl.store(grad_x + place, at_x.to(grad_x.dtype.element_ty), mask=mask)


@triton.jit
def inverting(
    y,
    parameters,
    x,
    log_slope,
    count,
    n,
    tolerance,
    bound: tl.constexpr,
    close: tl.constexpr,
    flat: tl.constexpr,
    iterations: tl.constexpr,
    K: tl.constexpr,
    DOUBLE: tl.constexpr,
    B: tl.constexpr,
):
    """As `tzk_plugin_glow.mixture.logit_quantile`; a program ends when its numbers converged."""
    TYPE: tl.constexpr = tl.float64 if DOUBLE else tl.float32
    place = tl.program_id(0).to(tl.int64) * B + tl.arange(0, B)
    mask = place < count
    first = parameters + (place // n) * (3 * K + 2) * n + place % n
    log_scale = soft_bound(tl.load(first + 3 * K * n, mask=mask, other=0.0).to(TYPE), bound * 0.5)
    shift = tl.load(first + (3 * K + 1) * n, mask=mask, other=0.0).to(TYPE)
    wanted = (tl.load(y + place, mask=mask, other=0.0).to(TYPE) - shift) * tl.exp(-log_scale)
    for k in tl.static_range(K):
        _, mean, width = logistic(first, k, mask, n, bound, K, TYPE)
        quantile = mean + tl.exp(width) * wanted
        if k == 0:
            low, high = quantile, quantile
        else:
            low = tl.where(quantile < low, quantile, low)
            high = tl.where(quantile > high, quantile, high)
    middle = (low + high) * 0.5
    before = tl.full([B], float("inf"), TYPE)
    step = 0
    worst = tolerance * 2.0
    while (step < iterations) & (worst > tolerance):
        value, slope = logit_cdf(middle, first, mask, n, bound, K, TYPE)
        error = value - wanted
        size = tl.abs(error)
        worst = tl.max(tl.where(mask, size, 0.0), 0).to(tl.float32)
        low = tl.where(error <= 0.0, middle, low)
        high = tl.where(error >= 0.0, middle, high)
        newton = middle - error * tl.exp(-slope)
        taken = (newton >= low) & (newton <= high) & ((size < before * 0.5) | (size < close))
        middle = tl.where(taken, newton, (low + high) * 0.5)
        before = size
        step += 1
    value, slope = logit_cdf(middle, first, mask, n, bound, K, TYPE)
    solution = middle - (value - wanted) * tl.exp(-tl.where(slope < flat, flat, slope))
    _, slope = logit_cdf(solution, first, mask, n, bound, K, TYPE)
    tl.store(x + place, solution.to(x.dtype.element_ty), mask=mask)
    tl.store(log_slope + place, (-slope - log_scale).to(x.dtype.element_ty), mask=mask)


def forward(x: Tensor, parameters: Tensor, bound: float) -> tuple[Tensor, Tensor]:
    """`mixture_torch.forward`."""
    y, log_slope = x.new_empty(x.shape), x.new_empty(x.shape)
    if x.numel():
        mapping[_grid(x)](
            x.contiguous(), parameters.contiguous(), y, log_slope, *_sizes(x), bound, *_constants(x, parameters)
        )
    return y, log_slope


def backward(
    grad_y: Tensor, grad_log_slope: Tensor, x: Tensor, parameters: Tensor, bound: float
) -> tuple[Tensor, Tensor]:
    """`mixture_torch.backward`."""
    grad_x, grad_parameters = x.new_empty(x.shape), parameters.new_empty(parameters.shape)
    if x.numel():
        inputs = (tensor.contiguous() for tensor in (grad_y, grad_log_slope, x, parameters))
        differentiating[_grid(x)](*inputs, grad_x, grad_parameters, *_sizes(x), bound, *_constants(x, parameters))
    return grad_x, grad_parameters


def inverse(y: Tensor, parameters: Tensor, bound: float) -> tuple[Tensor, Tensor]:
    """`mixture_torch.inverse`."""
    x, log_slope = y.new_empty(y.shape), y.new_empty(y.shape)
    if y.numel():
        tolerance = torch.finfo(y.dtype).eps ** 0.5
        inputs = y.contiguous(), parameters.contiguous()
        search = bound, CLOSE, FLAT, ITERATIONS
        inverting[_grid(y)](*inputs, x, log_slope, *_sizes(y), tolerance, *search, *_constants(y, parameters))
    return x, log_slope


def _grid(x: Tensor) -> tuple[int]:
    return (triton.cdiv(x.numel(), BLOCK),)


def _sizes(x: Tensor) -> tuple[int, int]:
    return x.numel(), x.shape[1]


def _constants(x: Tensor, parameters: Tensor) -> tuple[int, bool, int]:
    """K, DOUBLE and B of the kernels."""
    return (parameters.shape[1] - 2) // 3, x.dtype == torch.float64, BLOCK
