"""The laws of scattering: wavelets are what they are called, small shifts change little, Fourier is exact."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from tzk_plugin_features.knowledge import FeatureKnowledge
from tzk_plugin_features.mixture import Components
from tzk_plugin_features.scattering import FREQUENCY, WIDTH, ScatteringFeatures, gaussian, morlet, sampled

import tzk_core
from tzk_core.errors import TzkError

SHAPE = (1, 16, 16)


@pytest.fixture
def features() -> ScatteringFeatures:
    return ScatteringFeatures(SHAPE, octaves=2, orientations=3, dims=8).double()


def images(count: int) -> Tensor:
    """Smooth blobs of random places, in [0, 1]."""
    noise = torch.rand(count, 1, 16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return functional.avg_pool2d(functional.pad(noise, (2, 2, 2, 2), "circular"), 5, 1).sub(0.4).mul(5).clamp(0, 1)


def circular(image: Tensor, kernel: Tensor) -> Tensor:
    """The circular convolution by its definition, pixel by pixel."""
    rows, columns = (range(side) for side in image.shape)
    return sum(kernel[y, x] * image.roll((y, x), (0, 1)) for y in rows for x in columns)  # type: ignore[return-value]


def test_a_wavelet_has_no_mean_and_its_frequency() -> None:
    for scale, angle in ((0, 0.0), (1, math.pi / 3)):
        spectrum = morlet((32, 32), scale, angle, orientations=4)
        assert abs(float(spectrum[0, 0])) < 1e-9
        place = divmod(int(spectrum.argmax()), 32)
        frequency = [2 * math.pi * torch.fft.fftfreq(32)[k].item() for k in place]
        expected = FREQUENCY / 2**scale
        assert frequency[0] == pytest.approx(expected * math.sin(angle), abs=2 * math.pi / 32)
        assert frequency[1] == pytest.approx(expected * math.cos(angle), abs=2 * math.pi / 32)


def test_taking_pixels_is_what_it_is_to_the_spectrum() -> None:
    x = torch.randn(2, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.complex128)
    torch.testing.assert_close(sampled(torch.fft.fft2(x), 2), torch.fft.fft2(x[:, ::2, ::2]))


def test_the_first_order_is_the_smoothed_modulus_of_a_convolution(features: ScatteringFeatures) -> None:
    """By sums over pixels, at the finest scale, where nothing is left out before the smoothing."""
    image = images(1)
    window = gaussian((16, 16), 2 * WIDTH)
    wavelet = torch.fft.ifft2(morlet((16, 16), 0, math.pi / 3, orientations=3))
    expected = circular(circular(image[0, 0], wavelet).abs(), window / window.sum())[::4, ::4]
    torch.testing.assert_close(features.coefficients(image)[0, 2], expected.flatten(), rtol=1e-5, atol=1e-6)
    mean = circular(image[0, 0], window / window.sum())[::4, ::4]
    torch.testing.assert_close(features.coefficients(image)[0, 0], mean.flatten(), rtol=1e-5, atol=1e-6)


def test_the_second_order_is_that_of_the_first_on_the_pixels_that_are_left() -> None:
    """From the second scale to the third, whose filters have every second and fourth pixel, and so much more weight."""
    features = ScatteringFeatures(SHAPE, octaves=3, orientations=2, dims=1).double()
    image = images(1)
    finer, coarser = (torch.fft.ifft2(morlet((16, 16), scale, 0.0, orientations=2)) for scale in (1, 2))
    window = gaussian((16, 16), 4 * WIDTH)
    window = window / window.sum()
    first = circular(image[0, 0], finer).abs()[::2, ::2]
    second = circular(first, 4 * coarser[::2, ::2]).abs()[::2, ::2]
    expected = circular(second, 16 * window[::4, ::4])[::2, ::2]
    path = 1 + 2 + 4 + 4 + 2  # the mean, the finest scale, its second order, and the first order of the next one
    torch.testing.assert_close(features.coefficients(image)[0, path], expected.flatten(), rtol=1e-5, atol=1e-6)
    of_first = circular(first, 4 * window[::2, ::2])[::4, ::4]
    torch.testing.assert_close(features.coefficients(image)[0, path - 2], of_first.flatten(), rtol=1e-5, atol=1e-6)


def test_paths_are_counted_and_a_shift_by_a_cell_moves_all_of_them(features: ScatteringFeatures) -> None:
    y = features.coefficients(images(2))
    assert y.shape == (2, 1 + 2 * 3 + 9, 16)
    moved = features.coefficients(images(2).roll((4, 8), (2, 3)))
    torch.testing.assert_close(moved, y.unflatten(2, (4, 4)).roll((1, 2), (2, 3)).flatten(2), rtol=1e-5, atol=1e-6)


def test_a_small_shift_changes_it_less_than_pixels(features: ScatteringFeatures) -> None:
    x = images(20)
    features.fit(x, torch.Generator())

    def change(values: Tensor, moved: Tensor) -> float:
        return float((moved - values).square().sum() / (values - values.mean(0)).square().sum())

    moved = x.roll(1, 3)
    assert change(features(x), features(moved)) < 0.5 * change(x, moved)


def test_a_model_classifies_by_it_and_it_is_shared_and_saved(features: ScatteringFeatures) -> None:
    """Horizontal and vertical bars."""
    flat = 0.1 * torch.rand(60, *SHAPE, generator=torch.Generator().manual_seed(0))
    for number, image in enumerate(flat):
        image[0, number % 12 + 2 : number % 12 + 4] += 0.6
    bars = [flat, flat.transpose(2, 3)]
    model = tzk_core.TzK(tzk_core.build_flow(SHAPE, steps=2, tile=4))
    features = features.float()
    features.fit(torch.cat(bars), torch.Generator())
    for number, own in enumerate(bars):
        arguments = {"image_features": "scattering", "octaves": 2, "orientations": 3, "dims": 8, "components": 2}
        knowledge = tzk_core.build_knowledge("features", SHAPE, 0, name=f"bars-{number}", **arguments)
        assert isinstance(knowledge, FeatureKnowledge)
        knowledge.share(features)
        knowledge.condition(own[:40], torch.cat(bars))
        model.add(f"bars-{number}", knowledge)
    fresh = torch.cat([own[40:] for own in bars])
    scores = torch.stack([model.log_prob(fresh, f"bars-{number}") for number in range(2)])
    assert torch.equal(scores.argmax(0), torch.arange(2).repeat_interleave(20))
    model.posterior(fresh)
    assert not model.not_vmappable


@pytest.mark.parametrize(
    "arguments",
    [
        {"octaves": 5, "orientations": 2, "dims": 2},
        {"octaves": 0, "orientations": 2, "dims": 2},
        {"octaves": 2, "orientations": 0, "dims": 2},
        {"octaves": 2, "orientations": 2, "dims": 10_000},
    ],
)
def test_what_cannot_be_is_said(arguments: dict[str, int]) -> None:
    with pytest.raises(TzkError, match="features by scattering expects"):
        ScatteringFeatures(SHAPE, **arguments)
    with pytest.raises(TzkError, match="image_features"):
        FeatureKnowledge(SHAPE, image_features="wavelets")


def test_scales_are_coordinates_and_cancel_where_nothing_is_shrunk() -> None:
    """A Gaussian is the same in any scales; one that is shrunk is that of scaled samples."""
    source = torch.Generator().manual_seed(0)
    y = torch.randn(80, 3, generator=source, dtype=torch.float64) + 1
    scales = torch.tensor([0.1, 1.0, 3.0], dtype=torch.float64)
    plain, scaled, shrunk, other = (Components(1, 3).double() for _ in range(4))
    plain.fit(y, shrinkage=0, trust=1e-12, generator=source)
    scaled.fit(y, shrinkage=0, trust=1e-12, generator=source, scales=scales)
    torch.testing.assert_close(scaled(y), plain(y), rtol=1e-6, atol=1e-6)
    shrunk.fit(y, shrinkage=0.3, trust=5, generator=source, scales=scales)
    other.fit(y * scales, shrinkage=0.3, trust=5, generator=source)
    own = other(y * scales) - 0.5 * (y * scales).square().sum(1, keepdim=True) + scales.log().sum()
    torch.testing.assert_close(shrunk(y) - 0.5 * y.square().sum(1, keepdim=True), own, rtol=1e-6, atol=1e-6)
