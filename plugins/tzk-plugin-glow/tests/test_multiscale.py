"""The recipe `multiscale` and its parts: laws of the discretised mixtures, of the lattices, and of the whole."""

from __future__ import annotations

import math

import pytest
import torch
from glow_images import check_jacobian, disturbed, grey
from torch import Tensor
from torch.distributions import Normal
from tzk_plugin_glow.greys import GreyMap
from tzk_plugin_glow.lattice import DENSITIES, GreyLevels, Lattice
from tzk_plugin_glow.multiscale import multiscale
from tzk_plugin_glow.pixels import FLOOR

from tzk_core.build import build_flow
from tzk_core.errors import TzkError
from tzk_core.testing import check_transform
from tzk_core.transforms.composite import Composite
from tzk_core.transforms.reshape import Flatten


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def mixture(components: int, levels: int, spread: float = 1.5) -> tuple[GreyMap, Tensor]:
    """A map and parameters of one element, some of its logistics narrower than a grey level."""
    map = GreyMap(components, levels)
    parameters = map.start() + spread * torch.randn(map.count)
    parameters[-components:] -= 3
    return map, parameters.double().view(1, -1, 1, 1, 1)


def every_level(levels: int, noise: float = 0.5) -> Tensor:
    return ((torch.arange(levels) + noise) / levels).double().view(-1, 1, 1, 1)


def log_density(map: GreyMap, values: Tensor, parameters: Tensor) -> Tensor:
    z, logabsdet = map.forward(values, parameters)
    return (Normal(0.0, 1.0).log_prob(z) + logabsdet).flatten()


@pytest.mark.parametrize("levels", [2, 8, 256])
def test_is_the_discretised_mixture_of_logistics(levels: int) -> None:
    map, parameters = mixture(3, levels)
    weights, means, log_scales = parameters.flatten().view(3, 3)
    edges = (torch.arange(1, levels) * 2 - levels).double() / (levels - 1)  # between the levels, over [-1, 1]
    bounded = 7 * torch.tanh(log_scales / 7)
    cdf = (weights.softmax(0) * torch.sigmoid((edges[:, None] - means) * torch.exp(-bounded))).sum(1)
    zero, one = edges.new_zeros(1), edges.new_ones(1)
    probability = (1 - FLOOR) * torch.diff(torch.cat([zero, cdf, one])) + FLOOR / levels
    found = log_density(map, every_level(levels), parameters).exp() / levels
    torch.testing.assert_close(found, probability, rtol=1e-9, atol=1e-13)
    assert found.sum().item() == pytest.approx(1, abs=1e-12)


def test_uniform_noise_costs_nothing() -> None:
    """The density is that of the grey level, wherever in its cell the noise is."""
    map, parameters = mixture(3, 16)
    reference = log_density(map, every_level(16), parameters)
    for noise in (1e-4, 0.1, 0.999):
        torch.testing.assert_close(log_density(map, every_level(16, noise), parameters), reference, rtol=0, atol=1e-9)


def test_is_an_increasing_map_with_its_own_derivative() -> None:
    map, parameters = mixture(4, 8)
    values = ((torch.arange(8 * 50) + 0.5) / 400).double().view(-1, 1, 1, 1).requires_grad_()
    z, logabsdet = map.forward(values, parameters)
    slope = torch.autograd.grad(z.sum(), values)[0]
    torch.testing.assert_close(slope.log(), logabsdet, rtol=0, atol=1e-8)
    assert (z.flatten().diff() > 0).all()


