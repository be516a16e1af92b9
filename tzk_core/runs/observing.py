"""The observers of a config, and what they receive at the end of a run."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tzk_core.config import AdditionSpec, Config
from tzk_core.plugins import Observer as ObserverSpec
from tzk_core.plugins import registry
from tzk_core.training.guarded import observer_of
from tzk_core.training.observers import End, Observer


def observers_of(config: Config | AdditionSpec) -> list[Observer]:
    """The observers that a config or a spec names, guarded.

    Raises:
        TzkError: if one cannot be made.
    """
    return [observer_of(registry().find(ObserverSpec, table.type), table.arguments) for table in config.observers]


def report_end(
    observers: Sequence[Observer], folder: Path, results: Mapping[str, Any], *, step: int, best_step: int
) -> None:
    """Call every observer with the results of a run, after its folder is complete."""
    for observer in observers:
        observer.on_end(End(step, best_step, folder, MappingProxyType(copy.deepcopy(dict(results)))))
