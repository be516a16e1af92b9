"""`LeadingLattice`: a bijection with an exact Jacobian, whose first latents are a code that the others are given."""

from __future__ import annotations

import math

import pytest
import torch
from glow_images import check_jacobian, disturbed, grey
from tzk_plugin_glow.lattice import DENSITIES, GreyLevels, quarters
from tzk_plugin_glow.lead import INFORMED, LeadingLattice
from tzk_plugin_glow.multiscale import multiscale
from tzk_plugin_glow.network import ConvolutionalNet

from tzk_core.build import build_flow
from tzk_core.errors import TzkError
from tzk_core.model import SharedFlow
from tzk_core.transforms.composite import Composite
from tzk_core.transforms.reshape import Flatten


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def small(shape: tuple[int, ...] = (1, 8, 8), lead: int = 1, steps: int = 0, *, canvas: bool = False) -> SharedFlow:
    sizes = {"widths": [6], "blocks": [1], "components": 2, "coupling_width": 6, "summary": 4}
    return build_flow(shape, "multiscale", steps=steps, lead=lead, canvas=canvas, **sizes)


@pytest.mark.parametrize("density", DENSITIES)
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("rows", [1, 2])
def test_has_its_jacobian_and_comes_back(channels: int, rows: int, density: str) -> None:
    shape, half = (channels, 4, 4), (channels, 2, 2)
    inner = Composite([GreyLevels(half, 2, density=density), Flatten(half)])
    networks = {"components": 2, "width": 6, "blocks": 1, "summary": 4}
    layer = LeadingLattice(shape, inner, rows, density=density, **networks)
    layer.initialise(grey(shape, 20).float())
    check_jacobian(disturbed(layer), grey(shape))


@pytest.mark.parametrize("shape", [(1, 28, 28), (1, 32, 32), (3, 16, 8), (2, 6, 10), (1, 2, 2)])
def test_cuts_and_inverts_images(shape: tuple[int, ...]) -> None:
    flow = small(shape, steps=1)
    T = grey(shape, 8)
    flow.initialise(T.float())
    for type, tolerance in ((torch.float64, 1e-9), (torch.float32, 0.1 / 256)):
        flow.to(type)
        z, logabsdet = flow.encode(T.to(type))
        assert z.shape == (8, math.prod(shape)) and z.isfinite().all() and logabsdet.isfinite().all()
        torch.testing.assert_close(flow.transform.inverse(z)[0], T.to(type), rtol=0, atol=tolerance)


def test_the_density_integrates_to_one() -> None:
    """Two levels, 2×2 pixels, one of them set apart: over its noise, and so over its code, by quadrature."""
    flow = build_flow((1, 2, 2), "multiscale", widths=[6], blocks=[1], components=2, steps=0, levels=2, lead=1)
    disturbed(flow, 0.3)
    layer = next(each for each in flow.modules() if isinstance(each, LeadingLattice))
    with torch.no_grad():
        for parameter in layer.summary.last.parameters():
            parameter *= 0.05  # a code as narrow as e^-3 would be of noise that float64 cannot hold
    ticks = torch.linspace(-30, 30, 4001).double()
    noise = torch.sigmoid(ticks)  # the code of an image may be anywhere, so nodes are many at both ends
    weights = noise * (1 - noise) * (ticks[1] - ticks[0])
    total = 0.0
    for levels in torch.cartesian_prod(*[torch.arange(2)] * 4).view(-1, 1, 2, 2):
        T = (levels + 0.5).double().expand(len(noise), -1, -1, -1).clone()
        T[:, 0, 0, 1] = levels[0, 0, 1] + noise
        z, logabsdet = flow.encode(T / 2)
        total += ((flow.base.log_prob(z) + logabsdet).exp() @ weights).item() / 2**4
    assert total == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("canvas", [False, True])
