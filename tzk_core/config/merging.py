"""The config of a run with a spec, and the part that adding needs."""

from __future__ import annotations

from typing import Any

from tzk_core.config.schema import AdditionSpec, Config, DatasetTable
from tzk_core.settings import TrainingTable


def merged(config: Config, addition: AdditionSpec) -> Config:
    """The config of the whole: everything of the run, and what is added."""
    evaluation, more = config.evaluation, addition.evaluation
    titles: dict[str, Any] = {
        key: {**getattr(evaluation, key), **getattr(more, key)} for key in ("partitions", "means")
    }
    titles["metrics"] = (*evaluation.metrics, *(table for table in more.metrics if table not in evaluation.metrics))
    return config.model_copy(
        update={
            "name": addition.name,
            "plugins": tuple(dict.fromkeys([*config.plugins, *addition.plugins])),
            "datasets": _datasets(config, addition),
            "knowledge": (*config.knowledge, *addition.knowledge),
            "evaluation": evaluation.model_copy(update=titles),
            "observers": addition.observers,
        }
    )


def narrowed(config: Config, addition: AdditionSpec) -> Config:
    """A config of the new knowledge alone.

    It has the data sets that the spec repeats, adds or names.
    A condition that names no data set speaks of all.
    """
    named = {table.name for table in addition.datasets}
    everything = _datasets(config, addition)
    everywhere = tuple(table.name for table in everything)
    for table in addition.knowledge:
        for key in ("present", "unobserved"):
            if getattr(table, key):
                named |= set(table.datasets(everywhere, key))
    training = addition.training
    return config.model_copy(
        update={
            "name": addition.name,
            "seed": addition.seed,
            "device": addition.device or config.device,
            "plugins": addition.plugins,
            "datasets": tuple(table for table in everything if table.name in named),
            "knowledge": addition.knowledge,
            "training": TrainingTable(steps=training.steps, batch_size=training.batch_size),
            "evaluation": addition.evaluation,
            "pictures": addition.pictures or config.pictures,
            "observers": addition.observers,
            "published": (),
        }
    )


def _datasets(config: Config, addition: AdditionSpec) -> tuple[DatasetTable, ...]:
    older = {table.name for table in config.datasets}
    return (*config.datasets, *(table for table in addition.datasets if table.name not in older))
