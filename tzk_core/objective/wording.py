"""The wordings of the objective, for each place where the paper's own is unsound."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from tzk_core.errors import TzkError, nearest
from tzk_core.settings import WordingTable

_FIELDS = WordingTable.model_fields


@dataclass(frozen=True)
class Wording:
    """The choice between wordings of the objective, for each key of `WordingTable`.

    Raises:
        TzkError: for a value that is none of a place's wordings.
    """

    fill_in: str = _FIELDS["fill_in"].default
    prior: str = _FIELDS["prior"].default
    unlabelled: str = _FIELDS["unlabelled"].default

    def __post_init__(self) -> None:
        for key, field in _FIELDS.items():
            known, value = get_args(field.annotation), getattr(self, key)
            if value not in known:
                also = nearest(str(value), known)
                raise TzkError(f"objective.{key} is one of {', '.join(known)}; got {value!r}{also}")

    @property
    def is_literal(self) -> bool:
        """Whether missing variables are filled in as the paper words it."""
        return self.fill_in == "literal"

    @property
    def cuts_characteristics_off(self) -> bool:
        """Whether a missing C is sampled from its prior, whatever T is."""
        return self.fill_in == "prior"

    @property
    def divides_by_prior(self) -> bool:
        """Whether the decoder's division by p(T) has a gradient, as in the paper."""
        return self.prior == "paper"

    @property
    def skips_unlabelled(self) -> bool:
        """Whether samples take no part in knowledge types whose κ is missing."""
        return self.unlabelled == "skip"

    @property
    def sums_exclusive(self) -> bool:
        """Whether exclusive knowledge types are summed over together, where κ is missing."""
        return not (self.is_literal or self.skips_unlabelled)
