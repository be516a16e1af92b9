"""What tests of layers share."""

from __future__ import annotations

import torch
from nflows.transforms.base import Transform


def perturbed(transform: Transform, by: float = 0.3) -> Transform:
    """Every parameter moved away from where it starts."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in transform.parameters():
            parameter += by * torch.randn(parameter.shape, generator=generator)
    return transform
