"""The paper's regressor: four linear layers of 70 units with PReLU (Section 3)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from tzk_core.closed_form import hooked, usable
from tzk_core.distributions.perceptron import perceptron
from tzk_core.errors import TzkError


class Regressor(nn.Sequential):
    """(…, inputs) to (…, outputs), starting at zero.

    The last layer starts at zero, so that the distribution that it parametrises starts neutral.
    """

    def __init__(self, inputs: int, outputs: int, *, hidden: int = 70, layers: int = 4) -> None:
        if hidden < 1 or layers < 1:
            raise TzkError(f"a network has hidden units and layers: got hidden = {hidden}, layers = {layers}")
        widths = [inputs] + [hidden] * (layers - 1)
        parts: list[nn.Module] = []
        for before, after in zip(widths[:-1], widths[1:], strict=True):
            parts += [nn.Linear(before, after), nn.PReLU()]
        super().__init__(*parts, nn.Linear(widths[-1], outputs))
        self.inputs = inputs

    def initialise(self, generator: torch.Generator) -> None:
        """Sample He-normal weights from `generator`; set biases and the last layer to zero."""
        linear = [part for part in self if isinstance(part, nn.Linear)]
        for layer in linear:
            deviation = math.sqrt(2 / layer.in_features) if layer is not linear[-1] else 0.0
            noise = torch.randn(layer.weight.shape, generator=generator)
            with torch.no_grad():
                layer.weight.copy_(deviation * noise)
                layer.bias.zero_()

    @torch.no_grad()
    def start_linear(self, weight: Tensor) -> None:
        """Make the first outputs linear in the inputs, whatever the hidden units.

        A pair of hidden units carries each product: PReLU(a) - PReLU(-a) = (1 + slope) a. Where there are fewer pairs
        than rows the last rows are left out. The other units keep their weights, and add nothing to these outputs yet.

        Args:
            weight: (n, inputs).
        """
        linear = [part for part in self if isinstance(part, nn.Linear)]
        slopes = [float(part.weight) for part in self if isinstance(part, nn.PReLU)]
        carried = weight.to(linear[0].weight)
        for layer, slope in zip(linear, [0.0, *slopes], strict=True):
            last = layer is linear[-1]
            carried = carried[: layer.out_features // (1 if last else 2)] / (1 + slope)
            rows = carried if last else torch.stack([carried, -carried], 1).flatten(0, 1)
            layer.weight[: len(rows)] = rows
            layer.bias[: len(rows)] = 0.0
            # the difference of a pair carries its product on to the next layer
            pairs = torch.eye(len(carried), layer.out_features // 2).to(carried)
            carried = torch.stack([pairs, -pairs], -1).flatten(1)
            carried = torch.nn.functional.pad(carried, (0, layer.out_features - carried.shape[1]))

    def forward(self, inputs: Tensor) -> Tensor:
        if usable(inputs) and self._is_plain():
            return perceptron(inputs, [value for part in self for value in part._parameters.values()])  # type: ignore
        return super().forward(inputs)  # type: ignore[no-untyped-call]

    def _is_plain(self) -> bool:
        """Whether these are the layers of the constructor, without hooks."""
        types = [type(part) for part in self]
        own = types == [nn.Linear, nn.PReLU] * (len(types) // 2) + [nn.Linear]
        return own and all(part._parameters.get("bias", part) is not None for part in self) and not hooked(*self)
