"""TiledConvolution, Squeeze and Rearrangement, against index arithmetic."""

from __future__ import annotations

import itertools

import pytest
import torch
from layers import perturbed

from tzk_core.transforms.reshape import Flatten, Rearrangement
from tzk_core.transforms.squeeze import Squeeze, Unsqueeze
from tzk_core.transforms.tiled_convolution import TiledConvolution

IMAGE = (2, 4, 4)


@pytest.mark.parametrize("batch", [1, 20])
@pytest.mark.parametrize(("tile", "channels"), [(1, None), (2, 1), (2, None), (4, 2), (1, 2)])
@pytest.mark.parametrize("initialisation", ["identity", "orthogonal"])
def test_every_tile_is_multiplied_by_the_matrix(
    batch: int, tile: int, channels: int | None, initialisation: str
) -> None:
    shape = (4, 4, 8)
    layer = perturbed(TiledConvolution(shape, tile, channels, initialisation=initialisation), 0.05).double()
    x = torch.randn(batch, *shape, dtype=torch.float64)
    span, weight = channels or shape[0], layer.weight()
    expected = torch.empty_like(x)
    corners = itertools.product(range(0, 4, span), range(0, 4, tile), range(0, 8, tile))
    for c, h, w in corners:
        place = (slice(None), slice(c, c + span), slice(h, h + tile), slice(w, w + tile))
        rows = x[place].reshape(batch, -1)
        expected[place] = torch.stack([weight @ row for row in rows]).view(batch, span, tile, tile)
    torch.testing.assert_close(layer(x)[0], expected)


def test_its_logabsdet_is_that_of_the_matrix_for_each_tile() -> None:
    layer = perturbed(TiledConvolution((2, 4, 4), 2, 1, initialisation="orthogonal")).double()
    expected = 8 * torch.linalg.slogdet(layer.weight()).logabsdet
    torch.testing.assert_close(layer(torch.randn(3, 2, 4, 4).double())[1], expected.expand(3))


@pytest.mark.parametrize("dims", [1, 4, 64])
def test_orthogonal_initialisation_is_a_rotation_that_depends_on_the_seed_alone(dims: int) -> None:
    layers = [TiledConvolution((dims,), initialisation="orthogonal", seed=seed).double() for seed in (0, 0, 1)]
    weight = layers[0].weight()
    torch.testing.assert_close(weight @ weight.T, torch.eye(dims, dtype=torch.float64), rtol=0, atol=2e-5)
    assert torch.equal(weight, layers[1].weight())
    assert dims == 1 or not torch.equal(weight, layers[2].weight())


def test_1x1_tiles_are_the_invertible_convolution_of_glow() -> None:
    layer = TiledConvolution((3, 4, 4), initialisation="orthogonal").double()
    x = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    expected = torch.nn.functional.conv2d(x, layer.weight()[:, :, None, None])
    torch.testing.assert_close(layer(x)[0], expected)


# Squeeze


@pytest.mark.parametrize("factor", [2, 4])
@pytest.mark.parametrize("tiling", ["strided", "blocks"])
def test_squeeze_against_index_arithmetic(factor: int, tiling: str) -> None:
    channels, height, width = 2, 4, 8
    x = torch.arange(2 * channels * height * width).view(2, channels, height, width)
    squeezed = Squeeze((channels, height, width), factor, tiling)(x)[0]
    high, wide = height // factor, width // factor
    assert squeezed.shape == (2, channels * factor**2, high, wide)
    places = itertools.product(range(channels), range(factor), range(factor), range(high), range(wide))
    for c, i, j, h, w in places:
        row, column = (h * factor + i, w * factor + j) if tiling == "strided" else (i * high + h, j * wide + w)
        assert torch.equal(squeezed[:, (c * factor + i) * factor + j, h, w], x[:, c, row, column])


def test_a_rearrangement_is_its_layers_one_after_the_other() -> None:
    layers = [Unsqueeze((8, 2, 2), 2, "blocks"), Squeeze(IMAGE), Flatten((8, 2, 2))]
    x = 2 * torch.randn(3, 8, 2, 2, generator=torch.Generator().manual_seed(0))
    expected = x
    for layer in layers:
        expected = layer(expected)[0]
    together = Rearrangement((8, 2, 2), layers)
    assert together.output_shape == (32,) and not together.state_dict()
    assert torch.equal(together(x)[0], expected)


@pytest.mark.parametrize("tiling", ["strided", "blocks"])
def test_unsqueeze_undoes_squeeze(tiling: str) -> None:
    x = torch.randn(2, *IMAGE)
    squeeze, unsqueeze = Squeeze(IMAGE, 2, tiling), Unsqueeze((8, 2, 2), 2, tiling)
    assert unsqueeze.output_shape == IMAGE
    assert torch.equal(unsqueeze(squeeze(x)[0])[0], x)
    assert torch.equal(unsqueeze.inverse(x)[0], squeeze(x)[0])
