"""The wordings of the objective, for each place where the paper's own is unsound."""

from __future__ import annotations

from dataclasses import dataclass

from tzk_core.errors import TzkError

_CHOICES = {"fill_in": ("bound", "literal", "prior"), "prior": ("full", "paper"), "unlabelled": ("sum", "skip")}


@dataclass(frozen=True)
class Wording:
    """The choice between two wordings of the objective, for each of three places.

    fill_in: "bound": a variable filled in from q contributes log M - log q, which is bounded. "literal": log M, as
        the paper words it, which grows without limit as the encoder narrows. "prior": as "bound", but C is sampled
        from p(C), so that it says nothing of T: a run to compare with, for what C is worth.
    prior: "paper": the decoder divides by p(T) of present knowledge. Each knowledge type present then takes (½ - λ s)
        from the weight of log p(T). "full": the same value, but no gradient through that division, Jacobian
        included, so that the weight of log p(T) stays 1. In both the true joint is a stationary point.
    unlabelled: "sum": a missing κ is summed over, exactly. "skip": such a sample takes no part in the knowledge type,
        which then learns from labels alone.

    Raises `TzkError` for any other value.
    """

    fill_in: str = "bound"
    prior: str = "full"
    unlabelled: str = "sum"

    def __post_init__(self) -> None:
        for key, known in _CHOICES.items():
            if getattr(self, key) not in known:
                raise TzkError(f"objective.{key} is one of {', '.join(known)}; got {getattr(self, key)!r}")

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
