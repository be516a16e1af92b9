"""State dicts as safetensors, and back into modules."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import safetensors.numpy
import safetensors.torch
import torch
from torch import Tensor

from tzk_core.errors import TzkError
from tzk_core.storage.budget import Budget, TooLarge


def of(module: torch.nn.Module) -> dict[str, Tensor]:
    """Copies of parameters and buffers, on the CPU, by the keys of the state dict."""
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in module.state_dict().items()}


def stored(module: torch.nn.Module, *, half: bool) -> dict[str, Tensor]:
    """What is written of a module; with `half` in float16 what float16 has exactly."""
    tensors = of(module)
    for name, tensor in tensors.items() if half else ():
        if tensor.dtype == torch.float32 and torch.equal(tensor.half().float(), tensor):
            tensors[name] = tensor.half()
    return tensors


def written(tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> bytes:
    """Tensors on the CPU as safetensors.

    By way of numpy, which takes a third of the time, where it has all of their types.
    """
    said = None if metadata is None else dict(metadata)
    try:
        arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
    except TypeError:  # bfloat16
        return safetensors.torch.save(dict(tensors), metadata=said)
    return safetensors.numpy.save(arrays, metadata=said)


def parse(file: bytes, where: Path, *, half: bool = False) -> dict[str, Tensor]:
    """The tensors of a file; float16 becomes float32 unless `half`.

    Args:
        where: what errors call the file.

    Raises:
        TzkError: if it is no safetensors.
    """
    try:
        tensors = safetensors.torch.load(file)
    except Exception as error:
        raise TzkError(f"{where} is not a readable safetensors file ({error})") from error
    if half:
        return tensors
    return {name: tensor.float() if tensor.dtype == torch.float16 else tensor for name, tensor in tensors.items()}


def load_into(module: torch.nn.Module, tensors: Mapping[str, Tensor], where: Path) -> None:
    """Put tensors into a module, which takes their type.

    Raises:
        TzkError: where they do not fit.
    """
    module.to(next((tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()), None))
    check(module, tensors, where)
    module.load_state_dict(tensors)


def not_finite(tensors: Mapping[str, Tensor]) -> str:
    """The name of the first tensor that holds nan or infinity; "" if none does."""
    sums = [each.sum(dtype=torch.float64) for each in tensors.values()]
    if sums and torch.isfinite(torch.stack(sums)).all():
        return ""  # most often: a nan or an infinity would be in its sum
    return next((name for name, each in tensors.items() if not torch.isfinite(each).all()), "")


def check_finite(tensors: Mapping[str, Tensor], where: Path) -> None:
    """Raises `TzkError` where a tensor holds nan or infinity."""
    if name := not_finite(tensors):
        raise TzkError(
            f"{where} holds nan or infinity, in {name!r}: the model was saved after its training had diverged. "
            "Open an earlier checkpoint, or train it again"
        )


@contextmanager
def no_larger_than(tensors: Mapping[str, Tensor], where: Path) -> Iterator[None]:
    """Within the block, modules that are built may hold about as much as a file.

    Raises:
        TzkError: before they hold more.
    """
    try:
        with Budget(sum(each.numel() for each in tensors.values()), len(tensors)):
            yield
    except TooLarge as error:
        raise TzkError(
            f"{where} does not fit the model that is described beside it: {error}. What describes it was altered"
        ) from None


def check(module: torch.nn.Module, tensors: Mapping[str, Tensor], where: Path) -> None:
    """Raises `TzkError` where keys or shapes are not those of the module."""
    check_shapes(shapes_of(module), tensors, where)


def shapes_of(module: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    """The shapes of what is written of a module, by key."""
    return {key: tuple(tensor.shape) for key, tensor in module.state_dict().items()}


def check_shapes(expected: Mapping[str, tuple[int, ...]], tensors: Mapping[str, Tensor], where: Path) -> None:
    """Raises `TzkError` where keys or shapes are not as expected."""
    found = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
    if found == expected:
        return
    wrong = [key for key in expected if found.get(key) != expected[key]] + [key for key in found if key not in expected]
    shapes = [shapes.get(wrong[0], "no such tensor") for shapes in (expected, found)]
    raise TzkError(
        f"{where} does not fit the model: {len(wrong)} tensors differ, first {wrong[0]!r}, expected as "
        f"{shapes[0]}, found as {shapes[1]}. It was written for another model, or by another version of its parts"
    )
