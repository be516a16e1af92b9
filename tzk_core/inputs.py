"""Checks of a user's arguments to a model: shape, type and finiteness."""

from __future__ import annotations

import torch
from torch import Tensor

from tzk_core.errors import TzkError


def check_observations(T: Tensor, shape: tuple[int, ...], what: str = "T", *, like: Tensor | None = None) -> None:
    """Raise `TzkError` unless T is a finite, floating, non-empty (batch, *shape), like `like`.

    `like` has the type and the device that T must have.
    """
    expected = "(batch, " + ", ".join(map(str, shape)) + ")"
    if not isinstance(T, Tensor):
        raise TzkError(f"{what} is expected as a torch tensor {expected}; got {type(T).__name__}: torch.as_tensor")
    if T.dim() != len(shape) + 1 or tuple(T.shape[1:]) != tuple(shape):
        raise TzkError(f"{what} is expected as {expected}; got {tuple(T.shape)}")
    if T.shape[0] == 0:
        raise TzkError(f"{what} is an empty batch: {tuple(T.shape)}")
    if not T.is_floating_point():
        raise TzkError(
            f"{what} is expected in floating point; got {T.dtype}. "
            "Dequantise grey levels first: tzk_core.data.dequantise.dequantise"
        )
    if like is not None and (T.dtype, T.device) != (like.dtype, like.device):
        raise TzkError(
            f"{what} is {T.dtype} on {T.device} and the model {like.dtype} on {like.device}: "
            f"convert one of them, {what}.to({like.dtype}) or model.to({T.dtype})"
            if T.device == like.device
            else f"{what} is on {T.device} and the model on {like.device}: move one of them"
        )
    if not torch.isfinite(T).all():
        row = int((~torch.isfinite(T.flatten(1)).all(1)).nonzero()[0])
        raise TzkError(f"{what} holds nan or infinity, first in row {row}")


def check_domain(logabsdet: Tensor, what: str = "T", *, first: int = 0) -> None:
    """Raises `TzkError` where encoding found no finite log-determinant, (batch,): outside the domain of the flow.

    first: what the error calls row 0, where the batch is a part of more.
    """
    if not torch.isfinite(logabsdet).all():
        row = first + int((~torch.isfinite(logabsdet)).nonzero()[0])
        hint = (
            ". A flow that begins with a logit expects dequantised grey levels, in [0, 1]: for other data build it "
            'with their domain, such as domain = "real"'
            if what == "T"
            else ", and has no finite T"
        )
        raise TzkError(f"{what} is outside the domain of the flow, first in row {row}{hint}")


def check_presence(presence: Tensor, batch: int, name: str) -> None:
    """Raise `TzkError` unless presence is (batch,) of 0, 1 and nan, which is missing."""
    expected = f"presence of {name!r} is expected as ({batch},) of 0, 1 and nan"
    if not isinstance(presence, Tensor) or tuple(presence.shape) != (batch,):
        got = f"{tuple(presence.shape)} {presence.dtype}" if isinstance(presence, Tensor) else type(presence).__name__
        raise TzkError(f"{expected}; got {got}")
    known = presence[~presence.isnan()] if presence.is_floating_point() else presence
    if not ((known == 0) | (known == 1)).all():
        wrong = known[(known != 0) & (known != 1)][0].item()
        raise TzkError(f"{expected}; got {wrong:g} among them")


def check_characteristics(C: Tensor, batch: int, length: int, *, name: str) -> None:
    """Raises `TzkError` unless C is a finite (batch, length)."""
    if not isinstance(C, Tensor):
        raise TzkError(
            f"characteristics of knowledge type {name!r} are expected as a torch tensor ({batch}, {length}); got "
            f"{type(C).__name__}: torch.as_tensor"
        )
    if C.dim() != 2 or tuple(C.shape) != (batch, length):
        raise TzkError(
            f"characteristics of knowledge type {name!r} are expected as ({batch}, {length}); got {tuple(C.shape)}"
        )
    if not torch.compiler.is_compiling() and not torch.isfinite(C).all():  # a graph has no branch on values
        raise TzkError(f"characteristics of knowledge type {name!r} hold nan or infinity")


def check_observed(C: Tensor, batch: int, length: int, *, name: str) -> None:
    """Raises `TzkError` unless C is (batch, length), finite, rows of nan being unobserved."""
    expected = f"characteristics of {name!r} are expected as ({batch}, {length}), finite or nan"
    if not isinstance(C, Tensor):
        raise TzkError(f"{expected}; got {type(C).__name__}: torch.as_tensor")
    if tuple(C.shape) != (batch, length) or C.is_complex():
        raise TzkError(f"{expected}; got {tuple(C.shape)} {C.dtype}")
    if C.isinf().any() or C.float().isinf().any():
        raise TzkError(f"{expected}; got some with infinity in it, or more than single precision holds")


def characteristics_rows(characteristics: Tensor, n: int, length: int, *, name: str, like: Tensor) -> Tensor:
    """C, (n, length), from (length,) or (n, length).

    Raises:
        TzkError: for another shape, or a type or device other than that of `like`.
    """
    C = torch.as_tensor(characteristics).to(like)
    C = C.expand(n, -1) if C.dim() == 1 else C
    check_characteristics(C, n, length, name=name)
    return C
