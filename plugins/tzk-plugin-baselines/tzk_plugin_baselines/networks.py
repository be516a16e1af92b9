"""Networks of couplings: nflows' residual networks that start at zero, with a vector as context."""

from __future__ import annotations

from nflows.nn.nets import ConvResidualNet, ResidualNet
from torch import Tensor, nn


def dense(inputs: int, outputs: int, *, hidden: int, blocks: int, context: int | None) -> nn.Module:
    """(batch, inputs) to (batch, outputs); the context is (batch, context)."""
    network = ResidualNet(inputs, outputs, hidden, context, blocks)
    _zero(network.final_layer)
    return network


class Convolutional(nn.Module):
    """A network from (batch, inputs, h, w) to (batch, outputs, h, w).

    The context, (batch, context), is the same at every pixel.
    """

    def __init__(self, inputs: int, outputs: int, *, hidden: int, blocks: int, context: int | None) -> None:
        super().__init__()
        self.network = ConvResidualNet(inputs, outputs, hidden, context, blocks)
        _zero(self.network.final_layer)

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> Tensor:
        if context is not None:
            context = context[:, :, None, None].expand(-1, -1, *inputs.shape[2:])
        return self.network(inputs, context)


def _zero(layer: nn.Module) -> None:
    nn.init.zeros_(layer.weight)  # type: ignore[arg-type]
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
