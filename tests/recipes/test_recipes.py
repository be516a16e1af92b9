"""The paper's flow has the paper's layers, shapes and parameters; flow steps cost what is said of them."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from tzk_core.build import build_flow
from tzk_core.errors import TzkError
from tzk_core.recipes.paper import flow_steps, paper
from tzk_core.transforms.affine import Affine
from tzk_core.transforms.layer import Layer
from tzk_core.transforms.logit import Logit
from tzk_core.transforms.reshape import Rearrangement
from tzk_core.transforms.squeeze import Squeeze, Unsqueeze
from tzk_core.transforms.symlog import SymLog
from tzk_core.transforms.tiled_convolution import TiledConvolution


def layers_of(flow: torch.nn.Module) -> list[Layer]:
    return [module for module in flow.modules() if isinstance(module, Layer)]


def test_the_paper_takes_10_steps_of_16x16_tiles_on_32x32_images() -> None:
    flow = paper((1, 32, 32))
    step = [TiledConvolution, Affine, SymLog]
    assert [type(layer) for layer in layers_of(flow)] == [
        Logit,
        *[Squeeze, *step],
        *[Rearrangement, *step] * 9,
        *[Unsqueeze, Affine],
    ]
    for layer in layers_of(flow):
        if isinstance(layer, TiledConvolution):
            assert layer.tile == (1, 16, 16) and layer.weight().shape == (256, 256)
            assert layer.tiles == (4, 1, 1), "a tile is a channel"
    step_parameters = 256 * 256 + 256 + 2 * 1024
    assert sum(p.numel() for p in flow.parameters()) == 10 * step_parameters + 2 * 1024
    z, logabsdet = flow(torch.rand(2, 1, 32, 32))
    assert z.shape == (2, 1, 32, 32) and logabsdet.shape == (2,)


@pytest.mark.parametrize("shape", [(1, 8, 8), (2, 8, 4)])
def test_the_first_step_mixes_neighbours(shape: tuple[int, ...]) -> None:
    """Those of a tile, whether the image is squeezed for it or, as where it is not square, cut by the convolution."""
    tile = 4 if shape[1] == shape[2] else 2
    one_step = paper(shape, steps=1, tile=tile, initialisation="orthogonal").double()
    x = torch.rand(1, *shape, dtype=torch.float64, requires_grad=True)
    for row, column in ((0, 0), (5, 3), (7, 2)):
        (gradient,) = torch.autograd.grad(one_step(x)[0][0, 0, row, column], x)
        rows, columns = row // tile * tile, column // tile * tile
        expected = torch.zeros(shape, dtype=torch.bool)
        expected[0, rows : rows + tile, columns : columns + tile] = True
        assert torch.equal(gradient[0] != 0, expected)


def test_two_steps_carry_every_pixel_to_every_dimension() -> None:
    """A step mixes within tiles, of neighbours and of strided pixels in turn: of four tiles two do."""
    flow = paper((1, 8, 8), steps=2, tile=4, initialisation="orthogonal").double()
    x = torch.rand(1, 1, 8, 8, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(flow(x)[0][0, 0, 0, 0], x)
    assert (gradient != 0).all()


@pytest.mark.parametrize("shape", [(5,), (1, 4, 4), (3, 8, 4)])
@pytest.mark.parametrize("initialisation", ["identity", "orthogonal"])
def test_any_shape_of_vector_or_image_keeps_its_shape(shape: tuple[int, ...], initialisation: str) -> None:
    flow = build_flow(shape, steps=3, tile=2, initialisation=initialisation)
    assert flow.latent_shape == shape
    T = torch.rand(2, *shape)
    z, _ = flow.encode(T)
    assert z.shape == T.shape
    torch.testing.assert_close(flow.transform.inverse(z)[0], T, rtol=0, atol=1e-4)


def test_tiles_that_do_not_fit_are_refused() -> None:
    with pytest.raises(TzkError, match=r"tile = 16 does not cut images of 28 x 28 .*expected one of 1, 2, 7, 14"):
        build_flow((1, 28, 28))


def cost(steps: int, gain: float, knee: float) -> float:
    """KL(N(0, 1), what fresh flow steps make of N(0, 1)), in nats of one dimension, by quadrature."""
    x: Tensor = torch.linspace(-12, 12, 20001, dtype=torch.float64)
    z, logabsdet = flow_steps((1,), steps, 1, gain=gain, knee=knee).double()(x[:, None])
    log_normal = -0.5 * (x**2 + math.log(2 * math.pi))
    log_flow = -0.5 * (z[:, 0] ** 2 + math.log(2 * math.pi)) + logabsdet
    return torch.trapezoid(log_normal.exp() * (log_normal - log_flow), x).item()


def test_flow_steps_start_near_the_identity_at_the_cost_that_their_docstring_gives() -> None:
    for knee in (0.0, 1.0):
        assert cost(steps=4, gain=0.03, knee=knee) == pytest.approx(0.003, abs=0.0005)
    assert cost(steps=4, gain=1.0, knee=0.0) == pytest.approx(0.35, abs=0.005)
    assert cost(steps=4, gain=1.0, knee=1.0) < 0.35


@pytest.mark.parametrize("knee", [0.0, 0.5, 1.0])
def test_flow_steps_are_a_density(knee: float) -> None:
    x = torch.linspace(-60, 60, 60001, dtype=torch.float64)
    z, logabsdet = flow_steps((1,), 4, 1, knee=knee).double()(x[:, None])
    density = torch.exp(-0.5 * (z[:, 0] ** 2 + math.log(2 * math.pi)) + logabsdet)
    assert torch.trapezoid(density, x).item() == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("steps", [1, 4, 8])
def test_flow_steps_keep_the_scale_of_a_gaussian(steps: int) -> None:
    z, _ = flow_steps((1000,), steps, 1)(torch.randn(50, 1000, generator=torch.Generator().manual_seed(0)))
    assert z.std().item() == pytest.approx(1.0, abs=0.02)
