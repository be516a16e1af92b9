"""Settings of a training from the tables of a config, or of a spec that is added to a run."""

from __future__ import annotations

from tzk_core.config import AdditionSpec, Config, ObjectiveTable
from tzk_core.objective import Wording
from tzk_core.training.adding.negatives import Negatives
from tzk_core.training.settings import Settings

_WORDING = {"fill_in", "prior", "unlabelled"}
_NEGATIVES = {"present_share", "own_samples", "own_types"}


def wording_of(objective: ObjectiveTable) -> Wording:
    """How the objective of a config is worded."""
    return Wording(**objective.model_dump(include=_WORDING))


def settings_of(config: Config) -> Settings:
    """How a config is trained."""
    return Settings(
        **config.training.model_dump(exclude={"labelled_share"}),
        wording=wording_of(config.objective),
        **config.objective.model_dump(exclude=_WORDING),
    )


def addition_settings(spec: AdditionSpec, objective: ObjectiveTable) -> tuple[Settings, Negatives]:
    """How a spec is trained on a run with this objective, and what its knowledge is told from."""
    training = spec.training
    settings = Settings(**training.model_dump(exclude=_NEGATIVES), wording=wording_of(objective))
    return settings, Negatives(**training.model_dump(include=_NEGATIVES))
