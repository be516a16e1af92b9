"""Images and layers for the tests of lattices, and what every one of these layers has to fulfil."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor


def grey(shape: tuple[int, ...], batch: int = 3) -> Tensor:
    """Images of grey levels with noise in their cells, half of them dark."""
    levels = torch.randint(-255, 256, (batch, *shape)).clamp_min(0)
    return ((levels + 0.02 + 0.96 * torch.rand(levels.shape)) / 256).double()


def disturbed(transform: torch.nn.Module, by: float = 0.2) -> torch.nn.Module:
    """In float64, away from where it starts."""
    with torch.no_grad():
        for parameter in transform.parameters():
            parameter += by * torch.randn_like(parameter)
    return transform.double()


def check_jacobian(layer: torch.nn.Module, T: Tensor) -> None:
    z, logabsdet = layer(T)
    jacobian = torch.autograd.functional.jacobian(lambda each: layer(each)[0].flatten(1).sum(0), T)
    for row in range(len(T)):
        whole = jacobian[:, row].flatten(1)
        assert torch.linalg.slogdet(whole)[1].item() == pytest.approx(logabsdet[row].item(), abs=1e-7)
    back, inverse_logabsdet = layer.inverse(z)
    torch.testing.assert_close(back, T, rtol=0, atol=1e-9)
    torch.testing.assert_close(inverse_logabsdet, -logabsdet, rtol=0, atol=1e-7)
