"""The Lagrange multipliers of Eq. 5."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from tzk_core.errors import TzkError
from tzk_core.settings import ObjectiveTable

_DEFAULTS = ObjectiveTable()


@dataclass
class Multipliers:
    """The multipliers λ_i of Eq. 5, by dual ascent towards a tolerance.

    λ stays below ½: above it the objective pushes the better of encoder and decoder down instead of the worse one up.

    values: by knowledge type, its λ; `ascend` changes them in place.
    tolerance: the inconsistency that is tolerated, in nats per sample in which the knowledge is present.
    rate: the largest change of λ in a step, which is proportional to the inconsistency over the tolerance, less 1.
    maximum: the largest λ, below ½.

    Raises `TzkError` for a maximum or a tolerance out of bounds.
    """

    values: dict[str, float]
    tolerance: float = _DEFAULTS.tolerance
    rate: float = _DEFAULTS.multiplier_rate
    maximum: float = _DEFAULTS.multiplier_max

    def __post_init__(self) -> None:
        if not 0 <= self.maximum < 0.5:
            raise TzkError(f"multipliers are expected in [0, 0.5); got a maximum of {self.maximum}")
        if not self.tolerance > 0:
            raise TzkError(f"the tolerance of inconsistency is expected above 0 nats; got {self.tolerance}")

    def ascend(self, inconsistency: Mapping[str, Tensor | float]) -> None:
        """Take one step of dual ascent on the inconsistencies of one batch, in nats."""
        for name, nats in inconsistency.items():
            excess = min(1.0, max(-1.0, float(nats) / self.tolerance - 1))
            self.values[name] = min(self.maximum, max(0.0, self.values.get(name, 0.0) + self.rate * excess))
