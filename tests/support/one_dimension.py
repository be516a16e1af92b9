"""A model of one dimension, in which densities are integrated by quadrature."""

from __future__ import annotations

import torch
from torch import Tensor

from tzk_core.build import build_flow, build_knowledge
from tzk_core.model import TzK


def one_dimensional() -> TzK:
    model = TzK(build_flow((1,), layers=[{"type": "affine"}, {"type": "symlog"}, {"type": "affine"}]))
    model.add("k0", build_knowledge("gaussian", (1,), hidden=6, layers=3))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.15 * torch.randn(parameter.shape, generator=generator)
    return model.double()


def grid_in_t(model: TzK, points: int) -> Tensor:
    """Points T in R, (points,), whose z are evenly spaced: T has the exponential tails of SymLog's inverse."""
    z = torch.linspace(-30, 30, points, dtype=torch.float64)
    return model.decode(z[:, None]).detach()[:, 0].sort().values
