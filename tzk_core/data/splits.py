"""Splits that a data set does not have, cut from its training data by seed."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tzk_core.data.protocol import SPLITS
from tzk_core.errors import TzkError
from tzk_core.random_streams import numpy_stream

MOST_DRAWN = 10**7
"""The largest split of a data set that is drawn; one is held in memory whole."""


def check_drawn(counts: Mapping[str, int], name: str) -> None:
    """Check the numbers of samples that a data set draws, by split.

    Raises:
        TzkError: for a negative number, or one above `MOST_DRAWN`.
    """
    for split, count in counts.items():
        if not 0 <= count <= MOST_DRAWN:
            raise TzkError(f"{name}: {split} = {count}, expected a number of samples, 0 to {MOST_DRAWN:,}")


def cut(count: int, taken: int, seed: int, *names: str, split: str = "validation") -> tuple[np.ndarray, np.ndarray]:
    """Cut `taken` of `count` samples at random.

    The result depends on (seed, names, split, count, taken) alone.

    Args:
        names: of the data, so that two data sets with one seed are cut independently.

    Returns:
        Positions of the rest and of those taken, ascending both; together they are all positions.

    Raises:
        TzkError: unless 0 <= taken < count.
    """
    if not 0 <= taken < max(count, 1):
        raise TzkError(
            f"{' '.join(names)}: {split} = {taken}, expected at least 0 and less than the {count} "
            "training samples that it is cut from"
        )
    order = numpy_stream(seed, split, *names).permutation(count)
    return np.sort(order[taken:]), np.sort(order[:taken])


def divide(
    counts: Mapping[str, int], *, validation: int | None, test: int | None, seed: int, name: str
) -> dict[str, tuple[str, np.ndarray]]:
    """The supplied split that each split is from, and its positions there, ascending.

    Args:
        counts: the number of samples of each supplied split: "train", and perhaps "validation" and "test". The others
            are cut from "train" by `seed`, the test split first.
        validation, test: the number to cut; None for a tenth of the training samples, rounded down.
        name: of the data set.

    Raises:
        TzkError: if there is no "train", or a number for a split that is supplied.
    """
    if "train" not in counts:
        raise TzkError(f"{name}: there is {' and '.join(counts) or 'nothing'}, but no train")
    result = {supplied: (supplied, np.arange(count)) for supplied, count in counts.items()}
    for split, taken in (("test", test), ("validation", validation)):
        if split not in counts:
            rows = result["train"][1]
            number = counts["train"] // 10 if taken is None else taken
            rest, chosen = cut(len(rows), number, seed, name, split=split)
            result["train"], result[split] = ("train", rows[rest]), ("train", rows[chosen])
        elif taken is not None:
            raise TzkError(f"{name}: {split} = {taken} asks to cut a {split} split, but the data brings one")
    return {split: result[split] for split in SPLITS}