@pytest.mark.parametrize(("type", "tolerance", "least"), [(torch.float64, 1e-8, 0.0), (torch.float32, 0.1, 1e-5)])
def test_comes_back_to_the_same_level(type: torch.dtype, tolerance: float, least: float) -> None:
    """To within `tolerance` of a grey level; in float32 that holds for levels of a probability of 1e-5 or more, as
    smaller ones are a rounding of F wide."""
    map, parameters = mixture(5, 256)
    values = torch.cat([every_level(256, noise) for noise in (0.01, 0.5, 0.99)]).to(type)
    likely = log_density(map, values, parameters.to(type)) >= math.log(256 * least) if least else slice(None)
    z, logabsdet = map.forward(values, parameters.to(type))
    back, inverse_logabsdet = map.inverse(z, parameters.to(type))
    torch.testing.assert_close((256 * back)[likely], (256 * values)[likely], rtol=0, atol=tolerance)
    torch.testing.assert_close(inverse_logabsdet[likely], -logabsdet[likely], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("type", [torch.float64, torch.float32])
def test_whatever_z_is_the_value_is_a_grey_level(type: torch.dtype) -> None:
    map, parameters = mixture(5, 256, spread=6.0)
    z = torch.tensor([-torch.inf, -1e30, -40, -9, 0, 9, 40, 1e30, torch.inf], dtype=type).view(-1, 1, 1, 1)
    values, _ = map.inverse(z, parameters.to(type))
    assert values.isfinite().all() and (values > 0).all() and (values < 1).all()
    assert (values.flatten().diff() >= 0).all()


def test_no_grey_level_is_impossible() -> None:
    """The share that is uniform bounds z and the cost, in float32, where logistics are narrow and far away."""
    map = GreyMap(1, 256)
    parameters = torch.tensor([0.0, 0.9, -50.0]).view(1, 3, 1, 1, 1)
    values = every_level(256, 0.5).float()
    z, _ = map.forward(values, parameters)
    found = log_density(map, values, parameters) - math.log(256)
    assert z.abs().max() < 8 and found.min() > math.log(FLOOR / 256) - 1e-3
    parameters.requires_grad_()
    log_density(map, values, parameters).sum().backward()
    assert parameters.grad is not None and parameters.grad.isfinite().all()


@pytest.mark.parametrize("density", DENSITIES)
def test_elements_by_themselves(density: str) -> None:
    layer = disturbed(GreyLevels((2, 3, 3), 3, 16, density=density))
    T = grey((2, 3, 3))
    check_jacobian(layer, T)
    check_transform(GreyLevels((1, 3, 3), 3, 16, density=density), grey((1, 3, 3)).float())


@pytest.mark.parametrize("density", DENSITIES)
@pytest.mark.parametrize("flat", [True, False])
@pytest.mark.parametrize("channels", [1, 2])
def test_a_lattice_has_its_jacobian_and_comes_back(channels: int, density: str, *, flat: bool) -> None:
    shape, half = (channels, 4, 4), (channels, 2, 2)
    pixels = GreyLevels(half, 2, density=density)
    inner = Composite([pixels, Flatten(half)]) if flat else pixels
    layer = Lattice(shape, inner, 2, width=6, blocks=1, density=density, flat=flat)
    layer.initialise(grey(shape, 20).float())
    disturbed(layer)
    T = grey(shape)
    check_jacobian(layer, T)
    assert layer(T)[0].shape[1:] == layer.output_shape


def test_all_grey_levels_of_a_tiny_image_have_probabilities_that_sum_to_one() -> None:
    """Two levels, 2×2 pixels: sixteen images, by brute force. The flow has no steps, so that it is exact."""
    flow = build_flow((1, 2, 2), "multiscale", widths=[6], blocks=[1], components=2, steps=0, levels=2)
    disturbed(flow, 0.5)
    levels = torch.cartesian_prod(*[torch.arange(2)] * 4).view(-1, 1, 2, 2)
    T = ((levels + 0.1 + 0.8 * torch.rand(levels.shape)) / 2).double()
    z, logabsdet = flow.encode(T)
    probability = (flow.base.log_prob(z) + logabsdet).exp() / 2**4
    assert probability.sum().item() == pytest.approx(1, abs=1e-9)
    assert probability.std() > 1e-3


@pytest.mark.parametrize("density", DENSITIES)
@pytest.mark.parametrize("shape", [(1, 28, 28), (1, 32, 32), (3, 16, 8), (1, 2, 2), (2, 6, 10)])
def test_cuts_and_inverts_images(shape: tuple[int, ...], density: str) -> None:
    arguments = {"widths": [6], "blocks": [1], "components": 4, "steps": 2, "coupling_width": 6}
    flow = build_flow(shape, "multiscale", density=density, **arguments)
    T = grey(shape)
    flow.initialise(T.float())
    for type, tolerance in ((torch.float64, 1e-9), (torch.float32, 0.1 / 256)):
        flow.to(type)
        z, logabsdet = flow.encode(T.to(type))
        assert z.shape == (3, math.prod(shape)) and z.isfinite().all() and logabsdet.isfinite().all()
        torch.testing.assert_close(flow.transform.inverse(z)[0], T.to(type), rtol=0, atol=tolerance)


def test_the_coarse_latents_come_first_and_alone_decide_every_second_pixel() -> None:
    flow = build_flow((1, 8, 8), "multiscale", widths=[6], blocks=[1], components=2, steps=2, coupling_width=6)
    disturbed(flow)
    T = grey((1, 8, 8))
    z, _ = flow.encode(T)
    other = torch.cat([z[:, :16], torch.randn_like(z[:, 16:])], 1)
    image, _ = flow.transform.inverse(other)
    torch.testing.assert_close(image[..., ::2, ::2], T[..., ::2, ::2], rtol=0, atol=1e-9)
    assert (image - T).abs().max() > 0.1


def test_noise_in_the_cells_of_some_pixels_moves_no_other() -> None:
    flow = build_flow((1, 8, 8), "multiscale", widths=[6], blocks=[1], components=2, steps=0)
    disturbed(flow)
    T = grey((1, 8, 8))
    moved = ((T * 256).floor() + 0.5) / 256
    z, logabsdet = flow.encode(T)
    z_moved, logabsdet_moved = flow.encode(moved)
    torch.testing.assert_close(
        flow.base.log_prob(z) + logabsdet, flow.base.log_prob(z_moved) + logabsdet_moved, rtol=0, atol=1e-7
    )


def test_refuses_what_it_cannot_cut() -> None:
    for shape in ((784,), (1, 5, 4), (1, 4, 7)):
        with pytest.raises(TzkError, match="of even sides; got"):
            multiscale(shape)
    with pytest.raises(TzkError, match="at least one lattice"):
        multiscale((1, 4, 4), widths=())
    with pytest.raises(TzkError, match="power of two"):
        multiscale((1, 4, 4), levels=100)


@pytest.mark.slow
def test_compiles_as_one_graph_both_ways() -> None:
    flow = build_flow((1, 8, 8), "multiscale", widths=[6], blocks=[1], components=2, steps=1, coupling_width=6)
    T = grey((1, 8, 8)).float()
    flow.initialise(T)
    transform = flow.transform
    compiled = torch.compile(transform, fullgraph=True, backend="aot_eager")
    z, logabsdet = compiled(T)
    expected, expected_logabsdet = transform(T)
    torch.testing.assert_close(z, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(logabsdet, expected_logabsdet, rtol=1e-4, atol=1e-3)
    logabsdet.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in transform.parameters())
    inverse = torch.compile(lambda each: transform.inverse(each)[0], fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(inverse(expected.detach()), T, rtol=0, atol=1e-4)
