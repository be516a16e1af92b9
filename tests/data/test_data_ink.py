"""Slant and thickness on strokes whose slant and thickness are known, and on images that are changed in a known way."""

from __future__ import annotations

import numpy as np
import pytest

from tzk_core.data import ink
from tzk_core.data.ink import slant, thickness

SIDE = 28


def drawing(path: list[tuple[float, float]], width: float, side: int = SIDE) -> np.ndarray:
    """`(1, side, side)` uint8: a round pen along points (x, y) from the middle, y upwards, each pixel as much ink as
    the share of 15 x 15 points in it that the pen covers."""
    fine = 15
    ticks = (np.arange(side * fine) + 0.5) / fine - side / 2
    x, y = ticks[None, :], -ticks[:, None]
    covered = np.zeros((side * fine, side * fine), dtype=bool)
    for (x0, y0), (x1, y1) in zip(path, path[1:], strict=False):
        dx, dy = x1 - x0, y1 - y0
        along = np.clip(((x - x0) * dx + (y - y0) * dy) / max(dx * dx + dy * dy, 1e-12), 0, 1)
        covered |= np.hypot(x - x0 - along * dx, y - y0 - along * dy) <= width / 2
    share = covered.reshape(side, fine, side, fine).mean(axis=(1, 3))
    return np.rint(255 * share).astype(np.uint8)[None]


def ring(radius: float, pieces: int = 48) -> list[tuple[float, float]]:
    angles = np.linspace(0, 2 * np.pi, pieces + 1)
    return list(zip(radius * np.cos(angles), radius * np.sin(angles), strict=True))


