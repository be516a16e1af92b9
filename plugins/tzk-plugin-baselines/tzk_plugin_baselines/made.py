"""Autoregressive layers on nflows' MADE: affine ones, and mixtures of Gaussians (Papamakarios et al. 2017)."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from nflows.transforms.autoregressive import MaskedAffineAutoregressiveTransform
from nflows.transforms.base import Transform
from nflows.transforms.made import MADE, MaskedLinear
from torch import Tensor
from torch.nn import functional

from tzk_core.errors import TzkError
from tzk_plugin_baselines.mixture import Mixture, from_gaussian, to_gaussian

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": functional.relu, "tanh": torch.tanh}
"""Of hidden units. Those of "tanh" are bounded: far outside of the training data, scale and shift are constants."""

LEAST_SCALE = 1e-2
"""The least standard deviation of a component, as in nflows' MixtureOfGaussiansMADE, whose inputs are of scale 1."""


START = math.log(math.expm1(1 - 1e-3))
"""What nflows' softplus(·) + 1e-3 takes to a scale of 1."""


class AutoregressiveAffine(MaskedAffineAutoregressiveTransform):
    """nflows' layer of a masked autoregressive flow, (batch, features).

    Its degrees reach all features, and its inverse costs one evaluation of the network.

    Args:
        activation: one of `ACTIVATIONS`.

    Raises:
        TzkError: for an activation of another name.
    """

    def __init__(
        self, features: int, *, hidden: int, blocks: int, context: int | None = None, activation: str = "relu"
    ) -> None:
        if activation not in ACTIVATIONS:
            raise TzkError(f"a masked network's activation is one of {', '.join(ACTIVATIONS)}; got {activation!r}")
        function = ACTIVATIONS[activation]
        super().__init__(features, hidden, context, blocks, use_residual_blocks=False, activation=function)
        self.output_shape = (features,)
        made = self.autoregressive_net
        spread_degrees(made)
        with torch.no_grad():  # scale 1, shift 0
            made.final_layer.weight.mul_(0.01)
            made.final_layer.bias.copy_(torch.tensor([START, 0.0]).repeat(features))

    def inverse(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        outputs = invert(self.autoregressive_net, inputs, solve=self._solve, context=context)
        return outputs, -self.forward(outputs, context)[1]

    def _solve(self, y: Tensor, parameters: Tensor) -> Tensor:
        scale = functional.softplus(parameters[:, 0]) + self._epsilon
        return (y - parameters[:, 1]) / scale


class MixtureMade(Transform):
    """z_i = Φ⁻¹(F_i(x_i given x_<i)), F_i a mixture of `components` Gaussians.

    A MADE regresses the mixtures. z is (batch, features).

    With a standard Gaussian base the density is that of MADE MoG: log φ(z) + log|det| is its log-density.
    """

    def __init__(self, features: int, *, hidden: int, blocks: int, components: int, context: int | None = None) -> None:
        super().__init__()
        self.output_shape = (features,)
        self.components = components
        self.made = MADE(features, hidden, context, blocks, 3 * components, use_residual_blocks=False)
        spread_degrees(self.made)
        with torch.no_grad():  # equal weights, means spread over what is standardised, scales of about 1
            final = self.made.final_layer
            final.weight.mul_(0.1)
            start = torch.stack(
                [torch.zeros(components), torch.linspace(-1.5, 1.5, components), torch.full((components,), 0.3)]
            )
            final.bias.copy_(start.T.flatten().repeat(features))

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        z, log_slope = to_gaussian(inputs, self._mixtures(self.made(inputs, context)))
        return z, log_slope.sum(1)

    def inverse(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        outputs = invert(self.made, inputs, solve=self._solve, context=context)
        return outputs, -self.forward(outputs, context)[1]

    def _mixtures(self, parameters: Tensor) -> Mixture:
        """The mixtures of all features, (batch, features, components)."""
        logits, means, raw_scales = parameters.view(parameters.shape[0], -1, self.components, 3).unbind(-1)
        return Mixture(logits.log_softmax(-1), means, functional.softplus(raw_scales) + LEAST_SCALE)

    def _solve(self, z: Tensor, parameters: Tensor) -> Tensor:
        return from_gaussian(z.unsqueeze(1), self._mixtures(parameters)).squeeze(1)


def spread_degrees(made: MADE) -> None:
    """Spread the degrees of a layer's hidden units evenly over 1 to features - 1.

    They ascend in order.

    nflows counts 1, 2, 3, …: with fewer hidden units than features nothing would depend on the last features. With a
    context they start at 0: such units see nothing else, and the first feature sees them.
    """
    inputs = made.initial_layer.degrees.new_tensor(range(1, made.initial_layer.in_features + 1))
    hidden = inputs.new_tensor(_degrees(made))
    for layer, before in [(made.initial_layer, inputs), *((block.linear, hidden) for block in made.blocks)]:
        layer.degrees.copy_(hidden)
        _mask(layer, hidden[:, None] >= before)
    _mask(made.final_layer, made.final_layer.degrees[:, None] > hidden)


def _mask(layer: MaskedLinear, mask: Tensor) -> None:
    """Set the mask, which follows from the sizes and need not be in checkpoints."""
    layer.register_buffer("mask", mask.to(layer.mask), persistent=False)


def _degrees(made: MADE) -> list[int]:
    """The degrees of a layer's hidden units, in ascending order.

    What depends on the first i features is then the first units of a layer.
    """
    features, units = made.initial_layer.in_features, made.initial_layer.out_features
    least = 0 if hasattr(made, "context_layer") else 1
    return [least + unit * max(0, features - 1 - least) // max(1, units - 1) for unit in range(units)]


def invert(made: MADE, outputs: Tensor, *, solve: Callable[[Tensor, Tensor], Tensor], context: Tensor | None) -> Tensor:
    """x, (batch, features), with outputs_i = y(x_i; parameters_i(x_<i)), feature after feature.

    `solve` computes x_i, (batch,), from outputs_i and parameters_i, (batch, multiplier). A hidden unit is computed
    once, as soon as the features that it depends on are known: the masks of `spread_degrees` are prefixes.
    """
    features, units = made.initial_layer.in_features, made.initial_layer.out_features
    multiplier = made.final_layer.out_features // features
    degrees = _degrees(made)
    layers = [made.initial_layer, *(block.linear for block in made.blocks)]
    from_context = None if context is None else made.activation(made.context_layer(context))
    x = outputs[:, :0]
    hidden = [x for _ in layers]
    first = 0
    for feature in range(features):
        last = first
        while last < units and degrees[last] <= feature:
            last += 1
        if last > first:
            below = x
            for number, layer in enumerate(layers):
                weight = layer.weight[first:last, : below.shape[1]]
                new = functional.linear(below, weight, layer.bias[first:last])
                if number == 0 and from_context is not None:
                    new = new + from_context[:, first:last]
                below = hidden[number] = torch.cat([hidden[number], made.activation(new)], 1)
            first = last
        rows = slice(feature * multiplier, (feature + 1) * multiplier)
        final = made.final_layer
        parameters = functional.linear(hidden[-1], final.weight[rows, :first], final.bias[rows])
        x = torch.cat([x, solve(outputs[:, feature], parameters).unsqueeze(1)], 1)
    return x
