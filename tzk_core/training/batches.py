"""Where the observations of a training come from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from tzk_core.observations import Observations


class Batches(Protocol):
    """A source of observations.

    A batch depends on its step alone, so that a run can be resumed anywhere.
    """

    def batch(self, step: int) -> Observations: ...

    def sources(self, step: int) -> Mapping[str, slice]:
        """Data set -> its rows in the batch of this step."""
        ...
