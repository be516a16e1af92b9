"""nflows' residual network of a coupling by its matrices, without a call of every part."""

from __future__ import annotations

from typing import Any

import torch
from nflows.nn.nets import ResidualNet
from nflows.nn.nets.resnet import ResidualBlock
from torch import Tensor, nn
from torch.nn import functional


def regressed(network: nn.Module, inputs: Tensor, context: Tensor | None) -> Tensor:
    """`network(inputs, context)`, (batch, outputs).

    A `ResidualNet` of linear layers and relu alone is computed from its parameters. Without gradients relu and sums
    write over their arguments.
    """
    parameters = None if context is not None or torch.compiler.is_compiling() else parameters_of(network)
    if parameters is None:
        outputs: Tensor = network(inputs, context)
        return outputs
    kept = torch.is_grad_enabled()
    hidden = functional.linear(inputs, parameters[0], parameters[1])
    for start in range(2, len(parameters) - 2, 4):
        weight, bias, outer_weight, outer_bias = parameters[start : start + 4]
        within = functional.linear(hidden.relu(), weight, bias)
        change = functional.linear(within.relu() if kept else within.relu_(), outer_weight, outer_bias)
        hidden = hidden + change if kept else change.add_(hidden)
    return functional.linear(hidden, parameters[-2], parameters[-1])


def parameters_of(network: Any) -> list[Tensor] | None:
    """Weights and biases in turn, in the order of the layers.

    None unless the network is a `ResidualNet` of linear layers and relu alone, that nothing is hooked to.
    """
    if type(network) is not ResidualNet or _hooked(network):
        return None
    layers = [network.initial_layer]
    for block in network.blocks:
        if not _plain(block):
            return None
        layers += block.linear_layers
    layers.append(network.final_layer)
    parameters: list[Tensor] = []
    for layer in layers:
        if type(layer) is not nn.Linear or _hooked(layer):
            return None
        parameters += [layer.weight, layer.bias]
    return parameters


def _plain(block: Any) -> bool:
    """Whether a block has linear layers and relu alone."""
    if type(block) is not ResidualBlock or block.use_batch_norm or block.activation is not functional.relu:
        return False
    return not (_hooked(block) or (block.training and block.dropout.p > 0))


def _hooked(module: nn.Module) -> bool:
    """Whether something else is called with the module."""
    return bool(
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    )
