"""Check of an implementation: its parameters and its numbers are those of its layers."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from nflows.transforms.base import Transform
from torch import Tensor

from tzk_core.testing.building import perturbed
from tzk_core.testing.expectations import expect, expect_equal, returning

Computes = Callable[[Tensor], tuple[Tensor, Tensor]]


def check_implementation(
    implementation: type,
    layers: Transform | Sequence[Transform],
    inputs: Tensor,
    *,
    tolerance: float = 1e-4,
    perturbation: float = 0.3,
    device: str = "cpu",
) -> None:
    """Check that an implementation has the parameters, results and gradients of its layers.

    Args:
        implementation: the class; of one layer it is made by its `from_layer` if it has one, or built with the layer's
            `arguments`, of several without.
        layers: the layer, or the consecutive ones, as they are built.
        inputs: (batch, *shape) inside the domain of the first layer.
        tolerance: relative, in float32.
        perturbation: the deviation of what is added to every parameter.
        device: where to compute; "cuda" needs one.

    Raises:
        NotConforming: with what was expected, what it got and what to change.
    """
    name = implementation.__name__
    together = isinstance(layers, Sequence)
    plain = [perturbed(layer, perturbation, i).float().to(device) for i, layer in enumerate(_listed(layers))]
    values = inputs.detach().float().to(device)
    if together:
        fused = implementation()
        other = [copy.deepcopy(layer) for layer in plain]
        forward: Computes = partial(fused.forward, other)
        inverse: Computes = partial(fused.inverse, other)
    else:
        made = in_place_of(name, implementation, plain[0]).to(device)
        other, forward, inverse = [made], made, made.inverse
    ours, theirs = _computed(plain, partial(_forward, plain), values), None
    with returning(f"{name}: forward"):
        theirs = _computed(other, forward, values)
    with returning(f"{name}: inverse"):
        expected = _inverse(plain, ours["outputs"].detach())
        restored = inverse(ours["outputs"].detach())
    ours |= {"inverse": expected[0], "logabsdet of the inverse": expected[1]}
    theirs |= {"inverse": restored[0], "logabsdet of the inverse": restored[1]}
    for what, value in ours.items():
        allowed = tolerance * (1 + float(value.detach().abs().max()))
        advice = "an implementation computes what its layers do, to rounding"
        expect_equal(f"{name}: {what}, compared with the layer's,", theirs[what], value, advice, tolerance=allowed)


def in_place_of(name: str, implementation: Callable[..., Any], layer: Transform) -> Transform:
    """The implementation of a layer, by `from_layer` or by its arguments and parameters.

    Parameters are compared first.
    """
    arguments, adopt = getattr(layer, "arguments", {}), getattr(implementation, "from_layer", None)
    if adopt is not None:
        with returning(f"{name}: from_layer"):
            made: Transform = adopt(copy.deepcopy(layer))
        expect(
            isinstance(made, Transform), f"{name}: from_layer should return an implementation of the layer; got {made}"
        )
    else:
        with returning(f"{name}: its constructor with the layer's arguments {dict(arguments)}"):
            made = implementation(**arguments)
    expected = {key: tuple(value.shape) for key, value in layer.state_dict().items()}
    actual = {key: tuple(value.shape) for key, value in made.state_dict().items()}
    expect(
        actual == expected,
        f"{name}: should have the parameters and buffers of its layer, {expected}; got {actual}: name them alike, so"
        " that a checkpoint opens with either",
    )
    made.load_state_dict(layer.state_dict())
    return made.train(layer.training)


def _listed(layers: Transform | Sequence[Transform]) -> list[Transform]:
    return list(layers) if isinstance(layers, Sequence) else [layers]


def _forward(layers: Sequence[Transform], inputs: Tensor) -> tuple[Tensor, Tensor]:
    total = inputs.new_zeros(len(inputs))
    for layer in layers:
        inputs, logabsdet = layer(inputs)
        total = total + logabsdet
    return inputs, total


def _inverse(layers: Sequence[Transform], outputs: Tensor) -> tuple[Tensor, Tensor]:
    total = outputs.new_zeros(len(outputs))
    for layer in reversed(layers):
        outputs, logabsdet = layer.inverse(outputs)
        total = total + logabsdet
    return outputs, total


def _computed(layers: Sequence[Transform], forward: Computes, inputs: Tensor) -> dict[str, Tensor]:
    """Outputs, log-determinant, and the gradients of both in inputs and parameters."""
    inputs = inputs.clone().requires_grad_()
    outputs, logabsdet = forward(inputs)
    named = {"inputs": inputs}
    for i, layer in enumerate(layers):
        named |= {f"{key} of layer {i}": value for key, value in layer.named_parameters() if value.requires_grad}
    total = outputs.square().sum() + logabsdet.sum()
    gradients = torch.autograd.grad(total, list(named.values()), allow_unused=True)
    values = {"outputs": outputs, "logabsdet": logabsdet}
    for (key, value), gradient in zip(named.items(), gradients, strict=True):
        values[f"gradient of {key}"] = torch.zeros_like(value) if gradient is None else gradient
    return values
