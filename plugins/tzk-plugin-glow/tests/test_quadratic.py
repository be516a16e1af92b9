"""The density "quadratic-spline": continuous in T, with its own derivative and inverse, and knots from data."""

from __future__ import annotations

import math

import pytest
import torch
from glow_images import disturbed, grey
from pixel_map_laws import assert_increasing_map, line, log_density
from torch import Tensor
from tzk_plugin_glow.knots import tops_of
from tzk_plugin_glow.lattice import pixel_map
from tzk_plugin_glow.pixels import FLOOR
from tzk_plugin_glow.quadratic import QuadraticMap

import tzk_core
from tzk_core.build import build_flow, build_knowledge
from tzk_core.errors import TzkError
from tzk_core.model import SharedFlow, TzK


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def dark_images(levels: int, count: int = 2000) -> Tensor:
    """Pixels of which most are 0 and many are of one bright level, with noise in their cells."""
    level = torch.randint(levels, (count,))
    level[: count // 2] = 0
    level[count // 2 : 3 * count // 4] = levels - 3
    return ((level + torch.rand(count)) / levels).view(-1, 1, 1, 1)


def spline(components: int, levels: int, spread: float = 1.5) -> tuple[QuadraticMap, Tensor]:
    """A map fitted to data, and parameters of one element."""
    map = QuadraticMap(components, levels)
    map.fit(dark_images(levels))
    map.double()
    return map, (map.start() + spread * torch.randn(map.count)).double().view(1, -1, 1, 1, 1)


@pytest.mark.parametrize("components", [2, 3, 7, 32])
@pytest.mark.parametrize("levels", [2, 16, 256])
def test_is_an_increasing_map_with_its_own_derivative_and_inverse(components: int, levels: int) -> None:
    map, parameters = spline(components, levels)
    assert_increasing_map(map, line(3000), parameters, back_to=1e-10)


def test_the_density_integrates_to_one_by_its_knots() -> None:
    """Between knots it is linear: the trapezoid rule is exact."""
    map, parameters = spline(12, 256)
    knots = map.knots.unique().view(-1, 1, 1, 1)
    total = torch.trapezoid(log_density(map, knots, parameters).exp(), knots.flatten())
    assert total.item() == pytest.approx(1, abs=1e-9)


def test_in_float32_likely_values_come_back_to_a_fraction_of_a_grey_level() -> None:
    map, parameters = spline(32, 256)
    values = line(5000)
    likely = log_density(map, values, parameters) > math.log(0.05)
    map.float()
    parameters = parameters.float().expand(len(values), -1, -1, -1, -1)
    back, _ = map.inverse(map.forward(values.float(), parameters)[0], parameters)
    assert (256 * (back - values).abs().flatten()[likely]).max() < 0.05


def test_whatever_z_is_the_value_is_a_pixel() -> None:
    map, parameters = spline(8, 256, spread=6.0)
    z = torch.tensor([-torch.inf, -1e30, -40, -9, 0, 9, 40, 1e30, torch.inf]).double().view(-1, 1, 1, 1)
    values, _ = map.inverse(z, parameters.expand(len(z), -1, -1, -1, -1))
    assert values.isfinite().all() and (values >= 0).all() and (values <= 1).all()
    assert (values.flatten().diff() >= 0).all()


def test_nothing_is_impossible_whatever_the_network_says() -> None:
    map, _ = spline(8, 256)
    map.float()
    parameters = (1e4 * torch.randn(1, 8, 1, 1, 1)).requires_grad_()
    found = log_density(map, torch.linspace(0, 1, 1001).view(-1, 1, 1, 1), parameters)
    assert found.min() > math.log(FLOOR) - 1e-3
    found.sum().backward()
    assert parameters.grad is not None and parameters.grad.isfinite().all()


def untrained(lead: int = 0) -> SharedFlow:
    arguments = {"components": 8, "widths": [6], "blocks": [1], "steps": 0, "lead": lead}
    return build_flow((1, 8, 8), "multiscale", density="quadratic-spline", **arguments)


def small(lead: int = 0) -> SharedFlow:
    flow = untrained(lead)
    flow.initialise(grey((1, 8, 8), 200).float())
    return flow


@pytest.mark.parametrize("lead", [0, 1])
def test_the_density_of_images_is_continuous(lead: int) -> None:
    """On both sides of edges between grey levels; also where a pixel conditions others. Grey levels jump there."""
    flow = disturbed(small(lead))
    edges = torch.randint(-200, 256, (20, 1, 8, 8)).double().clamp_min(0.3) / 256
    edges[..., 0, 0] = 1 / 256
    below, above = (flow.log_prob(edges + step) for step in (-1e-10, 1e-10))
    torch.testing.assert_close(below, above, rtol=1e-6, atol=1e-4)


def test_starts_at_the_histogram_of_the_data() -> None:
    map = QuadraticMap(32, 256)
    map.fit(dark_images(256, 20_000))
    map.fit(line(100).float())
    parameters = map.start().double().view(1, -1, 1, 1, 1)
    map.double()
    inside = line(256 * 64)
    mass = log_density(map, inside, parameters).exp().view(256, 64).mean(1) / 256
    torch.testing.assert_close(mass[[0, 253]], torch.tensor([0.5, 0.25]).double(), rtol=0.03, atol=0)


def test_what_was_fitted_is_in_the_state() -> None:
    flow, other = small(), untrained()
    other.load_state_dict(flow.state_dict())
    T = grey((1, 8, 8)).float()
    assert torch.equal(other.log_prob(T), flow.log_prob(T))
    other.initialise(T)
    assert torch.equal(other.log_prob(T), flow.log_prob(T))


COUNTS = {
    "nothing": torch.zeros(64),
    "one level": torch.eye(64)[9] * 5,
    "the darkest": torch.eye(64)[0] * 5,
    "the brightest": torch.eye(64)[63] * 5,
    "even": torch.ones(64),
    "both ends": torch.ones(64) + 100 * (torch.eye(64)[0] + torch.eye(64)[63]),
    "neighbours": torch.ones(64) + torch.arange(64) * (torch.arange(64) > 50) * 10,
    "every second": (torch.arange(64) % 2).float() * 7,
}


@pytest.mark.parametrize("counts", COUNTS.values(), ids=COUNTS)
@pytest.mark.parametrize("components", [2, 3, 9, 40])
def test_tops_cover_the_line_in_order_with_ramps_between_them(counts: Tensor, components: int) -> None:
    tops = tops_of(counts.double(), components, 0.25) * 64
    assert tops.shape == (components, 2) and tops[0, 0] == 0 and tops[-1, 1] == 64
    assert (tops[:, 1] >= tops[:, 0]).all()
    assert (tops[1:, 0] - tops[:-1, 1]).min() > 1e-3


def test_heavy_levels_have_tops_of_their_own() -> None:
    counts = torch.ones(64).double()
    counts[[0, 30, 62, 63]] = torch.tensor([1000.0, 50, 300, 100]).double()
    tops = (tops_of(counts, 12, 0.25) * 64).tolist()
    assert [0, 1] in tops and [30, 31] in tops and [62, 63] in tops and [63.25, 64] in tops


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: QuadraticMap(1, 256), "at least two trapezoids"),
        (lambda: QuadraticMap(8, 100), "power of two"),
        (lambda: QuadraticMap(8, 256, ramp=0.0), "above 0 and at most 0.5"),
        (lambda: pixel_map("quadratic", 8, 256), "did you mean 'quadratic-spline'"),
    ],
)
def test_bad_arguments_are_refused(build: object, message: str) -> None:
    with pytest.raises(TzkError, match=message):
        build()  # type: ignore[operator]


def test_knowledge_learns_on_it_and_is_sampled_from() -> None:
    """With a code in front for it to be about."""
    arguments = {"components": 6, "widths": [6], "blocks": [1], "steps": 0, "lead": 1, "summary": 4}
    flow = build_flow((1, 4, 4), "multiscale", density="quadratic-spline", **arguments)
    model = TzK(
        flow, {name: build_knowledge("low-rank", flow.latent_shape, name=name, dims=2) for name in ("dark", "bright")}
    )
    T = grey((1, 4, 4), 64).float()
    dark = (torch.arange(64) % 2 == 0).float()
    T[dark == 1] /= 4
    history = tzk_core.fit(model, T, {"dark": dark, "bright": 1 - dark}, steps=3, batch_size=32)
    assert torch.as_tensor(history["objective"]).isfinite().all()
    samples = model.sample(5, "dark")
    assert samples.shape == (5, 1, 4, 4) and samples.min() >= 0 and samples.max() <= 1
    torch.testing.assert_close(model.decode(model.encode(T)), T, rtol=0, atol=1e-3)
