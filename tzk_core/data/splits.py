"""Cutting splits that a data set does not bring from its training data, by seed."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tzk_core.data.protocol import SPLITS
from tzk_core.errors import TzkError
from tzk_core.random_streams import numpy_stream


def cut(
    count: int, taken: int, seed: int, *names: str, split: str = "validation"
) -> tuple[np.ndarray, np.ndarray]:
    """Positions `(rest, taken)` of `count` samples, each ascending, disjoint, together all of them.

    Depends on (seed, names, split, count, taken) only. `names` say whose data it is, so that two data sets
    with one seed are cut independently. Raises TzkError unless 0 <= taken < count.
    """
    if not 0 <= taken < max(count, 1):
        raise TzkError(
            f"{' '.join(names)}: {split} = {taken}, expected at least 0 and less than the {count} "
            "training samples that it is cut from"
        )
    order = numpy_stream(seed, split, *names).permutation(count)
    return np.sort(order[taken:]), np.sort(order[:taken])


def divide(
    counts: Mapping[str, int], validation: int | None, test: int | None, seed: int, name: str
) -> dict[str, tuple[str, np.ndarray]]:
    """For each split: which of the given parts it is taken from, and the positions there, ascending.

    counts: how many samples there are in each part that the data brings: "train", and maybe "validation" and
        "test". Those that it does not bring are cut from "train" by `seed`, the test split first.
    validation, test: how many to cut; None for a tenth of the training samples, rounded down.
    Raises TzkError if there is no "train", or a number is given for a part that the data brings.
    """
    if "train" not in counts:
        raise TzkError(f"{name}: there is {' and '.join(counts) or 'nothing'}, but no train")
    result = {part: (part, np.arange(count)) for part, count in counts.items()}
    for split, taken in (("test", test), ("validation", validation)):
        if split not in counts:
            rows = result["train"][1]
            wanted = counts["train"] // 10 if taken is None else taken
            rest, chosen = cut(len(rows), wanted, seed, name, split=split)
            result["train"], result[split] = ("train", rows[rest]), ("train", rows[chosen])
        elif taken is not None:
            raise TzkError(f"{name}: {split} = {taken} asks to cut a {split} split, but the data brings one")
    return {split: result[split] for split in SPLITS}
