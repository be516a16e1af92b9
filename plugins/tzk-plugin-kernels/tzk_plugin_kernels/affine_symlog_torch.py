"""Element-wise affine map, SymLog and log-determinant in plain torch: the definition.

x and y are (groups, batch, dims), raw_log_scale and shift (groups, dims). With s = bound · tanh(raw / bound) and
u = x exp(s) + t, y = sign(u) log(1 + |u|). log|det| = Σ s - Σ |y|, (groups, batch).

With a knee, y is linear in u beyond |u| = knee, that is beyond |y| = L = log(1 + knee), with the slope exp(-L) that it
has there. So |y| = L + (|u| - knee) exp(-L), and log|det| = Σ s - Σ min(|y|, L). A knee of 0 stands for none, as in the
core's `SymLog`.
"""

# ruff: noqa: PLR0917 - the signatures are those of the operators, which torch calls by position.

from __future__ import annotations

import math

import torch
from torch import Tensor

from tzk_core.transforms.bounds import soft_bound


def forward(x: Tensor, raw_log_scale: Tensor, shift: Tensor, bound: float, knee: float) -> tuple[Tensor, Tensor]:
    """y and log|det|."""
    log_scale = soft_bound(raw_log_scale, bound)
    u = torch.addcmul(shift.unsqueeze(1), x.contiguous(), log_scale.exp().unsqueeze(1))
    magnitude = u.abs()
    if knee:
        inside = magnitude.clamp_max(knee)
        log_shrink = inside.log1p()
        magnitude = torch.add(log_shrink, magnitude.sub_(inside), alpha=1 / (1 + knee))
    else:
        magnitude = log_shrink = magnitude.log1p_()
    logabsdet = log_scale.sum(-1, keepdim=True) - log_shrink.sum(-1)
    return magnitude.copysign_(u), logabsdet


def backward(
    grad_y: Tensor,
    grad_logabsdet: Tensor,
    y: Tensor,
    raw_log_scale: Tensor,
    shift: Tensor,
    bound: float,
    knee: float,
) -> tuple[Tensor, Tensor]:
    """Gradients of x, and of raw_log_scale and shift, (2, groups, dims), from outputs.

    With m = min(|y|, L), or |y| without a knee, dy/du = exp(-m). Its product with x exp(s) = u - t is
    sign(y) (1 - exp(-m) + |y| - m) - t exp(-m): nothing overflows, however large u is.
    """
    log_scale = soft_bound(raw_log_scale, bound)
    grad_y, y = grad_y.contiguous(), y.contiguous()
    sign, magnitude = y.sign(), y.abs()
    inside = magnitude.clamp_max(math.log1p(knee)) if knee else magnitude
    beyond = magnitude - inside if knee else None
    of_shrink = sign * (magnitude < math.log1p(knee)) if knee else sign
    at_y = torch.addcmul(grad_y, grad_logabsdet.unsqueeze(-1), of_shrink, value=-1)
    slope = inside.neg_().exp()
    at_u = at_y * slope
    curved = inside.expm1_().neg_()
    if beyond is not None:
        curved += beyond
    moved = torch.addcmul(sign.mul_(curved), shift.unsqueeze(1), slope, value=-1)
    grad_scale = (at_y * moved).sum(1) + grad_logabsdet.sum(1, keepdim=True)
    grads = torch.stack([_through_bound(grad_scale, raw_log_scale, bound), at_u.sum(1)])
    return at_u.mul_(log_scale.exp().unsqueeze(1)), grads


def inverse(
    y: Tensor, raw_log_scale: Tensor, shift: Tensor, bound: float, limit: float, knee: float
) -> tuple[Tensor, Tensor]:
    """x and log|det| of the inverse; without a knee SymLog ends at |y| = `limit`."""
    log_scale = soft_bound(raw_log_scale, bound)
    y = y.contiguous()
    u, inside = _inverse_symlog(y, limit, knee)
    logabsdet = inside.sum(-1) - log_scale.sum(-1, keepdim=True)
    return u.sub_(shift.unsqueeze(1)).mul_(torch.exp(-log_scale).unsqueeze(1)), logabsdet


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
    """Gradients of y, and of raw_log_scale and shift, (2, groups, dims), of the inverse.

    du/dy = exp(m), on both sides of a knee; without one it is 0 beyond `limit`.
    """
    shrink = torch.exp(-soft_bound(raw_log_scale, bound)).unsqueeze(1)
    grad_x, y = grad_x.contiguous(), y.contiguous()
    u, inside = _inverse_symlog(y, limit, knee)
    curved = y.abs() <= (math.log1p(knee) if knee else limit)
    at_u = grad_x * shrink
    if knee:
        at_y = torch.addcmul(at_u * inside.exp_(), grad_logabsdet.unsqueeze(-1), y.sign().mul_(curved))
    else:
        at_y = torch.addcmul(at_u * inside.exp_(), grad_logabsdet.unsqueeze(-1), y.sign()).mul_(curved)
    grad_scale = -(at_u * (u - shift.unsqueeze(1))).sum(1) - grad_logabsdet.sum(1, keepdim=True)
    grads = torch.stack([_through_bound(grad_scale, raw_log_scale, bound), -at_u.sum(1)])
    return at_y, grads


def _inverse_symlog(y: Tensor, limit: float, knee: float) -> tuple[Tensor, Tensor]:
    """u, and log du/dy, of the inverse of SymLog."""
    magnitude = y.abs()
    inside = magnitude.clamp_max(math.log1p(knee) if knee else limit)
    u = inside.expm1()
    if knee:
        u.add_(magnitude.sub_(inside), alpha=1 + knee)
    return u.copysign_(y), inside


def _through_bound(grad: Tensor, raw_log_scale: Tensor, bound: float) -> Tensor:
    """The gradient at raw_log_scale from that at its soft bound."""
    return grad * (1 - torch.tanh(raw_log_scale / bound).square())
