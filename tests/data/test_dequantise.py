"""Dequantised grey levels stay within their cells, and the noise is uniform."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tzk_core.data import dequantise as dequantise_module
from tzk_core.data.dequantise import dequantise
from tzk_core.errors import TzkError
from tzk_core.random_streams import stream


def test_every_level_stays_within_its_cell() -> None:
    T = torch.arange(256, dtype=torch.uint8).expand(4000, 256)
    result = dequantise(T, stream(0, "test"))
    assert result.dtype == torch.float32
    assert torch.equal((result.double() * 256).floor(), T.double())
    assert result.min() > 0 and result.max() < 1


@pytest.mark.parametrize("levels", [2, 5, 32, 255, 256])
@pytest.mark.parametrize("u", [0.0, 0.5, 1 - 2.0**-24])
def test_extreme_noise_stays_within_its_cell(u: float, levels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dequantise_module.torch, "rand", lambda shape, generator: torch.full(shape, u))
    T = torch.arange(levels, dtype=torch.uint8)
    result = dequantise(T, stream(0), levels).double()
    assert ((T.double() / levels < result) & (result < (T.double() + 1) / levels)).all()


def test_noise_is_uniform() -> None:
    u = dequantise(torch.full((400_000,), 255, dtype=torch.uint8), stream(1, "test")).double() * 256 - 255
    assert abs(u.mean() - 1 / 2) < 4 / np.sqrt(12 * 400_000)
    assert abs(u.var() - 1 / 12) < 1e-3
    counts = torch.histc(u, 64, 0, 1)
    assert ((counts - 400_000 / 64) ** 2 / (400_000 / 64)).sum() < 110  # chi-squared, 63 degrees: p < 3e-4


def test_real_values_pass_unchanged_and_draw_no_noise() -> None:
    generator = stream(0)
    before = generator.get_state()
    T = torch.tensor([[-3.5, 2.0]])
    assert torch.equal(dequantise(T, generator, levels=None), T)
    assert torch.equal(generator.get_state(), before)


def test_dequantise_names_the_wrong_type() -> None:
    with pytest.raises(TzkError, match="expected uint8; got torch.float32"):
        dequantise(torch.zeros(2), stream(0))
    with pytest.raises(TzkError, match="expected real values; got torch.uint8"):
        dequantise(torch.zeros(2, dtype=torch.uint8), stream(0), levels=None)
