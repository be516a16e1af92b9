"""Laws of maps of pixels, whatever their density."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Normal
from tzk_plugin_glow.pixels import PixelMap


def line(count: int) -> Tensor:
    """So many values of one pixel, evenly in (0, 1)."""
    return ((torch.arange(count) + 0.5) / count).double().view(-1, 1, 1, 1)


def log_density(map: PixelMap, values: Tensor, parameters: Tensor) -> Tensor:
    """log p of values, (n,), by the parameters of one element."""
    z, logabsdet = map.forward(values, parameters.expand(len(values), *parameters.shape[1:]))
    return (Normal(0.0, 1.0).log_prob(z) + logabsdet).flatten()


def assert_increasing_map(map: PixelMap, values: Tensor, parameters: Tensor, *, back_to: float) -> None:
    """z increases, log|dz/dT| is that of autograd, and the inverse comes back to T.

    Args:
        values: increasing, (n, 1, 1, 1) in float64.
        parameters: (1, count, 1, 1, 1).
        back_to: how far from T the inverse may end.
    """
    values = values.requires_grad_()
    parameters = parameters.expand(len(values), -1, -1, -1, -1)
    z, logabsdet = map.forward(values, parameters)
    slope = torch.autograd.grad(z.sum(), values)[0]
    torch.testing.assert_close(slope.log(), logabsdet, rtol=0, atol=1e-8)
    assert (z.flatten().diff() > 0).all()
    back, inverse_logabsdet = map.inverse(z.detach(), parameters)
    torch.testing.assert_close(back, values.detach(), rtol=0, atol=back_to)
    torch.testing.assert_close(inverse_logabsdet, -logabsdet.detach(), rtol=0, atol=1e-6)
