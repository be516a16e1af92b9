"""Checks of a `Dataset`: shapes, types, columns, disjoint splits, and repeatability.

It has the same samples at every call and everywhere.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tzk_core.data.protocol import SPLITS, Dataset, Samples
from tzk_core.errors import TzkError
from tzk_core.testing.expectations import NotConforming, expect, expect_finite, expect_shape, returning
from tzk_plugin_kit.fingerprints import fingerprint, fingerprint_elsewhere
from tzk_plugin_kit.state import different, random_states

PICTURES = ((1, 9, 7), (3, 12, 12))
"""Shapes of pictures, (channels, height, width), that `prepare` gets."""

OVERLAP = 0.5
"""The largest share of test samples that may be in train or validation by chance, as of a few discrete observations."""

SAME = "derive all from the arguments: sort what a set or a folder lists, and draw from a generator of a fixed seed"


def check_dataset(
    dataset: Dataset | Callable[[], Dataset], *, overlap: float = OVERLAP, another_process: bool = True
) -> None:
    """Check that a `Dataset` has three splits as promised.

    They are the same at every call and in another process.

    The splits may not share samples, memory or columns that the others lack. No value is infinite. Reading changes no
    global random numbers. `prepare` converts pictures of other sizes, or raises `TzkError`.

    Args:
        dataset: a data set, or what makes one, such as its class or a `functools.partial` of it. That is made anew,
            here and in the other process, which finds what the constructor leaves to chance.
        overlap: the largest share of test samples that may equal samples of the other splits.
        another_process: whether to compare with another process, which takes two or three seconds.

    Raises:
        NotConforming: with what was expected, what it got and what to change.
    """
    make = dataset if callable(dataset) else None
    streams = random_states()
    with returning("the constructor of the data set", "Give all arguments defaults"):
        made: Any = dataset if make is None else make()
    name = type(made).__name__
    _check_attributes(name, made)
    splits: dict[str, Samples] = {}
    for split in SPLITS:
        where = f"{name}, split {split!r}"
        with returning(where):
            splits[split], again = made.split(split), made.split(split)
        _check_samples(where, made, splits[split])
        _check_same(where, splits[split], again)
        if make is not None:
            _check_same(f"{where}, made again,", splits[split], make().split(split))
        _check_memory(where, made, split)
    used = different(streams, random_states())
    expect(
        not used,
        f"{name}: should leave global random numbers as they are; it changes {', '.join(used)}:"
        " use a generator of its own, such as tzk_core.random_streams.numpy_stream(seed, name)",
    )
    _check_apart(name, splits, overlap)
    _check_refusal(name, made)
    _check_prepare(name, made)
    if another_process:
        _check_elsewhere(name, dataset, splits)


def _check_attributes(name: str, dataset: Any) -> None:
    missing = [key for key in ("name", "shape", "levels", "original_dims", "split") if not hasattr(dataset, key)]
    expect(not missing, f"{name}: a data set has {', '.join(missing)}: see tzk_core.data.protocol.Dataset")
    expect(isinstance(dataset.name, str) and bool(dataset.name), f"{name}: name should be a text")
    expect(
        isinstance(dataset.shape, tuple) and all(isinstance(size, int) and size > 0 for size in dataset.shape),
        f"{name}: shape should be a tuple of positive integers; got {dataset.shape!r}",
    )
    dims = math.prod(dataset.shape)
    expect(
        dataset.original_dims is None or 0 < dataset.original_dims <= dims,
        f"{name}: original_dims should be None or from 1 to {dims}; got {dataset.original_dims!r}",
    )


def _check_samples(where: str, dataset: Dataset, samples: Samples) -> None:
    expect(isinstance(samples, Samples), f"{where}: Samples expected; got {type(samples).__name__}")
    expect(len(samples) > 0, f"{where}: there are no samples")
    expect_shape(f"{where}: T", samples.T, (len(samples), *dataset.shape))
    dtype = torch.float32 if dataset.levels is None else torch.uint8
    expect(
        samples.T.dtype == dtype,
        f"{where}: T should be {dtype} where levels is {dataset.levels}; got {samples.T.dtype}",
    )
    if dataset.levels is None:
        expect_finite(f"{where}: T", samples.T)
    else:
        largest = int(samples.T.max())
        expect(largest < dataset.levels, f"{where}: T should be below levels={dataset.levels}; got {largest}")
    for key, column in samples.labels.items():
        texts = isinstance(column, np.ndarray) and all(isinstance(value, str) for value in column.tolist())
        expect(texts, f"{where}: label column {key!r} should be an array of texts")
    for key, values in samples.characteristics.items():
        what = f"{where}: characteristic {key!r}"
        expect(
            isinstance(values, Tensor) and values.dtype == torch.float32,
            f"{what} should be a float32 tensor",
        )
        expect_shape(what, values, (len(samples),))
        infinite = int(values.isinf().sum())
        expect(not infinite, f"{what} should be finite, or nan where it is not known; {infinite} values are infinite")


def _check_same(where: str, samples: Samples, again: Samples) -> None:
    differ = different(fingerprint(samples), fingerprint(again))
    expect(not differ, f"{where} should be the same each time; it differs in {', '.join(differ)}: {SAME}")


def _check_memory(where: str, dataset: Dataset, split: str) -> None:
    """Change the samples that one call returned; the next call may not show it."""
    samples = dataset.split(split)
    before = fingerprint(samples)
    tensors = {"T": samples.T, **samples.characteristics}
    kept = {key: values.clone() for key, values in tensors.items()}
    labels = {key: column.copy() for key, column in samples.labels.items() if column.flags.writeable}
    for values in tensors.values():
        values.copy_(values.flip(0) + 1)
    for key in labels:
        samples.labels[key][:] = ""
    differ = different(before, fingerprint(dataset.split(split)))
    for key, values in kept.items():
        tensors[key].copy_(values)
    for key, column in labels.items():
        samples.labels[key][:] = column
    expect(
        not differ,
        f"{where}: samples should be the caller's own; what changes them changes {', '.join(differ)} of the next call:"
        " return copies (`clone()`, `copy()`) of what the data set holds",
    )


def _check_apart(name: str, splits: dict[str, Samples], overlap: float) -> None:
    """Check that the splits have equal columns and other samples."""
    columns = {split: (set(samples.labels), set(samples.characteristics)) for split, samples in splits.items()}
    expect(
        columns["train"] == columns["validation"] == columns["test"],
        f"{name}: every split should have the same columns; got {columns}",
    )
    rows = {split: [row.tobytes() for row in samples.T.numpy()] for split, samples in splits.items()}
    for split, other in (("test", "train"), ("test", "validation"), ("validation", "train")):
        known = set(rows[other])
        share = sum(row in known for row in rows[split]) / len(rows[split])
        expect(
            share <= overlap,
            f"{name}: {split} should have other samples than {other}; {share:.0%} of them are the same: set samples"
            " aside before training sees them, or pass overlap=1 where there are few different observations",
        )


def _check_refusal(name: str, dataset: Dataset) -> None:
    try:
        dataset.split("no-such-split")
    except TzkError:
        return
    except Exception as error:
        raise NotConforming(
            f"{name}: split('no-such-split') should raise TzkError; it raises {type(error).__name__}: begin with"
            " tzk_core.data.protocol.check_split(split)"
        ) from error
    raise NotConforming(
        f"{name}: split('no-such-split') should raise TzkError; it returned: begin with"
        " tzk_core.data.protocol.check_split(split)"
    )


def _check_prepare(name: str, dataset: Any) -> None:
    """Check that `prepare` makes an observation of any picture, or says why it cannot."""
    prepare = getattr(dataset, "prepare", None)
    if prepare is None:
        return
    generator = torch.Generator().manual_seed(0)
    for shape in PICTURES:
        picture = torch.randint(256, shape, generator=generator, dtype=torch.uint8)
        before, what = picture.clone(), f"{name}: prepare of a picture {shape}"
        with returning(what, "Raise TzkError, with the name of the file, for a picture that cannot be converted"):
            try:
                prepared, again = prepare(picture, "picture.png"), prepare(picture, "picture.png")
            except TzkError as error:
                expect("picture.png" in str(error), f"{what}: its TzkError should name the file; it says {error}")
                continue
        expect_shape(what, prepared, dataset.shape)
        dtype = torch.uint8
        expect(prepared.dtype == dtype, f"{what} should be {dtype}, as of what split returns; got {prepared.dtype}")
        if dataset.levels is not None:
            largest = int(prepared.max())
            expect(largest < dataset.levels, f"{what} should be below levels={dataset.levels}; got {largest}")
        expect(torch.equal(prepared, again), f"{what} should be the same each time; it differs: use no random numbers")
        expect(torch.equal(picture, before), f"{what} should leave the picture as it is; it changes it: copy it first")


def _check_elsewhere(name: str, dataset: Any, splits: dict[str, Samples]) -> None:
    """Check that another process, with another order of sets, reads the same samples."""
    rebuilt = dataclasses.is_dataclass(dataset) and not isinstance(dataset, type)
    fresh: Any = dataclasses.replace(dataset) if rebuilt else dataset
    ours = {split: fingerprint(samples) for split, samples in splits.items()}
    for split, theirs in fingerprint_elsewhere(name, fresh).items():
        differ = different(ours[split], theirs)
        expect(
            not differ,
            f"{name}, split {split!r}, should be the same in another process; it differs in {', '.join(differ)}:"
            f" {SAME}",
        )
