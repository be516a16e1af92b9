"""Faster computations for a flow that somebody wrote.

What plugins bring takes the place of its layers.
"""

from __future__ import annotations

import warnings
from typing import TypeVar

from torch import nn

from tzk_core.errors import Note, TzkError
from tzk_core.implementations import places, use_implementations
from tzk_core.tensors import like_of

Module = TypeVar("Module", bound=nn.Module)


def accelerate(flow: Module) -> Module:
    """Put installed plugins' implementations in the place of a flow's layers.

    Returns the flow.

        flow = tzk_core.accelerate(nflows.flows.Flow(transform, base))

    It may be a flow or a transform of nflows, a `SharedFlow`, a `TzK` or any module with such layers inside. It is
    changed in place: parameters, buffers and networks are the same objects, so that the state dict and optimisers stay
    as they are, and results are the same to rounding. `tzk-plugin-fast-nflows` has implementations of nflows' layers.

    Args:
        flow: on the device that it will compute on; call this again after moving it.

    Returns:
        The flow itself, or what took its place where it is a layer.

    Raises:
        TzkError: for anything but a module.
    """
    if not isinstance(flow, nn.Module):
        raise TzkError(f"a flow is expected as a torch module, such as an nflows Flow; got {type(flow).__name__}")
    device = like_of(flow).device.type
    holder = nn.ModuleList([flow])
    use_implementations(holder, device)
    if not places(holder, device):
        message = f"no installed plugin has a faster implementation on {device!r} of any layer in this flow"
        warnings.warn(Note(f"{message}: pip install tzk-plugin-fast-nflows has some of nflows'"), stacklevel=2)
    replaced: Module = holder[0]  # type: ignore[assignment]
    return replaced
