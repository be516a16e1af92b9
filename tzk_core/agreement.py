"""Whether a model computes the same with and without plugins' implementations, such as fused kernels."""

from __future__ import annotations

import torch
from torch import Tensor

from tzk_core.model import TzK

TOLERANCE = 1e-5
"""Largest relative difference at which two ways to compute in float32 agree."""


def agreement(plain: TzK, other: TzK, n: int = 64, *, seed: int = 0) -> dict[str, float]:
    """Relative differences of log p(T), its gradient, z, and T from z.

    The gradient is that of the mean of log p(T). Differences are taken on `n` samples of `plain`: the norm of the
    difference over the norm of `plain`'s result. Both models are on one device and of one type.
    """
    T = _inside(plain, plain.sample(n, seed=seed))
    ours, theirs = (_computed(model, T) for model in (plain, other))
    return {name: _difference(theirs[name], value) for name, value in ours.items()}


def as_it_is(model: TzK, device: torch.device, dtype: torch.dtype) -> TzK:
    """The model on a device with its own layers.

    `TzK.to` alone would take up plugins' implementations.
    """
    for part in model.children():
        part.to(device, dtype)
    return model


def _inside(model: TzK, T: Tensor) -> Tensor:
    """The samples, moved inside [0, 1], which rounding may have put them outside of."""
    with torch.no_grad():
        _, logabsdet = model.flow.encode(T)
    return T if logabsdet.isfinite().all() else T.clamp(1e-3, 1 - 1e-3)


def _computed(model: TzK, T: Tensor) -> dict[str, Tensor]:
    model.zero_grad(set_to_none=True)
    z, logabsdet = model.encode_with_logabsdet(T)
    log_prob = model.flow.base.log_prob(z) + logabsdet
    log_prob.mean().backward()
    gradients = [parameter.grad.flatten() for parameter in model.flow.parameters() if parameter.grad is not None]
    with torch.no_grad():
        restored = model.flow.transform.inverse(z)[0]
    model.zero_grad(set_to_none=True)
    return {"log p(T)": log_prob, "z": z, "gradient": torch.cat(gradients), "T from z": restored}


def _difference(actual: Tensor, expected: Tensor) -> float:
    return float((actual - expected).detach().double().norm() / expected.detach().double().norm().clamp_min(1e-300))