def test_the_first_latents_are_a_code_that_all_pixels_follow(*, canvas: bool) -> None:
    flow = disturbed(small(canvas=canvas))
    T = grey((1, 8, 8))
    z, _ = flow.encode(T)
    moved = torch.cat([z[:, :4] + 2, z[:, 4:]], 1)
    image, _ = flow.transform.inverse(moved)
    quarter = (image - T).abs()[..., ::2, ::2]
    assert quarter.amax((1, 2, 3)).min() > 1e-4  # the coarsest pixels but the last are given the code
    torch.testing.assert_close(flow.encode(image)[0], moved, rtol=0, atol=1e-6)


def test_a_canvas_gives_every_place_a_shift_of_its_own_and_starts_with_none() -> None:
    arguments = {"zero": False, "last": 1, "places": (4, 4), "code": 3}
    plain, drawn = (ConvolutionalNet(1, 2, 6, canvas=canvas, **arguments) for canvas in (False, True))
    drawn.load_state_dict(plain.state_dict(), strict=False)
    inputs, code = torch.randn(5, 1, 4, 4), torch.randn(5, 3)
    assert torch.equal(drawn(inputs, code), plain(inputs, code))
    with torch.no_grad():
        drawn.canvas.weight.view(6, 4, 4, 3)[:, 0, 0] = torch.randn(6, 3)
    moved = (drawn(inputs, code) - plain(inputs, code)).abs().amax((0, 1)) > 0
    assert moved[:2, :2].all(), "the place, and those that the convolution of a block brings it to"
    assert not moved[2:].any() and not moved[:, 2:].any()


def test_the_code_sees_the_whole_image_but_the_pixels_set_apart_only_move_it() -> None:
    """∂u'/∂T is dense; of the pixels set apart it is diagonal, e^s times the slope of their own map."""
    inner = Composite([GreyLevels((1, 4, 4), 2), Flatten((1, 4, 4))])
    layer = disturbed(LeadingLattice((1, 8, 8), inner, 1, components=2, width=6, blocks=1))
    T = (grey((1, 8, 8), 1) * 256).round() / 256 + 0.5 / 256  # inside of its grey level, so that no feature jumps
    apart = T.clone()
    apart[..., 0, 1::2] += 0.25 / 256
    code, other = layer(T)[0][0, :4], layer(apart)[0][0, :4]
    assert ((other - code) > 0).all()
    brighter = T.clone()
    brighter[..., 5, 5] = 1 - brighter[..., 5, 5]
    assert ((layer(brighter)[0][0, :4] - code).abs() > 1e-6).all()


def test_starts_with_a_code_that_is_mostly_the_image_s() -> None:
    flow = small()
    T = grey((1, 8, 8), 512).float()
    flow.initialise(T)
    layer = next(each for each in flow.transform.modules() if isinstance(each, LeadingLattice))
    log_scale, t = layer._summarised(quarters(T))
    torch.testing.assert_close(t.var(0, correction=0), torch.full((4,), INFORMED), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(t.mean(0), torch.zeros(4), rtol=0, atol=1e-3)
    torch.testing.assert_close(log_scale.exp().square(), torch.full_like(t, 1 - INFORMED), rtol=1e-3, atol=1e-3)


def test_refuses_rows_that_are_not_there() -> None:
    for lead in (-1, 5):
        with pytest.raises(TzkError, match="0 to 4 rows of pixels lead"):
            multiscale((1, 8, 8), lead=lead)


@pytest.mark.slow
def test_compiles_as_one_graph_both_ways() -> None:
    flow = small(steps=1)
    T = grey((1, 8, 8)).float()
    flow.initialise(T)
    transform = flow.transform
    z, logabsdet = torch.compile(transform, fullgraph=True, backend="aot_eager")(T)
    expected, expected_logabsdet = transform(T)
    torch.testing.assert_close(z, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(logabsdet, expected_logabsdet, rtol=1e-4, atol=1e-3)
    (logabsdet.sum() + z.sum()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in transform.parameters())
    inverse = torch.compile(lambda each: transform.inverse(each)[0], fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(inverse(expected.detach()), T, rtol=0, atol=1e-4)
