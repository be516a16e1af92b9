"""The inverse of a MADE in one pass.

A hidden unit is computed once, as soon as what it depends on is known.

nflows evaluates the whole network once for every feature. A unit of degree d sees features 1 to d alone. So the units
in the order of their degrees are computed piece by piece while the features are solved, the same numbers in all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from nflows.transforms.made import MADE, MaskedLinear, MaskedResidualBlock
from torch import Tensor, nn
from torch.nn import functional

Solve = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""x_i and its log-derivative, (batch,) each, from y_i, (batch,), and its parameters, (batch, multiplier)."""


def counts_of(made: MADE) -> list[list[int]] | None:
    """For every hidden layer, how many units have a degree of at most 0, 1, …

    The layers are in order.

    None where units cannot be computed one by one: with batch normalisation, or residual blocks of other degrees.
    """
    if any(isinstance(part, nn.BatchNorm1d) for part in made.modules()):
        return None
    for block in made.blocks:
        residual = isinstance(block, MaskedResidualBlock)
        if residual and not torch.equal(block.degrees, made.initial_layer.degrees):
            return None
    features = made.initial_layer.in_features
    return [[int((layer.degrees <= d).sum()) for d in range(features)] for layer in _hidden(made)]


def invert(
    made: MADE, outputs: Tensor, *, counts: Sequence[Sequence[int]], solve: Solve, context: Tensor | None
) -> tuple[Tensor, Tensor]:
    """x, (batch, features), with outputs_i = y(x_i; parameters_i(x_<i)), and the log-determinant, (batch,).

    Args:
        counts: of `counts_of`.
        solve: the inverse of one element.
    """
    network = _Network(made, outputs, counts=counts, context=context)
    features = made.initial_layer.in_features
    multiplier = made.final_layer.out_features // features
    x, total = outputs[:, :0], outputs.new_zeros(outputs.shape[0])
    for feature in range(features):
        hidden = network.hidden(x, feature)
        rows = slice(feature * multiplier, (feature + 1) * multiplier)
        weight = network.final[rows, : hidden.shape[1]]
        parameters = functional.linear(hidden, weight, made.final_layer.bias[rows])
        solved, logabsdet = solve(outputs[:, feature], parameters)
        x, total = torch.cat([x, solved.unsqueeze(1)], 1), total + logabsdet
    return x, total


def _hidden(made: MADE) -> Iterator[MaskedLinear]:
    yield made.initial_layer
    for block in made.blocks:
        yield from block.linear_layers if isinstance(block, MaskedResidualBlock) else (block.linear,)


@dataclass
class _Layer:
    """A hidden layer with its units in the order of their degrees.

    inputs: what reached it so far.
    """

    weight: Tensor
    bias: Tensor
    counts: Sequence[int]
    inputs: Tensor
    more: Tensor | None = None
    done: int = field(default=0)

    def next(self, inputs: Tensor, degree: int) -> Tensor:
        """The units that further inputs make computable, those up to `degree`."""
        self.inputs = torch.cat([self.inputs, inputs], 1)
        new = slice(self.done, self.counts[degree])
        self.done = self.counts[degree]
        values = functional.linear(self.inputs, self.weight[new, : self.inputs.shape[1]], self.bias[new])
        return values if self.more is None else values + self.more[:, new]


class _Network:
    """The hidden layers of a MADE, unit by unit."""

    def __init__(self, made: MADE, like: Tensor, *, counts: Sequence[Sequence[int]], context: Tensor | None) -> None:
        self.made = made
        self.layers: list[_Layer] = []
        before = torch.arange(made.initial_layer.in_features, device=like.device)
        contexts = _contexts(made, context)
        for layer, below, more in zip(_hidden(made), counts, contexts, strict=True):
            order = layer.degrees.argsort(stable=True)
            weight = layer.weight.index_select(0, order).index_select(1, before)
            shift = None if more is None else more.index_select(1, order)
            self.layers.append(_Layer(weight, layer.bias.index_select(0, order), below, like[:, :0], shift))
            before = order
        self.final = made.final_layer.weight.index_select(1, before)
        self.known = self.outputs = like[:, :0]

    def hidden(self, x: Tensor, degree: int) -> Tensor:
        """The last hidden units up to `degree`, (batch, units), from that many features."""
        made, layers = self.made, iter(self.layers)
        values = next(layers).next(x[:, self.known.shape[1] :], degree)
        self.known = x
        if not made.use_residual_blocks:
            values = made.activation(values)
        for block in made.blocks:
            if isinstance(block, MaskedResidualBlock):
                inner = next(layers).next(block.activation(values), degree)
                values = values + next(layers).next(block.activation(inner), degree)
            else:
                values = block.activation(next(layers).next(values, degree))
        self.outputs = torch.cat([self.outputs, values], 1)
        return self.outputs


def _contexts(made: MADE, context: Tensor | None) -> Iterator[Tensor | None]:
    """What a context adds to every hidden layer, (batch, units); None for nothing."""
    yield None if context is None else made.activation(made.context_layer(context))
    for block in made.blocks:
        residual = isinstance(block, MaskedResidualBlock)
        yield block.context_layer(context) if residual and context is not None else None
        if residual:
            yield None
