"""Nats become bits in one way: a uniform density over 256 grey levels is 8.0 bits per dim exactly."""

from __future__ import annotations

import math

import pytest
import torch
from models import held_out
from torch import Tensor

from tzk_core.data.dequantise import dequantise
from tzk_core.distributions.base import Reparametrised
from tzk_core.evaluation.baseline import histogram_bits
from tzk_core.evaluation.likelihood import prior_row
from tzk_core.evaluation.scoring import score
from tzk_core.model import SharedFlow, TzK
from tzk_core.random_streams import stream
from tzk_core.transforms.affine import Affine
from tzk_core.transforms.composite import Composite
from tzk_core.units import bits_per_dim, bits_per_image


class Uniform(Reparametrised):
    """The uniform density on the unit cube."""

    def _log_prob(self, inputs: Tensor, context: Tensor | None) -> Tensor:
        inside = ((inputs >= 0) & (inputs <= 1)).flatten(1).all(1)
        return torch.where(inside, 0.0, -math.inf)


@pytest.mark.parametrize("shape", [(1, 32, 32), (3, 5, 7), (13,)])
def test_a_uniform_model_is_eight_bits_per_dim_exactly(shape: tuple[int, ...]) -> None:
    """From grey levels by dequantisation, the identity flow and a uniform base to the row of the table."""
    model = TzK(SharedFlow(shape, Composite([Affine(shape)]), Uniform(shape)))
    T = dequantise(torch.randint(0, 256, (5, *shape), dtype=torch.uint8), stream(0, "test"))
    dims = math.prod(shape)
    assert torch.equal(bits_per_dim(model.log_prob(T), dims, 256), torch.full((5,), 8.0))
    row = prior_row(score(model, held_out(T, levels=256, original_dims=dims - 1), 1))
    assert row["bits_per_dim"] == 8.0 and row["bits_per_image"] == 8.0 * dims
    assert row["bits_per_pixel"] == 8.0 * dims / (dims - 1) and row["standard_error"] == 0.0


@pytest.mark.parametrize("levels", [2, 4, 256, 65536])
def test_a_uniform_density_is_the_logarithm_of_the_levels(levels: int) -> None:
    assert bits_per_dim(0.0, 784, levels) == math.log2(levels)
    assert bits_per_image(0.0, 784, levels) == 784 * math.log2(levels)


def test_bits_are_the_probability_of_the_grey_levels_under_a_density_constant_on_each() -> None:
    """-log2 of the mass of a level, for a density over [0, 1] that is a histogram of 4 levels."""
    mass = torch.tensor([0.5, 0.25, 0.2, 0.05], dtype=torch.float64)
    log_density = (mass * 4).log()
    for level in range(4):
        bits = bits_per_dim(log_density[level].item(), 1, 4)
        assert bits == pytest.approx(-math.log2(mass[level].item()))


def test_without_levels_it_is_the_density_itself() -> None:
    assert bits_per_image(-math.log(8), 3, None) == pytest.approx(3.0)
    assert bits_per_dim(torch.tensor([-math.log(8), 0.0]), 3, None).tolist() == pytest.approx([1.0, 0.0])


def test_the_histogram_baseline_against_counting() -> None:
    train = torch.randint(0, 4, (30, 1, 2, 2), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    test = torch.randint(0, 4, (7, 1, 2, 2), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    bits = histogram_bits(train, test, levels=4, pseudo_count=0.1)
    for image, its_bits in zip(test, bits, strict=True):
        expected = 0.0
        for row in range(2):
            for column in range(2):
                level = image[0, row, column]
                count = sum(int(value[0, row, column] == level) for value in train)
                expected -= math.log2((count + 0.1) / (30 + 0.4))
        assert its_bits.item() == pytest.approx(expected)


def test_the_histogram_baseline_of_no_data_is_uniform() -> None:
    nothing, test = torch.zeros(0, 3, dtype=torch.uint8), torch.zeros(2, 3, dtype=torch.uint8)
    assert histogram_bits(nothing, test).tolist() == pytest.approx([24.0, 24.0])
