"""The operators in the place of the layers of a step of the paper's flow."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from nflows.transforms.base import Transform
from torch import Tensor

from tzk_core.transforms.affine import Affine
from tzk_core.transforms.symlog import SymLog
from tzk_core.transforms.tiled_convolution import TiledConvolution
from tzk_plugin_kernels.affine_symlog import affine_symlog, affine_symlog_inverse
from tzk_plugin_kernels.choice import unusable
from tzk_plugin_kernels.reversible import joined
from tzk_plugin_kernels.tiled import tiled_affine_symlog


class AffineSymLog:
    """`affine`, then `symlog`."""

    unusable = staticmethod(unusable)
    joined = staticmethod(joined)

    def forward(self, layers: Sequence[Transform], inputs: Tensor) -> tuple[Tensor, Tensor]:
        affine, symlog = _checked(layers)
        values, log_scale, shift = _of_one_type(inputs.flatten(1), affine.raw_log_scale, affine.shift)
        outputs, logabsdet = affine_symlog(
            values[None], log_scale.view(1, -1), shift.view(1, -1), affine.bound, symlog.knee
        )
        return outputs.view(inputs.shape), logabsdet[0]

    def inverse(self, layers: Sequence[Transform], inputs: Tensor) -> tuple[Tensor, Tensor]:
        affine, symlog = _checked(layers)
        values, log_scale, shift = _of_one_type(inputs.flatten(1), affine.raw_log_scale, affine.shift)
        outputs, logabsdet = affine_symlog_inverse(
            values[None], log_scale.view(1, -1), shift.view(1, -1), affine.bound, symlog.bound, symlog.knee
        )
        return outputs.view(inputs.shape), logabsdet[0]


class TiledAffineSymLog:
    """`tiled-convolution`, then `affine`, then `symlog`."""

    unusable = staticmethod(unusable)
    joined = staticmethod(joined)

    def forward(self, layers: Sequence[Transform], inputs: Tensor) -> tuple[Tensor, Tensor]:
        convolution, rest = _convolution(layers[0]), layers[1:]
        affine, symlog = _checked(rest)
        rows = convolution.to_tiles(inputs)
        log_scale, shift = (convolution.to_tiles(values[None]) for values in (affine.raw_log_scale, affine.shift))
        tensors = _of_one_type(rows, convolution.weight(), log_scale, shift)
        outputs, logabsdet = tiled_affine_symlog(*(tensor[None] for tensor in tensors), affine.bound, symlog.knee)
        volume = math.prod(convolution.tiles) * convolution.log_diagonal.sum()
        return convolution.from_tiles(outputs[0], inputs), logabsdet[0] + volume

    def inverse(self, layers: Sequence[Transform], inputs: Tensor) -> tuple[Tensor, Tensor]:
        values, rest_logabsdet = AffineSymLog().inverse(layers[1:], inputs)
        outputs, logabsdet = _convolution(layers[0]).inverse(values)
        return outputs, logabsdet + rest_logabsdet


def _convolution(layer: Transform) -> TiledConvolution:
    assert isinstance(layer, TiledConvolution)
    return layer


def _checked(layers: Sequence[Transform]) -> tuple[Affine, SymLog]:
    affine, symlog = layers
    assert isinstance(affine, Affine) and isinstance(symlog, SymLog)  # they were chosen by their classes
    return affine, symlog


def _of_one_type(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Promote tensors to a common type, as torch would; under autocast they differ."""
    dtype = tensors[0].dtype
    for tensor in tensors[1:]:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return tuple(tensor.to(dtype) for tensor in tensors)
