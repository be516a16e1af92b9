"""The map of a mixture-of-logistics coupling in plain torch, and its backward.

Its definition is `tzk_plugin_glow`'s. x is (batch, n), parameters are (batch, 3 K + 2, n): logits, means and raw
log-scales of K logistics, then raw log-scale and shift of the affine map. y and the logarithm of dy/dx are (batch, n).
"""

# ruff: noqa: PLR0917 - the signatures are those of the operators, which torch calls by position.

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

    Let A = log F, S = log(1 - F) and D = log f. Then y = (A - S) exp(a) + b and log dy/dx = D - A - S + a. A, S and D
    are log-sum-exps over the logistics; their shares, p, q and r, are the derivatives.
    """
    logits, means, raw = parameters[:, :-2].chunk(3, 1)
    squashed, squashed_affine = torch.tanh(raw / bound), torch.tanh(parameters[:, -2] / (bound / 2))
    shrink = torch.exp(-bound * squashed)
    standard = (x.unsqueeze(1) - means) * shrink
    below = functional.logsigmoid(standard)
    above = below - standard
    log_weights = functional.log_softmax(logits, 1)
    log_cdfs, log_survivals = log_weights + below, log_weights + above
    log_densities = log_weights - bound * squashed + below + above
    A, S, D = (torch.logsumexp(terms, 1) for terms in (log_cdfs, log_survivals, log_densities))

    scale = torch.exp(bound / 2 * squashed_affine)
    grad_logit = grad_y * scale
    grad_A, grad_S, grad_D = grad_logit - grad_log_slope, -grad_logit - grad_log_slope, grad_log_slope
    p = grad_A.unsqueeze(1) * torch.exp(log_cdfs - A.unsqueeze(1))
    q = grad_S.unsqueeze(1) * torch.exp(log_survivals - S.unsqueeze(1))
    r = grad_D.unsqueeze(1) * torch.exp(log_densities - D.unsqueeze(1))
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
