"""A small checkpoint, without the state of its training.

Its weights are in half precision where that is enough.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from tzk_core.errors import TzkError
from tzk_core.model import TzK
from tzk_core.storage.checkpoint import copy_checkpoint, load_checkpoint, save_checkpoint

RELATIVE_ERROR = 2**-11
"""Of a tensor, root mean square: that of float16 itself, whose numbers have 11 binary digits."""


def pack_checkpoint(source: Path, folder: Path, *, half: bool = False) -> list[str]:
    """Write the checkpoint `source` as `folder` without the state of its training.

    All else is copied byte for byte.

    half: float32 tensors are rounded to float16 and stored so, but for those where this errs by more than
    `RELATIVE_ERROR`, which stay as they are; their names are returned. The shared flow is then another one, so that its
    hash changes, and with it that which every knowledge type of this checkpoint says it was trained with. Knowledge
    that was exported elsewhere does not fit it any more. Raises `TzkError` if the checkpoint is damaged, and with
    `half` if it holds knowledge that cannot be used here.
    """
    if not half:
        copy_checkpoint(source, folder)
        return []
    model = load_checkpoint(source)
    for opaque in model.opaque.values():
        raise TzkError(f"{opaque.reason}: weights that cannot be read cannot be rounded; pack without --half")
    kept = round_to_half(model)
    save_checkpoint(model, folder, half=True)
    return kept


@torch.no_grad()
def round_to_half(model: TzK) -> list[str]:
    """Round float32 parameters and buffers to what float16 has, in place.

    Returns:
        The names of those that keep theirs.
    """
    kept = []
    for name, tensor in model.state_dict().items():
        if tensor.dtype == torch.float32:
            rounded = tensor.half().float()
            if _close(rounded, tensor):
                tensor.copy_(rounded)
            else:
                kept.append(name)
    return kept


def _close(rounded: Tensor, tensor: Tensor) -> bool:
    """Whether rounding errs by a share of `RELATIVE_ERROR` at most.

    More than 65,504 becomes infinite, and does not.
    """
    error, size = (each.double().square().sum().sqrt() for each in (rounded - tensor, tensor))
    return bool(error <= RELATIVE_ERROR * size)
