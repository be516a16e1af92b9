"""Checks of a `Dataset`: shapes, types, columns, and the same samples at every call."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from tzk_core.data.protocol import SPLITS, Dataset, Samples
from tzk_core.errors import TzkError
from tzk_core.testing.expectations import NotConforming, expect, expect_finite, expect_shape


def check_dataset(dataset: Dataset) -> None:
    """Check that a `Dataset` has three splits as promised, the same at every call.

    Raises:
        NotConforming: with what was expected and what it got.
    """
    name = type(dataset).__name__
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
    columns: dict[str, tuple[set[str], set[str]]] = {}
    for split in SPLITS:
        samples, again = dataset.split(split), dataset.split(split)
        _check_samples(f"{name}, split {split!r}", dataset, samples)
        columns[split] = (set(samples.labels), set(samples.characteristics))
        same = torch.equal(samples.T, again.T) and all(
            key in again.labels and np.array_equal(column, again.labels[key]) for key, column in samples.labels.items()
        )
        expect(same, f"{name}: split {split!r} should be the same each time; it differs")
    expect(
        columns["train"] == columns["validation"] == columns["test"],
        f"{name}: every split should have the same columns; got {columns}",
    )
    try:
        dataset.split("no-such-split")
    except TzkError:
        return
    raise NotConforming(f"{name}: split('no-such-split') should raise TzkError; it returned")


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
        expect(
            isinstance(values, Tensor) and values.dtype == torch.float32,
            f"{where}: characteristic {key!r} should be a float32 tensor",
        )
        expect_shape(f"{where}: characteristic {key!r}", values, (len(samples),))
