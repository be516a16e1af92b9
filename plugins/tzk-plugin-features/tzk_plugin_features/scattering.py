"""Features of images by wavelets, which nobody has to fit.

They are moduli of wavelet responses, of two orders.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tzk_core.errors import TzkError
from tzk_plugin_features.features import Features

WIDTH, FREQUENCY = 0.8, 0.75 * math.pi
"""Of the finest wavelet: the deviation of its window, in pixels, and its frequency, in radians a pixel."""

DAMPING = 10.0
"""Of the mean variance, added to every variance before the scales of classes are whitened."""

PERIODS = 2
"""Neighbours on either side that wrap around in a filter, which is periodic."""


class ScatteringFeatures(Features):
    """Scattering coefficients of images, in their leading directions.

    An image is smoothed; so are the moduli of its responses to Morlet wavelets, and the moduli of the responses of
    those to coarser wavelets (Bruna and Mallat 2013). Hence small shifts and bends of strokes change them little. All
    that is fitted are the deviation of every path of wavelets, which it is divided by, and the directions. Images are
    taken as periodic.

    shape: of an image, (channels, height, width). Sides are multiples of 2^octaves; smoothed maps have one value for
        every 2^octaves pixels.
    octaves, orientations: of the wavelets.
    """

    smoothing: Tensor
    wavelets: Tensor
    mean: Tensor
    deviations: Tensor
    directions: Tensor

    def __init__(self, shape: tuple[int, ...], *, octaves: int, orientations: int, dims: int) -> None:
        cell = 2**octaves
        if len(shape) != 3 or min(octaves, orientations) < 1 or shape[1] % cell or shape[2] % cell:
            raise TzkError(
                "features by scattering expects octaves and orientations of at least 1, and images of (channels, "
                f"height, width), sides multiples of 2^octaves; got {octaves}, {orientations} and {tuple(shape)}"
            )
        paths = shape[0] * (1 + octaves * orientations + octaves * (octaves - 1) // 2 * orientations**2)
        self.cells = shape[1] * shape[2] // cell**2
        if not 1 <= dims <= paths * self.cells:
            raise TzkError(f"features by scattering expects dims of 1 to {paths * self.cells}; got {dims}")
        super().__init__(shape, dims)
        self.octaves, self.orientations = octaves, orientations
        angles = [math.pi * number / orientations for number in range(orientations)]
        wavelets = [
            [morlet(shape[1:], scale, angle, orientations=orientations) for angle in angles] for scale in range(octaves)
        ]
        window = gaussian(shape[1:], WIDTH * 2 ** (octaves - 1))
        smoothing = torch.fft.fft2(window / window.sum()).real
        self.register_buffer("smoothing", smoothing.float(), persistent=False)
        self.register_buffer("wavelets", torch.stack([torch.stack(row) for row in wavelets]).float(), persistent=False)
        self.register_buffer("mean", torch.zeros(paths * self.cells))
        self.register_buffer("deviations", torch.ones(paths))
        self.register_buffer("directions", torch.eye(paths * self.cells, dims))

    def fit_map(self, reference: Tensor, generator: torch.Generator) -> None:
        values = torch.cat([self.coefficients(part) for part in reference.split(100)])
        self.mean.copy_(values.flatten(1).mean(0))
        deviations = values.var(0, correction=0).mean(1).sqrt()
        self.deviations.copy_(torch.where(deviations > 1e-6, deviations, 1.0))
        scaled = self._scaled(values).double()
        axes = torch.linalg.eigh(scaled.T @ scaled).eigenvectors.flip(1)
        self.directions.copy_(axes[:, : self.dims])

    def map(self, observations: Tensor) -> Tensor:
        return self._scaled(self.coefficients(observations)) @ self.directions

    def scales(self) -> Tensor:
        """Small where the coefficients vary little.

        So their noise is not made as large as what differs.
        """
        variances = self.whitening.square().sum(1).reciprocal()
        return (variances / (variances + DAMPING * variances.mean())).sqrt()

    def coefficients(self, images: Tensor) -> Tensor:
        """The smoothed image and moduli of the first and the second order, (batch, paths, cells)."""
        first = self._moduli(torch.fft.fft2(images), 0, range(self.octaves))
        smoothed = [self._smoothed(torch.fft.fft2(images), 0)]
        for scale, spectrum in first.items():
            smoothed.append(self._smoothed(spectrum, scale))
            coarser = range(scale + 1, self.octaves)
            second = self._moduli(spectrum, scale, coarser)
            smoothed += [self._smoothed(own, number) for number, own in second.items()]
        return torch.cat(smoothed, 1)

    def _moduli(self, spectrum: Tensor, scale: int, chosen: range) -> dict[int, Tensor]:
        """Spectra of moduli of the responses to the wavelets of the chosen scales, by scale.

        Every one has every 2^chosen-th pixel. `spectrum` has every 2^scale-th.
        """
        moduli = {}
        for number in chosen:
            filters = sampled(self.wavelets[number], 2**scale) * 4**scale
            responses = sampled(spectrum.unsqueeze(-3) * filters, 2 ** (number - scale))
            moduli[number] = torch.fft.fft2(torch.fft.ifft2(responses).abs()).flatten(1, -3)
        return moduli

    def _smoothed(self, spectrum: Tensor, scale: int) -> Tensor:
        window = sampled(self.smoothing, 2**scale) * 4**scale
        cells = sampled(spectrum * window, 2 ** (self.octaves - scale))
        return torch.fft.ifft2(cells).real.flatten(2)

    def _scaled(self, coefficients: Tensor) -> Tensor:
        return (coefficients.flatten(1) - self.mean) / self.deviations.repeat_interleave(self.cells)


def gaussian(size: tuple[int, ...], width: float, *, angle: float = 0.0, ratio: float = 1.0) -> Tensor:
    """exp(-½ d²) of the distance d from pixel 0, periodic, in float64.

    d is in units of `width` along `angle`, and of width / ratio across.
    """
    return _periodic(size, width, angle=angle, ratio=ratio, frequency=0.0).real


def morlet(size: tuple[int, ...], scale: int, angle: float, *, orientations: int) -> Tensor:
    """The spectrum of a Morlet wavelet, real, in float64.

    The wavelet is a wave in a Gaussian window, and has mean 0.
    """
    width, ratio = WIDTH * 2**scale, 4 / orientations
    shape = {"angle": angle, "ratio": ratio}
    wave = _periodic(size, width, frequency=FREQUENCY / 2**scale, **shape)
    window = gaussian(size, width, **shape)
    wavelet = wave - window * (wave.sum() / window.sum())
    return torch.fft.fft2(wavelet / (2 * math.pi * width**2 / ratio)).real


def sampled(spectrum: Tensor, factor: int) -> Tensor:
    """The spectrum of every factor-th pixel, in both directions."""
    height, width = (side // factor for side in spectrum.shape[-2:])
    return spectrum.unflatten(-1, (factor, width)).unflatten(-3, (factor, height)).mean((-4, -2))


def _periodic(size: tuple[int, ...], width: float, *, angle: float, ratio: float, frequency: float) -> Tensor:
    sides = [
        torch.fft.fftfreq(side, 1 / side).double()[:, None] + side * torch.arange(-PERIODS, PERIODS + 1)
        for side in size
    ]
    y, x = sides[0][:, :, None, None], sides[1]
    along, across = x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)
    exponent = torch.complex(-(along.square() + (ratio * across).square()) / (2 * width**2), frequency * along)
    return exponent.exp().sum((1, 3))
