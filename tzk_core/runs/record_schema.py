"""The keys of run.json that other commands rely on, as a pydantic model.

What else is in it is for people.
"""

from __future__ import annotations

from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, model_validator


class LineageEntry(BaseModel):
    """One change of a trained model.

    pending: it was begun, and a kill may have come before its end.
    """

    model_config = ConfigDict(strict=True)

    run: str = ""
    action: str = ""
    knowledge: list[str] = []
    pending: bool = False

    @model_validator(mode="after")
    def _settles(self) -> Self:
        if self.pending and not (self.action and self.knowledge):
            raise ValueError("what is pending is expected to have an action and knowledge")
        return self


class PluginEntry(BaseModel):
    """A plugin that was there when the run began."""

    model_config = ConfigDict(strict=True)

    name: str
    distribution: str
    version: str


class ObservationsEntry(BaseModel):
    """The observations that a model was trained on. levels: of grey; None for real-valued ones."""

    model_config = ConfigDict(strict=True)

    shape: list[int]
    levels: int | None = Field(ge=2, le=256)


class Record(BaseModel):
    """run.json; versions before this one lack some of it."""

    model_config = ConfigDict(strict=True)

    name: str = ""
    status: str = "finished"
    command: str = ""
    config: dict[str, Any] = {}
    timings: dict[str, FiniteFloat] = {}
    sessions: list[dict[str, Any]] = []
    resumes: list[dict[str, Any]] = []
    observations: ObservationsEntry | None = None
    plugins: list[PluginEntry] = []
    lineage: list[LineageEntry] = []
