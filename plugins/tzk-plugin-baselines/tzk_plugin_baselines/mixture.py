"""The map of a mixture of Gaussians to the standard Gaussian, and back.

It goes by logarithms of the smaller tail.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tzk_core.distributions.standard import LOG_2PI

HALVINGS = 30
NEWTON = 4
DEPTH = 8
FARTHEST = 1e12
"""Deviations from a component at which larger ones are clamped: float32 has no squares of them."""


class Mixture(NamedTuple):
    """Mixtures of k Gaussians, (…, k): log-weights, whose exponentials sum to 1, means and standard deviations."""

    log_weights: Tensor
    means: Tensor
    scales: Tensor


def to_gaussian(inputs: Tensor, mixture: Mixture) -> tuple[Tensor, Tensor]:
    """z = Φ⁻¹(F(x)), F the distribution function of the mixture, and log dz/dx; (…), as `inputs`.

    The logarithm of the tail of F below ½ is used, so that nothing becomes infinite however far out x is. log dz/dx is
    a sum of hazards, in which no large numbers cancel. log φ(z) + log dz/dx is the mixture's log-density.
    """
    z, log_slope, *_ = _ToGaussian.apply(inputs, *mixture)
    return z, log_slope


def from_gaussian(z: Tensor, mixture: Mixture) -> Tensor:
    """The x of `to_gaussian`, (…).

    The quantile of a mixture lies between the quantiles of its components. `HALVINGS` bisections leave 1e-9 of that
    interval, and `NEWTON` steps within it leave the rounding of the type. A last step, the only one with a gradient,
    has that of the implicit function.
    """
    log_weights, means, scales = mixture
    side = torch.where(z < 0, 1.0, -1.0).to(z.dtype)
    with torch.no_grad():
        wanted = log_ndtr(side * z)[0]
        ends = means + scales * z.unsqueeze(-1)
        low, high = ends.min(-1).values, ends.max(-1).values
        for _ in range(HALVINGS):
            middle = 0.5 * (low + high)
            standard = side.unsqueeze(-1) * (middle.unsqueeze(-1) - means) / scales
            short = side * (wanted - torch.logsumexp(log_weights + log_ndtr(standard)[0], -1)) > 0
            low, high = torch.where(short, middle, low), torch.where(short, high, middle)
        x = 0.5 * (low + high)
        for _ in range(NEWTON):
            reached, log_slope = to_gaussian(x, mixture)
            x = torch.minimum(torch.maximum(x - (reached - z) * torch.exp(-log_slope), low), high)
    if not torch.is_grad_enabled():
        return x
    reached, log_slope = to_gaussian(x, mixture)
    return x - (reached - z) * torch.exp(-log_slope.detach())


class _ToGaussian(torch.autograd.Function):
    """z and log dz/dx with their gradients in closed form.

    The further outputs are parts of the gradients: the components' shares of the density and of the tail, (…, k), the
    standardised x, (…, k), and the tail over φ(z), (…). The closed form takes a fraction of the time of autograd, which
    goes back through the logarithms of the tails.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(inputs: Tensor, *mixture: Tensor) -> tuple[Tensor, ...]:
        log_weights, means, scales = mixture
        standard = ((inputs.unsqueeze(-1) - means) / scales).clamp(-FARTHEST, FARTHEST)
        near = (log_weights.exp() * torch.sigmoid(1.702 * standard)).sum(-1)  # F to 0.01, to tell the tails apart
        side = torch.where(near < 0.5, 1.0, -1.0).to(inputs.dtype)
        log_tails, log_mills = log_ndtr(side.unsqueeze(-1) * standard)
        log_tails = log_weights + log_tails
        log_tail, of_tail = _summed(log_tails)
        log_hazard, of_density = _summed(log_tails - log_tail.unsqueeze(-1) - log_mills - scales.log())
        z = log_quantile(log_tail)
        log_mills = log_ndtr(z)[1]
        return side * z, log_hazard + log_mills, of_density, of_tail, standard, side * log_mills.exp()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
        ctx.mark_non_differentiable(*output[2:])
        ctx.save_for_backward(inputs[3], *output)

    @staticmethod
    def backward(ctx: Any, grad_z: Tensor, grad_log_slope: Tensor, *_: Tensor) -> tuple[Tensor, ...]:
        scales, z, log_slope, of_density, of_tail, standard, tail = ctx.saved_tensors
        grad_z = grad_z + grad_log_slope * z  # log dz/dx is the log-density and z²/2
        moved = (grad_z * log_slope.exp()).unsqueeze(-1)
        pulled = grad_log_slope.unsqueeze(-1) / scales
        means = of_density * (pulled * standard - moved)
        deviations = standard * means - of_density * pulled
        # the weights sum to 1: w_k Φ_k and -w_k (1 - Φ_k) have the same gradient in what they are normalised from
        weights = (grad_z * tail).unsqueeze(-1) * of_tail + grad_log_slope.unsqueeze(-1) * of_density
        return -means.sum(-1), weights, means, deviations


def log_quantile(log_p: Tensor) -> Tensor:
    """z with log Φ(z) = log_p, for log_p up to about log ½.

    At -1e6, z = -1414.

    Newton's method on log Φ, which is concave, from Φ⁻¹ or, far out, from its asymptote.
    """
    twice = (-2 * log_p - LOG_2PI).clamp_min(1.0)
    far = -(twice - twice.log()).clamp_min(0.0).sqrt()
    z = torch.where(log_p < -12, far, torch.special.ndtri(log_p.clamp_min(-12).exp()))
    for _ in range(3):
        reached, log_mills = log_ndtr(z)
        z = z - (reached - log_p) * log_mills.exp()
    return z


def log_ndtr(z: Tensor) -> tuple[Tensor, Tensor]:
    """log Φ(z), and the logarithm of Mills' ratio Φ(z)/φ(z) without cancellation; both (…).

    Far below 0 Mills' ratio is Laplace's continued fraction (Abramowitz and Stegun 26.2.14). It starts at -5 in
    float32, where it is right to 1e-7, and at -50 in float64. In float32 this takes half the time of torch's own log Φ.
    """
    single = z.dtype == torch.float32
    a = (-z).clamp_min(5.0 if single else 50.0)
    fraction = a
    for term in range(DEPTH, 0, -1):
        fraction = a + fraction.reciprocal() * term  # as term / fraction, which torch has in Python
    far_mills = -fraction.log()
    near = z.clamp_min(-5.0 if single else -50.0)
    log_p = (0.5 * torch.erfc(-math.sqrt(0.5) * near)).log() if single else torch.special.log_ndtr(near)
    is_far = z < near
    return (
        torch.where(is_far, far_mills - 0.5 * (a.square() + LOG_2PI), log_p),
        torch.where(is_far, far_mills, log_p + 0.5 * (near.square() + LOG_2PI)),
    )


def _summed(parts: Tensor) -> tuple[Tensor, Tensor]:
    """The logarithm of the sum of exponentials, and the shares of its parts.

    Returns:
        The logarithm, (…), and the shares, (…, k).
    """
    most = parts.amax(-1, keepdim=True)
    scaled = (parts - most).exp()
    total = scaled.sum(-1, keepdim=True)
    return (most + total.log()).squeeze(-1), scaled / total