def sheared(images: np.ndarray, shift: int) -> np.ndarray:
    """Each row moved to the right by `shift` pixels for each row that it is above the middle; nothing may fall off."""
    wide = np.pad(images, ((0, 0), (0, 0), (30, 30)))
    rows = [np.roll(wide[:, i], shift * (SIDE // 2 - i), axis=1) for i in range(images.shape[1])]
    return np.stack(rows, axis=1)


def noise(count: int = 5) -> np.ndarray:
    images = np.random.default_rng(0).integers(0, 256, (count, SIDE, SIDE), dtype=np.uint8)
    images[images < 180] = 0
    return images


# --- slant


@pytest.mark.parametrize("lean", [-0.6, -0.2, 0.0, 0.35, 0.8])
def test_slant_of_a_stroke_is_its_lean(lean: float) -> None:
    # of a pen w wide on a line of length l the moments are lean + O((w / l)^2)
    assert slant(drawing([(-9 * lean, -9), (9 * lean, 9)], 1.5))[0] == pytest.approx(lean, abs=0.02)


@pytest.mark.parametrize("shift", [-1, 1])
def test_shearing_by_s_adds_exactly_s(shift: int) -> None:
    np.testing.assert_allclose(slant(sheared(noise(), shift)), slant(noise()) + shift, rtol=1e-5, atol=1e-5)


def test_slant_does_not_depend_on_place_or_brightness() -> None:
    images = np.zeros((5, 40, 50), dtype=np.uint8)
    images[:, 3 : 3 + SIDE, 20 : 20 + SIDE] = noise() // 2 * 2
    np.testing.assert_allclose(slant(images), slant(noise() // 2), atol=1e-6)


def test_slant_is_that_of_the_moments_summed_pixel_by_pixel() -> None:
    image = noise(1)[0].astype(float)
    points = [(column, -row, image[row, column]) for row in range(SIDE) for column in range(SIDE)]
    x, y, weight = map(np.array, zip(*points, strict=True))
    covariance = np.cov(x, y, aweights=weight, ddof=0)
    assert slant(noise(1))[0] == pytest.approx(covariance[0, 1] / covariance[1, 1], rel=1e-5)


def test_a_mirror_turns_the_slant_around() -> None:
    np.testing.assert_allclose(slant(noise()[:, :, ::-1]), -slant(noise()), atol=1e-6)


# --- thickness


@pytest.mark.parametrize("width", [2.0, 2.5, 3.0, 4.5])
@pytest.mark.parametrize("radius", [6.0, 8.5])
def test_thickness_of_a_closed_stroke_is_its_width(width: float, radius: float) -> None:
    assert thickness(drawing(ring(radius), width))[0] == pytest.approx(width, rel=0.03)


@pytest.mark.parametrize("angle", [0, 20, 45, 70, 90])
@pytest.mark.parametrize("width", [2.5, 3.5])
def test_thickness_of_an_open_stroke_is_that_of_its_area_and_outline(width: float, angle: float) -> None:
    x, y = 9 * np.cos(np.radians(angle)), 9 * np.sin(np.radians(angle))
    area, outline = width * 18 + np.pi * width**2 / 4, 2 * 18 + np.pi * width  # the pen is round
    assert thickness(drawing([(-x, -y), (x, y)], width))[0] == pytest.approx(2 * area / outline, rel=0.06)


@pytest.mark.parametrize(("height", "width"), [(20, 4), (10, 10), (2, 9)])
@pytest.mark.parametrize("frame", [0, 3])
def test_a_rectangle_has_twice_its_area_over_its_outline(height: int, width: int, frame: int) -> None:
    image = np.pad(np.full((1, height, width), 200, dtype=np.uint8), ((0, 0), (frame, frame), (frame, frame)))
    outline = 2 * (height - 1) + 2 * (width - 1) + 4 / np.sqrt(2)  # the corners are cut; beyond the frame it is empty
    assert thickness(image)[0] == pytest.approx(2 * height * width / outline, rel=1e-5)


def test_dilation_makes_thicker_and_thin_strokes_are_told_apart() -> None:
    path = [(-5.0, 8.0), (5.0, 8.0), (-1.0, -8.0)]
    measured = [float(thickness(drawing(path, width))[0]) for width in (1.2, 1.6, 2.0, 2.4, 2.8, 3.2, 4.0, 5.0)]
    assert all(thin < thick for thin, thick in zip(measured, measured[1:], strict=False))
    plain = drawing(path, 2.0)
    framed = np.pad(plain, ((0, 0), (1, 1), (1, 1)))
    shifted = [framed[:, i : i + SIDE, j : j + SIDE] for i in range(3) for j in range(3)]
    # by a square of 3 x 3: at least 2 wider, along a diagonal 2 √2
    assert 1.6 < thickness(np.max(shifted, axis=0))[0] - thickness(plain)[0] < 2.9


def test_thickness_does_not_depend_on_place_brightness_or_the_frame() -> None:
    ink = drawing(ring(8), 3) // 2
    images = np.zeros((1, 40, 50), dtype=np.uint8)
    images[:, 12:, 22:] = ink * 2
    np.testing.assert_allclose(thickness(images), thickness(ink), rtol=1e-5)
    np.testing.assert_allclose(thickness(ink[:, 4:-4, 4:-4]), thickness(ink), rtol=1e-5)


# --- both


def test_many_images_are_measured_as_each_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    images = noise(7)
    for measure in (slant, thickness):
        whole = measure(images)
        assert whole.dtype == np.float32 and whole.shape == (7,)
        monkeypatch.setattr(ink, "CHUNK", 3)
        np.testing.assert_allclose(measure(images), whole, rtol=1e-6)
        assert measure(images[:0]).shape == (0,)


def test_what_has_no_slant_or_thickness_is_nan() -> None:
    images = np.zeros((3, SIDE, SIDE), dtype=np.uint8)
    images[1, 7, 4:20] = [255] * 8 + [131] * 8  # all in one row
    images[2, 7:9, 4] = 9
    assert np.isnan(slant(images)).tolist() == [True, True, False]
    assert np.isnan(thickness(images)).tolist() == [True, False, False]
