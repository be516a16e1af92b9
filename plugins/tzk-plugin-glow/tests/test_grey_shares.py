"""The density "grey-shares": exact probabilities of grey levels, linear between knots that come from data."""

from __future__ import annotations

import math

import pytest
import torch
from glow_images import disturbed, grey
from pixel_map_laws import assert_increasing_map, line, log_density
from torch import Tensor
from torch.distributions import Normal
from tzk_plugin_glow.grey_shares import FLAGS, GreyShares
from tzk_plugin_glow.knots import knots_of
from tzk_plugin_glow.lattice import pixel_map
from tzk_plugin_glow.pixels import FLOOR

import tzk_core
from tzk_core.build import build_flow, build_knowledge
from tzk_core.errors import TzkError
from tzk_core.model import TzK

SIZES = [(2, 2), (2, 8), (5, 8), (8, 8), (12, 256), (256, 256)]
"""Components and levels."""


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def dark_images(levels: int, count: int = 20_000) -> Tensor:
    """Pixels of which half are 0 and a quarter of one bright level, with noise in their cells."""
    level = torch.randint(levels, (count,))
    level[: count // 2] = 0
    level[count // 2 : 3 * count // 4] = max(levels - 3, 1)
    return ((level + torch.rand(count)) / levels).view(-1, 1, 1, 1)


def shares(components: int, levels: int, spread: float = 1.5) -> tuple[GreyShares, Tensor]:
    """A map fitted to data, and parameters of one element."""
    map = GreyShares(components, levels)
    map.fit(dark_images(levels))
    map.double()
    return map, (spread * torch.randn(map.count)).double().view(1, -1, 1, 1, 1)


def every_level(levels: int, noise: float = 0.5) -> Tensor:
    return ((torch.arange(levels) + noise) / levels).double().view(-1, 1, 1, 1)


def expected(map: GreyShares, parameters: Tensor) -> Tensor:
    """The probabilities of all levels, by components that are written out, (levels,)."""
    knots = map.knots.tolist()
    tents = torch.zeros(map.count, map.levels).double()
    for number, knot in enumerate(knots):
        before = knots[number - 1] if number else knot - 1
        after = knots[number + 1] if number + 1 < len(knots) else knot + 1
        for level in range(map.levels):
            rise, fall = (level - before) / (knot - before), (after - level) / (after - knot)
            tents[number, level] = max(0.0, min(rise, fall, 1.0))
    weights = torch.softmax(parameters.flatten() + map.shares.log(), 0)
    mixed = weights @ (tents / tents.sum(1, keepdim=True))
    return (1 - FLOOR) * mixed + FLOOR / map.levels


@pytest.mark.parametrize(("components", "levels"), SIZES)
def test_probabilities_are_those_of_the_mixture_and_sum_to_one(components: int, levels: int) -> None:
    map, parameters = shares(components, levels)
    found = log_density(map, every_level(levels), parameters).exp() / levels
    torch.testing.assert_close(found, expected(map, parameters), rtol=1e-9, atol=1e-13)
    assert found.sum().item() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize(("components", "levels"), SIZES)
def test_samples_have_these_probabilities(components: int, levels: int) -> None:
    """Quantiles of equally many Gaussians below and above each other."""
    map, parameters = shares(components, levels)
    number = 20_000
    z = Normal(0.0, 1.0).icdf(((torch.arange(number) + 0.5) / number).double()).view(-1, 1, 1, 1)
    values, _ = map.inverse(z, parameters.expand(number, -1, -1, -1, -1))
    counts = torch.bincount((values.flatten() * levels).long(), minlength=levels)
    assert (counts / number - expected(map, parameters)).abs().max() <= 1.001 / number


def test_uniform_noise_costs_nothing() -> None:
    map, parameters = shares(5, 16)
    reference = log_density(map, every_level(16), parameters)
    for noise in (1e-4, 0.1, 0.999):
        torch.testing.assert_close(log_density(map, every_level(16, noise), parameters), reference, rtol=0, atol=1e-9)


@pytest.mark.parametrize(("components", "levels"), SIZES)
def test_is_an_increasing_map_with_its_own_derivative_and_inverse(components: int, levels: int) -> None:
    map, parameters = shares(components, levels)
    assert_increasing_map(map, line(levels * 20), parameters, back_to=1e-9)


def test_in_float32_likely_levels_come_back() -> None:
    map, parameters = shares(48, 256)
    values = torch.cat([every_level(256, noise) for noise in (0.05, 0.5, 0.95)])
    likely = log_density(map, values, parameters) >= math.log(256 * 1e-5)
    map.float()
    parameters = parameters.float().expand(len(values), -1, -1, -1, -1)
    back, _ = map.inverse(map.forward(values.float(), parameters)[0], parameters)
    torch.testing.assert_close((256 * back)[likely], (256 * values.float())[likely], rtol=0, atol=0.1)


@pytest.mark.parametrize("type", [torch.float64, torch.float32])
def test_whatever_z_is_the_value_is_a_grey_level(type: torch.dtype) -> None:
    map, parameters = shares(12, 256, spread=6.0)
    map.to(type)
    z = torch.tensor([-torch.inf, -1e30, -40, -9, 0, 9, 40, 1e30, torch.inf], dtype=type).view(-1, 1, 1, 1)
    values, _ = map.inverse(z, parameters.to(type).expand(len(z), -1, -1, -1, -1))
    assert values.isfinite().all() and (values > 0).all() and (values < 1).all()
    assert (values.flatten().diff() >= 0).all()


def test_no_grey_level_is_impossible_whatever_the_network_says() -> None:
    map, _ = shares(12, 256)
    map.float()
    parameters = (1e4 * torch.randn(1, 12, 1, 1, 1)).requires_grad_()
    found = log_density(map, every_level(256).float(), parameters) - math.log(256)
    assert found.min() > math.log(FLOOR / 256) - 1e-3
    found.sum().backward()
    assert parameters.grad is not None and parameters.grad.isfinite().all()


def test_starts_at_the_histogram_of_the_data() -> None:
    map = GreyShares(16, 256)
    map.fit(dark_images(256))
    map.fit(every_level(256).float())
    map.double()
    found = log_density(map, every_level(256), map.start().double().view(1, -1, 1, 1, 1)).exp() / 256
    torch.testing.assert_close(found[[0, 253]], torch.tensor([0.5, 0.25]).double(), rtol=0.03, atol=0)


def test_networks_are_told_which_frequent_level_a_pixel_is_of() -> None:
    map, _ = shares(12, 256)
    features = map.features(every_level(256))
    assert features.shape == (256, map.features_of_channel, 1, 1)
    flags = features[:, 1:].flatten(1)
    assert (flags.sum(0) == 1).all() and flags.sum(1).max() == 1
    assert flags[0].any() and flags[253].any() and flags.sum() == FLAGS
    assert (features[:, 0].flatten().diff() > 0).all() and features[:, 0].abs().max() == 1


COUNTS = {
    "nothing": torch.zeros(64),
    "one level": torch.eye(64)[9] * 5,
    "even": torch.ones(64),
    "both ends": torch.ones(64) + 100 * (torch.eye(64)[0] + torch.eye(64)[63]),
    "slope": torch.arange(64.0),
    "every second": (torch.arange(64) % 2).float() * 7,
}


@pytest.mark.parametrize("counts", COUNTS.values(), ids=COUNTS)
@pytest.mark.parametrize("number", [2, 3, 9, 40, 64])
def test_knots_are_levels_in_order_from_the_first_to_the_last(counts: Tensor, number: int) -> None:
    knots = knots_of(counts.double(), number)
    assert len(knots) == number and knots[0] == 0 and knots[-1] == 63
    assert (knots.diff() > 0).all()


def test_frequent_levels_and_their_neighbours_are_knots() -> None:
    counts = torch.ones(64).double()
    counts[[0, 30, 62, 63]] = torch.tensor([1000.0, 5, 300, 100]).double()
    assert {0, 1, 29, 30, 31, 61, 62, 63} <= set(knots_of(counts, 18).tolist())


def test_the_rest_of_the_knots_lies_evenly() -> None:
    assert knots_of(torch.ones(65).double(), 5).tolist() == [0, 16, 32, 48, 64]


@pytest.mark.parametrize("components", [0, 1, 17])
def test_refuses_components_that_there_are_no_levels_for(components: int) -> None:
    with pytest.raises(TzkError, match=f"have 2 to 16 components; got {components}"):
        pixel_map("grey-shares", components, 16)


def test_the_probabilities_of_all_images_sum_to_one() -> None:
    """Four levels, 2×2 pixels: 256 images, by brute force."""
    arguments = {"components": 3, "widths": [6], "blocks": [1], "steps": 0, "levels": 4}
    flow = build_flow((1, 2, 2), "multiscale", density="grey-shares", **arguments)
    flow.initialise(grey((1, 2, 2), 200).float())
    disturbed(flow, 0.5)
    levels = torch.cartesian_prod(*[torch.arange(4)] * 4).view(-1, 1, 2, 2)
    T = ((levels + 0.1 + 0.8 * torch.rand(levels.shape)) / 4).double()
    probability = flow.log_prob(T).exp() / 4**4
    assert probability.sum().item() == pytest.approx(1, abs=1e-9)
    assert probability.std() > 1e-4


def test_what_was_fitted_is_in_the_state() -> None:
    arguments = {"density": "grey-shares", "components": 8, "widths": [6], "blocks": [1], "steps": 0}
    flow, other = (build_flow((1, 8, 8), "multiscale", **arguments) for _ in range(2))
    flow.initialise(grey((1, 8, 8), 200).float())
    other.load_state_dict(flow.state_dict())
    T = grey((1, 8, 8)).float()
    assert torch.equal(other.log_prob(T), flow.log_prob(T))
    other.initialise(T)
    assert torch.equal(other.log_prob(T), flow.log_prob(T))


def test_knowledge_learns_on_it_and_is_sampled_from() -> None:
    """With a code in front for it to be about, that says what is where."""
    arguments = {"components": 6, "widths": [6], "blocks": [1], "steps": 0, "lead": 1, "summary": 4, "canvas": True}
    flow = build_flow((1, 4, 4), "multiscale", density="grey-shares", **arguments)
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
