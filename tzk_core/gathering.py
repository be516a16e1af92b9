"""Observations as people have them, made tensors.

They are numpy arrays, pandas frames, torch data sets and loaders.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torch.utils.data import default_collate as collate

from tzk_core.errors import TzkError

CHUNK = 1024


class Gathered(NamedTuple):
    """T, (n, *shape), presence, (n,) by knowledge type, and characteristics, (n, c) by knowledge type."""

    T: Any
    presence: dict[str, Any]
    characteristics: dict[str, Any]


def as_tensor(values: Any, what: str = "T", *, like: Tensor) -> Any:
    """A numpy array, or frame or series of pandas, as a tensor.

    Whatever has `to_numpy` is taken, as frames and series do.

    Real values get the type and device of `like`, integers keep theirs. Anything else is returned as it is, tensors
    included: whoever takes it checks it.

    Raises:
        TzkError: for a frame or an array of something else than numbers.
    """
    if hasattr(values, "to_numpy"):
        values = values.to_numpy()
    if not isinstance(values, np.ndarray):
        return values
    if values.dtype == object:  # as frames have it whose columns are of several types, or have a missing integer
        try:
            values = values.astype(np.float64)
        except (TypeError, ValueError) as error:
            raise TzkError(f"{what} is expected to hold numbers; {error}: choose the columns of numbers") from None
    if values.dtype.kind not in "fiub":
        raise TzkError(f"{what} is expected to hold numbers; got an array of {values.dtype}")
    tensor = torch.from_numpy(np.ascontiguousarray(values.astype(values.dtype.newbyteorder("="), copy=False)))
    return tensor.to(like) if tensor.is_floating_point() else tensor


def gather(
    T: Any, presence: Mapping[str, Any] | None, characteristics: Mapping[str, Any] | None, *, like: Tensor
) -> Gathered:
    """What is trained on, as tensors.

    A torch `Dataset` or `DataLoader` is read once, into memory. It yields T, or (T, presence) or
    (T, presence, characteristics), both by knowledge type as `fit` takes them; what it yields is on the CPU.

    Raises:
        TzkError: for a loader whose items are something else, or where both it and the arguments have knowledge.
    """
    if isinstance(T, DataLoader | Dataset):
        if presence or characteristics:
            raise TzkError(
                "presence and characteristics belong to the samples: have the data set yield "
                "(T, presence, characteristics), in place of passing them beside it"
            )
        T, presence, characteristics = _read(T)
    return Gathered(
        as_tensor(T, like=like),
        {name: as_tensor(column, f"presence of {name!r}", like=like) for name, column in (presence or {}).items()},
        {name: as_tensor(C, f"characteristics of {name!r}", like=like) for name, C in (characteristics or {}).items()},
    )


def _read(source: DataLoader[Any] | Dataset[Any]) -> Gathered:
    parts = [_parts(batch) for batch in _batches(source)]
    if not parts:
        raise TzkError("the data set yields nothing: expected at least one sample")
    names = [{name for part in parts for name in part[number]} for number in (1, 2)]
    for number, what in ((1, "presence"), (2, "characteristics")):
        for name in sorted(names[number - 1]):
            if any(name not in part[number] for part in parts):
                raise TzkError(f"the {what} of {name!r} is missing in some batches: yield nan where it is not known")
    return Gathered(
        torch.cat([part.T for part in parts]),
        {name: torch.cat([part.presence[name] for part in parts]) for name in sorted(names[0])},
        {name: torch.cat([part.characteristics[name] for part in parts]) for name in sorted(names[1])},
    )


def _batches(source: DataLoader[Any] | Dataset[Any]) -> Iterator[Any]:
    if isinstance(source, DataLoader):
        yield from source
    else:
        yield from DataLoader(source, batch_size=CHUNK, collate_fn=collate)


def _parts(batch: Any) -> Gathered:
    T, *known = batch if isinstance(batch, tuple | list) else (batch,)
    if not isinstance(T, Tensor) or len(known) > 2 or not all(isinstance(part, Mapping) for part in known):
        shown = ", ".join(type(part).__name__ for part in (T, *known))
        raise TzkError(
            "a data set is expected to yield T, or (T, presence) or (T, presence, characteristics), both by the name "
            f"of a knowledge type; got ({shown}). Labels become presence, such as {{'digit-3': float(label == 3)}}; "
            "where they are of no use, yield T alone"
        )
    presence, characteristics = (dict(part) for part in (*known, {}, {})[:2])
    return Gathered(T.cpu(), presence, characteristics)
