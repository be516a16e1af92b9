"""[objective]: Eq. 3 to 5 of the paper, and alternatives to its unsound wordings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from tzk_core.settings.table import FileName, PartTable, Table


class WordingTable(Table):
    """The choice between wordings, for each place where the paper's own is unsound."""

    fill_in: Literal["bound", "literal", "prior"] = Field(
        default="bound",
        description='"bound": a variable filled in from q contributes log M - log q, which is bounded. "literal": log '
        'M, as the paper words it, which grows without limit as the encoder narrows. "prior": as "bound", but C is '
        "sampled from p(C), so that it says nothing of T: a run to compare with, for what C is worth.",
    )
    prior: Literal["full", "paper"] = Field(
        default="full",
        description='"paper": the decoder divides by p(T) of present knowledge. Each knowledge type present then takes '
        '(½ - λ s) from the weight of log p(T). "full": the same value, but no gradient through that division, '
        "Jacobian included, so that the weight of log p(T) stays 1. In both the true joint is a stationary point.",
    )
    unlabelled: Literal["sum", "skip"] = Field(
        default="sum",
        description='"sum": a missing κ is summed over, exactly. "skip": such a sample takes no part in the knowledge '
        "type, which then learns from labels alone.",
    )


class TermTable(PartTable):
    """[[objective.terms]]: a value of every sample that is added to the objective, which is maximised."""

    type: str = Field(min_length=1, description="The registered objective term; all further keys are its arguments.")
    weight: float = Field(description="What its value is multiplied by; of a penalty too, whose values are negative.")
    name: FileName | None = Field(default=None, description="What the log calls it, where that is not its type.")

    @property
    def title(self) -> str:
        """What the log calls the term."""
        return self.name or self.type.rpartition("/")[2]


def _terms(value: Any) -> Any:
    """Terms as a file or a call has them, their arguments apart."""
    return tuple(map(_parted, value)) if isinstance(value, list | tuple) else value


def _parted(table: Any) -> Any:
    if not isinstance(table, Mapping) or "arguments" in table and set(table) <= set(TermTable.model_fields):
        return table
    own = {key: value for key, value in table.items() if key in ("type", "weight", "name")}
    return {**own, "arguments": {key: value for key, value in table.items() if key not in own}}


class ObjectiveTable(WordingTable):
    """[objective]: Eq. 3 to 5 of the paper."""

    emphasis: float = Field(
        default=0.0,
        ge=0,
        description="How many times more log p(κ given T) counts for every κ that was observed, as labels do in "
        "semi-supervised autoencoders (Kingma et al. 2014, Eq. 9). In Eq. 5 a label is worth a few nats beside the "
        "hundreds of T, so that a strong shared flow would be slow to gather what tells knowledge apart.",
    )
    negatives: int = Field(
        default=16,
        ge=1,
        le=10**6,
        description="With up to so many knowledge types in the data all absences are evaluated. With more, the types "
        "in a batch are told from so many of its samples, and so many of the types that no sample has are told from "
        "all of them, without bias.",
    )
    hidden_share: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="The share of every batch whose T is hidden, to be sampled from the model by the knowledge in it.",
    )
    kl_warmup: float = Field(
        default=0.2,
        ge=0,
        le=1,
        description="The share of the steps over which the KL of a C that was filled in rises from 0 to its full "
        "weight, so that C says something before it has to be worth its nats (Bowman et al. 2016; Sønderby et al. "
        "2016). Meanwhile C may become a name of T, which the rest of the steps has to undo.",
    )
    multiplier: float = Field(default=0.1, ge=0, description="Where the multiplier λ of every knowledge type starts.")
    multiplier_max: float = Field(
        default=0.45,
        ge=0,
        lt=0.5,
        description="The largest λ. Above ½ the objective pushes the better of encoder and decoder down instead of the "
        "worse one up.",
    )
    multiplier_rate: float = Field(
        default=1e-3,
        ge=0,
        description="The largest change of λ in a step, which is proportional to the inconsistency over the tolerance, "
        "less 1.",
    )
    tolerance: float = Field(
        default=10.0,
        gt=0,
        description="The inconsistency that is tolerated, in nats per sample in which the knowledge is present.",
    )
    terms: Annotated[tuple[TermTable, ...], BeforeValidator(_terms)] = Field(
        default=(), max_length=100, description="What is added to the objective beside Eq. 5, term by term."
    )
