"""The structure of a checkpoint's training state, as pydantic models.

It is checked before any of it is used.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from tzk_core.errors import TzkError
from tzk_core.storage.schema import first_problem


class _OptimizerPart(BaseModel):
    """Who offers the optimiser of a state."""

    model_config = ConfigDict(strict=True)

    name: str
    plugin: str
    distribution: str
    version: str


class State(BaseModel):
    """The state of a training to go on from.

    Older versions lack banks, validations and the optimiser's part.
    """

    model_config = ConfigDict(strict=True)

    step: int = Field(ge=0)
    seconds: float = Field(ge=0, allow_inf_nan=False)
    optimizer: dict[str, Any]
    optimizer_part: _OptimizerPart | None = None
    banks: list[Any] = []
    multipliers: dict[str, float]
    validations: list[dict[str, Any]] = []
    sums: dict[str, float]
    counts: dict[str, int]


class BestState(BaseModel):
    """What is kept beside the best model by validation."""

    model_config = ConfigDict(strict=True)

    step: int = Field(ge=0)
    multipliers: dict[str, float]
    validated: dict[str, Any]


def checked_state(model: type[BaseModel], state: Mapping[str, Any], folder: Path) -> Mapping[str, Any]:
    """The state. Raises `TzkError` naming what is wrong first with its structure."""
    if wrong := first_problem(model, state):
        raise TzkError(f"{folder / 'trainer.pt'} does not hold the state of a training ({wrong}){_ADVICE}")
    return state


class _WithMultipliers(BaseModel):
    model_config = ConfigDict(strict=True)

    multipliers: dict[str, float] = {}


def multipliers_in(state: Mapping[str, Any], folder: Path) -> Mapping[str, float]:
    """The multipliers of a state of whatever training; none if it has none. Raises `TzkError`."""
    return checked_state(_WithMultipliers, state, folder).get("multipliers", {})


@contextmanager
def fitting(folder: Path) -> Iterator[None]:
    """Within it, what a state of another training makes torch raise is a `TzkError`."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise TzkError(f"{folder / 'trainer.pt'} does not fit this training ({first:.200}){_ADVICE}") from error


_ADVICE = ": it was written for another training, or altered. The model beside it opens without"
