"""The map of a mixture-of-logistics coupling in plain torch, whose definition is `tzk_plugin_glow`'s, and its backward.

x is (batch, n), parameters are (batch, 3 K + 2, n): logits, means and raw log-scales of K logistics, then raw log-scale
and shift of the affine map. y and the logarithm of dy/dx are (batch, n).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional
from tzk_plugin_glow.mixture import MixtureMap


def forward(x: Tensor, parameters: Tensor, bound: float) -> tuple[Tensor, Tensor]:
    """y and log dy/dx."""
    return _map(parameters, bound).forward(x.contiguous(), parameters.contiguous())


def inverse(y: Tensor, parameters: Tensor, bound: float) -> tuple[Tensor, Tensor]:
    """x and log dx/dy."""
    return _map(parameters, bound).inverse(y.contiguous(), parameters.contiguous())


def backward(
    grad_y: Tensor, grad_log_slope: Tensor, x: Tensor, parameters: Tensor, bound: float
) -> tuple[Tensor, Tensor]:
    """Gradients of x and of the parameters, from the inputs alone.

    With A = log F, S = log(1 - F), D = log f and y = (A - S) exp(a) + b, log dy/dx = D - A - S + a, each of A, S and D
    is a log-sum-exp over the logistics; their shares of it, p, q and r, are its derivatives.
    """
    logits, means, raw = parameters[:, :-2].chunk(3, 1)
    squashed, squashed_affine = torch.tanh(raw / bound), torch.tanh(parameters[:, -2] / (bound / 2))
    shrink = torch.exp(-bound * squashed)
    standard = (x.unsqueeze(1) - means) * shrink
    below = functional.logsigmoid(standard)
    above = below - standard
    log_weights = functional.log_softmax(logits, 1)
    of_below, of_above = log_weights + below, log_weights + above
    of_density = log_weights - bound * squashed + below + above
    A, S, D = (torch.logsumexp(each, 1) for each in (of_below, of_above, of_density))

    scale = torch.exp(bound / 2 * squashed_affine)
    grad_logit = grad_y * scale
    grad_A, grad_S, grad_D = grad_logit - grad_log_slope, -grad_logit - grad_log_slope, grad_log_slope
    p = grad_A.unsqueeze(1) * torch.exp(of_below - A.unsqueeze(1))
    q = grad_S.unsqueeze(1) * torch.exp(of_above - S.unsqueeze(1))
    r = grad_D.unsqueeze(1) * torch.exp(of_density - D.unsqueeze(1))
    F, rest = below.exp(), above.exp()
    grad_standard = p * rest - q * F + r * (rest - F)
    grad_means = -grad_standard * shrink
    grad_raw = -(grad_standard * standard + r) * (1 - squashed.square())
    grad_logits = p + q + r - log_weights.exp() * (p + q + r).sum(1, keepdim=True)
    grad_affine = (grad_logit * (A - S) + grad_log_slope) * (1 - squashed_affine.square())
    rows = [grad_logits, grad_means, grad_raw, grad_affine.unsqueeze(1), grad_y.unsqueeze(1)]
    return -grad_means.sum(1), torch.cat(rows, 1)


def _map(parameters: Tensor, bound: float) -> MixtureMap:
    return MixtureMap((parameters.shape[1] - 2) // 3, bound)
