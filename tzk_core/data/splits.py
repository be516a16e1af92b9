"""Cutting a validation split from training data, by seed."""

from __future__ import annotations

import numpy as np

from tzk_core.errors import TzkError
from tzk_core.random_streams import numpy_stream


def cut(count: int, validation: int, seed: int, *names: str) -> tuple[np.ndarray, np.ndarray]:
    """Positions `(train, validation)` of `count` samples, each ascending, disjoint, together all of them.

    Depends on (seed, names, count, validation) only. `names` say whose data it is, so that two data sets with
    one seed are cut independently. Raises TzkError unless 0 <= validation < count.
    """
    if not 0 <= validation < max(count, 1):
        raise TzkError(
            f"{' '.join(names)}: validation = {validation}, expected at least 0 and less than the {count} "
            "training samples that it is cut from"
        )
    order = numpy_stream(seed, "validation", *names).permutation(count)
    return np.sort(order[validation:]), np.sort(order[:validation])
