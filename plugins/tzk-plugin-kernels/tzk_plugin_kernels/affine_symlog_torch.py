"""Element-wise affine map, SymLog and log-determinant in plain torch: the definition, and what a CPU computes.

x and y are (groups, batch, dims), raw_log_scale and shift (groups, dims). With s = bound · tanh(raw / bound) and
u = x exp(s) + t, y = sign(u) log(|u| + 1) and log|det| = Σ s - Σ |y|, (groups, batch).
"""

from __future__ import annotations

import torch
from torch import Tensor

from tzk_core.transforms.bounds import soft_bound


def forward(x: Tensor, raw_log_scale: Tensor, shift: Tensor, bound: float) -> tuple[Tensor, Tensor]:
    """y and log|det|."""
    log_scale = soft_bound(raw_log_scale, bound)
    u = torch.addcmul(shift.unsqueeze(1), x.contiguous(), log_scale.exp().unsqueeze(1))
    magnitude = u.abs().log1p_()
    logabsdet = log_scale.sum(-1, keepdim=True) - magnitude.sum(-1)
    return magnitude.copysign_(u), logabsdet


def backward(
    grad_y: Tensor, grad_logabsdet: Tensor, y: Tensor, raw_log_scale: Tensor, shift: Tensor, bound: float
) -> tuple[Tensor, Tensor]:
    """Gradients of x, and of raw_log_scale and shift together, (2, groups, dims), from the outputs alone.

    dy/du = exp(-|y|), and x exp(s) = u - t, whose product with it is sign(y) (1 - exp(-|y|)) - t exp(-|y|): nothing
    overflows, however large u is.
    """
    log_scale = soft_bound(raw_log_scale, bound)
    grad_y, y = grad_y.contiguous(), y.contiguous()
    sign, magnitude = y.sign(), y.abs()
    at_y = torch.addcmul(grad_y, grad_logabsdet.unsqueeze(-1), sign, value=-1)
    slope = magnitude.neg_().exp()
    at_u = at_y * slope
    moved = torch.addcmul(sign.mul_(magnitude.expm1_().neg_()), shift.unsqueeze(1), slope, value=-1)
    grad_scale = (at_y * moved).sum(1) + grad_logabsdet.sum(1, keepdim=True)
    grads = torch.stack([_through_bound(grad_scale, raw_log_scale, bound), at_u.sum(1)])
    return at_u.mul_(log_scale.exp().unsqueeze(1)), grads


def inverse(y: Tensor, raw_log_scale: Tensor, shift: Tensor, bound: float, limit: float) -> tuple[Tensor, Tensor]:
    """x and log|det| of the inverse; beyond |y| = `limit` SymLog stays where it is there."""
    log_scale = soft_bound(raw_log_scale, bound)
    y = y.contiguous()
    magnitude = y.abs().clamp_max_(limit)
    logabsdet = magnitude.sum(-1) - log_scale.sum(-1, keepdim=True)
    u = magnitude.expm1_().copysign_(y)
    return u.sub_(shift.unsqueeze(1)).mul_(torch.exp(-log_scale).unsqueeze(1)), logabsdet


def inverse_backward(
    grad_x: Tensor,
    grad_logabsdet: Tensor,
    y: Tensor,
    raw_log_scale: Tensor,
    shift: Tensor,
    bound: float,
    limit: float,
) -> tuple[Tensor, Tensor]:
    """Gradients of y, and of raw_log_scale and shift together, (2, groups, dims), of the inverse."""
    shrink = torch.exp(-soft_bound(raw_log_scale, bound)).unsqueeze(1)
    grad_x, y = grad_x.contiguous(), y.contiguous()
    magnitude = y.abs()
    inside = magnitude <= limit
    magnitude = magnitude.clamp_max_(limit)
    at_u = grad_x * shrink
    at_y = torch.addcmul(at_u * magnitude.exp(), grad_logabsdet.unsqueeze(-1), y.sign())
    u = magnitude.expm1_().copysign_(y)
    grad_scale = -(at_u * (u - shift.unsqueeze(1))).sum(1) - grad_logabsdet.sum(1, keepdim=True)
    grads = torch.stack([_through_bound(grad_scale, raw_log_scale, bound), -at_u.sum(1)])
    return at_y.mul_(inside), grads


def _through_bound(grad: Tensor, raw_log_scale: Tensor, bound: float) -> Tensor:
    """The gradient at raw_log_scale from that at its soft bound."""
    return grad * (1 - torch.tanh(raw_log_scale / bound).square())
