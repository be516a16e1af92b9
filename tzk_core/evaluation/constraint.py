"""Notes on the constraint of Eq. 5, that encoder and decoder agree."""

from __future__ import annotations

from collections.abc import Mapping


def constraint_notes(multipliers: Mapping[str, float], tolerance: float, *, fixed: bool = False) -> list[str]:
    """A sentence for the reader of results where no λ is above 0, else none.

    Args:
        multipliers: λ at the end of training, by knowledge type; empty where none is known.
        tolerance: nats of inconsistency without a penalty.
        fixed: λ was 0 throughout.
    """
    if not multipliers or any(multiplier > 0 for multiplier in multipliers.values()):
        return []
    if fixed:
        return ["The constraint of Eq. 5 was off: nothing held encoder and decoder together."]
    return [
        "The multiplier λ ended at 0 for every knowledge type: at the end of training the constraint of Eq. 5, with "
        f"its tolerance of {tolerance:g} nats, was not active."
    ]
