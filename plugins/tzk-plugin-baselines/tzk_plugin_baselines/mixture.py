"""A mixture of Gaussians taken to the standard Gaussian and back, by logarithms of both tails."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

LOG_2PI = math.log(2 * math.pi)
HALVINGS = 30
NEWTON = 4
DEPTH = 8
FARTHEST = 1e12
"""Deviations from a component beyond which it is as if they were no more: their squares would be infinite in float32."""


def to_gaussian(inputs: Tensor, log_weights: Tensor, means: Tensor, scales: Tensor) -> tuple[Tensor, Tensor]:
    """z = Φ⁻¹(F(x)), F the distribution function of the mixture, and log dz/dx, each of the shape of `inputs`, (…).

    Of the components log_weights, which sum to 1 as exponentials, means and scales have one dimension more, (…, k).
    Whichever tail of F is below ½ is taken, as a logarithm, so that nothing becomes infinite however far out x is, and
    log φ(z) + log dz/dx is the log-density of the mixture to rounding.
    """
    z, log_density, *_ = _Mixture.apply(inputs, log_weights, means, scales)
    return z, log_density + 0.5 * (z.square() + LOG_2PI)


class _Mixture(torch.autograd.Function):
    """z and the log-density of x, and what their gradients are made of: each component's share of the density and of
    the tail, (…, k), the standardised x, (…, k), and dz/dx and the tail over φ(z), (…). All are bounded, and in closed
    form several times as fast as autograd, which goes back through the logarithms of the tails."""

    generate_vmap_rule = True

    @staticmethod
    def forward(inputs: Tensor, log_weights: Tensor, means: Tensor, scales: Tensor) -> tuple[Tensor, ...]:
        standard = ((inputs.unsqueeze(-1) - means) / scales).clamp(-FARTHEST, FARTHEST)
        near = (log_weights.exp() * torch.sigmoid(1.702 * standard)).sum(-1)  # F to 0.01, to tell the tails apart
        side = torch.where(near < 0.5, 1.0, -1.0).to(inputs.dtype)
        log_tail, of_tail = _summed(log_weights + log_ndtr(side.unsqueeze(-1) * standard))
        log_density, of_density = _summed(log_weights - scales.log() - 0.5 * (standard.square() + LOG_2PI))
        z = side * log_quantile(log_tail)
        log_phi = -0.5 * (z.square() + LOG_2PI)
        slope, tail = torch.exp(log_density - log_phi), side * torch.exp(log_tail - log_phi)
        return z, log_density, of_density, of_tail, standard, slope, tail

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
        ctx.mark_non_differentiable(*output[2:])
        ctx.save_for_backward(inputs[3], *output[2:])

    @staticmethod
    def backward(ctx: Any, grad_z: Tensor, grad_log_density: Tensor, *_: Tensor) -> tuple[Tensor, ...]:
        scales, of_density, of_tail, standard, slope, tail = ctx.saved_tensors
        moved = (grad_z * slope).unsqueeze(-1)
        pulled = grad_log_density.unsqueeze(-1) / scales
        means = of_density * (pulled * standard - moved)
        scaled = standard * means - of_density * pulled
        # the weights sum to 1: w_k Φ_k and -w_k (1 - Φ_k) have the same gradient in what they are normalised from
        weights = (grad_z * tail).unsqueeze(-1) * of_tail + grad_log_density.unsqueeze(-1) * of_density
        return -means.sum(-1), weights, means, scaled


def _summed(parts: Tensor) -> tuple[Tensor, Tensor]:
    """The logarithm of the sum of exponentials, (…), and the share of each part in it, (…, k)."""
    most = parts.amax(-1, keepdim=True)
    each = (parts - most).exp()
    total = each.sum(-1, keepdim=True)
    return (most + total.log()).squeeze(-1), each / total


def from_gaussian(z: Tensor, log_weights: Tensor, means: Tensor, scales: Tensor) -> Tensor:
    """The x of `to_gaussian`, (…).

    The quantile of a mixture lies between the quantiles of its components; `HALVINGS` bisections of what lies between
    leave 1e-9 of it, and `NEWTON` steps that stay within it the rounding of the type. A last step, the only one with a
    gradient, gives the result that of the implicit function.
    """
    side = torch.where(z < 0, 1.0, -1.0).to(z.dtype)
    with torch.no_grad():
        wanted = log_ndtr(side * z)
        ends = means + scales * z.unsqueeze(-1)
        low, high = ends.min(-1).values, ends.max(-1).values
        for _ in range(HALVINGS):
            middle = 0.5 * (low + high)
            standard = (middle.unsqueeze(-1) - means) / scales
            short = side * (wanted - _log_tail(standard, log_weights, side)) > 0
            low, high = torch.where(short, middle, low), torch.where(short, high, middle)
        x = 0.5 * (low + high)
        for _ in range(NEWTON):
            found, log_slope = to_gaussian(x, log_weights, means, scales)
            x = torch.minimum(torch.maximum(x - (found - z) * torch.exp(-log_slope), low), high)
    if not torch.is_grad_enabled():
        return x
    found, log_slope = to_gaussian(x, log_weights, means, scales)
    return x - (found - z) * torch.exp(-log_slope.detach())


def log_quantile(log_p: Tensor) -> Tensor:
    """z with log Φ(z) = log_p, for log_p up to about log ½: -1e6 gives z = -1414. Newton's method on log Φ, which is
    concave, from Φ⁻¹ or, far out, from its asymptote."""
    twice = (-2 * log_p - LOG_2PI).clamp_min(1.0)
    far = -(twice - twice.log()).clamp_min(0.0).sqrt()
    z = torch.where(log_p < -12, far, torch.special.ndtri(log_p.clamp_min(-12).exp()))
    for _ in range(3):
        reached = log_ndtr(z)
        z = z - (reached - log_p) * torch.exp(reached + 0.5 * (z.square() + LOG_2PI))
    return z


def log_ndtr(z: Tensor) -> Tensor:
    """log Φ(z); torch's own takes several times as long in float32.

    Below -5 it is by Laplace's continued fraction of Mills' ratio (Abramowitz and Stegun 26.2.14), to 1e-7.
    """
    if z.dtype != torch.float32:
        return torch.special.log_ndtr(z)
    a = (-z).clamp_min(5.0)
    fraction = a
    for term in range(DEPTH, 0, -1):
        fraction = a + term / fraction
    far = -0.5 * (a.square() + LOG_2PI) - fraction.log()
    return torch.where(z < -5, far, (0.5 * torch.erfc(-math.sqrt(0.5) * z.clamp_min(-5))).log())


def _log_tail(standard: Tensor, log_weights: Tensor, side: Tensor) -> Tensor:
    """The logarithm of what the mixture has below x where `side` is 1, above x where it is -1."""
    return torch.logsumexp(log_weights + log_ndtr(side.unsqueeze(-1) * standard), -1)
