"""Shapes of what transforms take and return: as declared, or as computed for an example."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from nflows.transforms.autoregressive import AutoregressiveTransform
from nflows.transforms.base import CompositeTransform, InverseTransform, Transform
from nflows.transforms.coupling import CouplingTransform
from nflows.transforms.linear import Linear
from nflows.transforms.nonlinearities import PiecewiseQuadraticCDF, PiecewiseRationalQuadraticCDF
from nflows.transforms.permutations import Permutation
from torch import Tensor

from tzk_core.errors import TzkError
from tzk_core.modes import evaluating
from tzk_core.tensors import like_of


def output_shape(transform: Transform, shape: Sequence[int]) -> tuple[int, ...]:
    """The shape of one output: as declared, or as computed for inputs of `shape`."""
    declared = getattr(transform, "output_shape", None)
    if declared is not None:
        return tuple(declared)
    try:
        outputs = _outputs(transform, shape)
    except Exception as error:
        raise TzkError(
            f"{transform.__class__.__name__} does not take inputs of shape {tuple(shape)}: {error}. "
            "Most nflows transforms expect vectors: put a `flatten` layer before them"
        ) from error
    return tuple(outputs.shape[1:])


def input_shape(transform: Transform, latent_shape: Sequence[int] | None = None) -> tuple[int, ...]:
    """The shape of one input.

    It comes by the inverse of a latent, or by the first layer that tells it.

    Args:
        latent_shape: of one output, where it is known.

    Raises:
        TzkError: if neither tells it, or a transform does not take what its layers tell.
    """
    if latent_shape is not None:
        try:
            return tuple(_outputs(InverseTransform(transform), latent_shape).shape[1:])
        except Exception:  # noqa: SIM105 - a layer without an inverse here, such as batch normalisation
            pass
    for shape in filter(None, map(_told, _leaves(transform))):
        try:
            _outputs(transform, shape)
        except Exception:  # channels of an image, or features behind a change of shape
            continue
        return shape
    raise TzkError(
        "the shape of an observation cannot be inferred from the transform: write it first, as in "
        "SharedFlow((3, 32, 32), transform)"
    )


def _outputs(transform: Transform, shape: Sequence[int]) -> Tensor:
    like = like_of(transform)
    with evaluating(transform), torch.no_grad():
        return transform(torch.full((2, *shape), 0.5, dtype=like.dtype, device=like.device))[0]


def _leaves(transform: Transform) -> Iterator[Transform]:
    """The layers in order, without those that hold others."""
    if isinstance(transform, CompositeTransform):
        for part in transform._transforms:
            yield from _leaves(part)
    elif isinstance(transform, InverseTransform):
        yield from reversed(list(_leaves(transform._transform)))
    else:
        yield transform


def _told(layer: Transform) -> tuple[int, ...] | None:
    """The shape of one input by a layer's own attributes; None where it takes any."""
    shape = getattr(layer, "arguments", {}).get("shape")
    if shape is not None:
        return tuple(shape)
    if isinstance(layer, AutoregressiveTransform):
        return (layer.autoregressive_net.initial_layer.in_features,)
    if isinstance(layer, CouplingTransform | Linear):
        return (layer.features,)
    if isinstance(layer, Permutation):
        return (len(layer._permutation),)
    if isinstance(layer, PiecewiseQuadraticCDF | PiecewiseRationalQuadraticCDF):
        return tuple(layer.unnormalized_widths.shape[:-1])
    features = getattr(layer, "features", None)
    return (features,) if isinstance(features, int) else None
