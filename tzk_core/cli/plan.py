"""The plan of a run, shown before it starts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tzk_core.cli import output
from tzk_core.config import Config


def plan(config: Config, described: Mapping[str, Any], folder: Path) -> str:
    """The plan as text, from what `Experiment.describe` returns."""
    parameters = dict(described["parameters"])
    flow = parameters.pop("flow")
    rows = [("device", f"{described['device']}, {config.dtype}")]
    rows += [("data", f"{name}: {_splits(splits)}") for name, splits in described["data"].items()]
    for table, counts in described["kept"].items():
        rows.append(("labels", f"{table}: {_of(counts['labelled'], counts['labels'])}"))
        if counts["characteristics"]:
            rows.append(("C", f"{table}: {_of(counts['characterised'], counts['characteristics'])}"))
    rows.append(("parameters", f"shared flow: {output.count(flow)}"))
    if parameters:
        types = output.count(len(parameters), "knowledge type")
        rows.append(("parameters", f"{types}: {output.count(sum(parameters.values()))}"))
    cap = f", at most {config.training.minutes:g} minutes" if config.training.minutes else ""
    how = ", compiled in the first" if described["compile"] else ""
    steps = f"{output.count(described['steps'], 'step')} of {described['batch_size']}"
    rows.append(("training", f"{steps}{cap}{how}"))
    rows.append(("validation", _validation(config.training.validate_every, described["validation"])))
    rows.append(("run folder", str(folder)))
    rows += [("note", note) for note in described["notes"]]
    return f"{config.name}\n{output.fields(rows)}"


def _validation(every: int, samples: Mapping[str, int]) -> str:
    """The data sets that training is validated on, and those that it is not."""
    if not every:
        return "none (validate_every = 0)"
    there = ", ".join(f"{name}: {output.count(count)}" for name, count in samples.items() if count)
    lacking = [name for name, count in samples.items() if not count]
    if not there:
        return "none: no data set has a validation split, and the last checkpoint is the one that is used"
    without = f"; not on {', '.join(lacking)}, without a validation split" if lacking else ""
    return f"{there}, every {output.count(every, 'step')}{without}"


def _splits(splits: Mapping[str, int]) -> str:
    return ", ".join(f"{output.count(number)} {split}" for split, number in splits.items())


def _of(kept: int, all_of_them: int) -> str:
    return f"kept in {output.count(kept)} of {output.count(all_of_them, 'training sample')}"
