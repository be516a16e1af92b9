"""What other commands rely on in run.json, as a pydantic model; what else is in it is for people."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict


class LineageEntry(BaseModel):
    """One thing that was done to a trained model. pending: it was begun, and a kill may have come before its end."""

    model_config = ConfigDict(strict=True)

    run: str = ""
    action: str = ""
    knowledge: list[str] = []
    pending: bool = False


class Record(BaseModel):
    """run.json; versions before this one lack some of it."""

    model_config = ConfigDict(strict=True)

    name: str = ""
    status: str = "finished"
    command: str = ""
    config: dict[str, Any] = {}
    timings: dict[str, float] = {}
    sessions: list[dict[str, Any]] = []
    resumes: list[dict[str, Any]] = []
    lineage: list[LineageEntry] = []
