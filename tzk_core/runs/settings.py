"""Settings of a training, from the tables of a config or of a spec."""

from __future__ import annotations

from tzk_core.config import AdditionSpec, Config
from tzk_core.settings import NegativesTable, ObjectiveTable, WordingTable
from tzk_core.training.adding.negatives import Negatives
from tzk_core.training.settings import Settings


def settings_of(config: Config) -> Settings:
    """How a config is trained."""
    return Settings(**config.training.model_dump(exclude={"labelled_share"}), **config.objective.model_dump())


def addition_settings(spec: AdditionSpec, objective: ObjectiveTable) -> tuple[Settings, Negatives]:
    """How a spec is trained on a run with this objective, and its negatives."""
    training = spec.training
    own = set(NegativesTable.model_fields)
    wording = objective.model_dump(include=set(WordingTable.model_fields))
    return Settings(**training.model_dump(exclude=own), **wording), Negatives(**training.model_dump(include=own))
