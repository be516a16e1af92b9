"""A finished run, opened with what is installed here.

What is missing is left out and named, and the rest is whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from tzk_core.config import Config, KnowledgeTable, load_run_config
from tzk_core.errors import TzkError
from tzk_core.names import glob
from tzk_core.plugins import Dataset, MissingPlugin, registry
from tzk_core.runs.experiment import Experiment
from tzk_core.runs.folder import RunFolder
from tzk_core.storage.places import checkpoint_in
from tzk_core.storage.stored import manifest_of


def open_run(folder: Path, record: Mapping[str, Any] | None = None) -> Experiment:
    """The experiment of a run with its model, on its available data sets.

    Data sets whose plugins are not installed are left out.

    Knowledge types whose plugins are not are opaque in the model; a missing part of the shared flow is an error.

    Args:
        record: of the run, which says what its plugins were installed from; by default run.json.

    Raises `TzkError` if nothing is left to evaluate.
    """
    config, notes = usable_config(folder, record)
    known = list(manifest_of(checkpoint_in(folder))["knowledge"])
    return Experiment(config, known=known, trained=folder, notes=notes)


def usable_config(folder: Path, record: Mapping[str, Any] | None = None) -> tuple[Config, list[str]]:
    """The config of a run without the data sets that are not available here.

    With it comes a note for whatever is left out.

    Arguments and errors are those of `open_run`.
    """
    run = RunFolder(folder)
    config = load_run_config(run.config)
    recorded = (run.read_record() if record is None else record).get("plugins", [])
    sources = {plugin["name"]: f"{plugin['distribution']} {plugin['version']}" for plugin in recorded}
    gone = _missing(config, sources)
    notes = [f"Data set {name!r} is left out: {reason}." for name, reason in gone.items()]
    lacking = ""
    try:
        registry().require(config.plugins, wanted_by=f"the config {config.name!r}")
    except MissingPlugin as error:
        lacking = f"{error}."
    if len(gone) == len(config.datasets):
        reasons = " ".join([*notes, lacking]).rstrip()
        raise TzkError(f"{folder} cannot be evaluated, since none of its data sets can be had here. {reasons}")
    if lacking:
        notes.append(f"Evaluated without a plugin: {lacking}")
    return (_without(config, gone, notes), notes) if gone else (config, notes)


def _missing(config: Config, sources: Mapping[str, str]) -> dict[str, str]:
    """By data set that cannot be had here, what to install, and why."""
    missing = {}
    for table in config.datasets:
        try:
            registry().find(Dataset, table.type).load()
        except TzkError as error:
            source = sources.get(table.type.partition("/")[0]) if "/" in table.type else None
            missing[table.name] = f"it needs {source} ({error})" if source else str(error)
    return missing


def _without(config: Config, gone: Mapping[str, str], notes: list[str]) -> Config:
    """The config without these data sets, and without what is about them alone.

    Adds to the notes.
    """
    everywhere = [table.name for table in config.datasets]
    tables = [_narrowed(table, everywhere, gone) for table in config.knowledge]
    dropped = [old.name for old, new in zip(config.knowledge, tables, strict=True) if new is None]
    if dropped:
        notes.append(f"Not evaluated, since present in data sets that are left out alone: {', '.join(dropped)}.")
    titles: dict[str, dict[str, tuple[str, ...]]] = {}
    for key in ("partitions", "means"):
        whole: Mapping[str, tuple[str, ...]] = getattr(config.evaluation, key)
        titles[key] = {title: globs for title, globs in whole.items() if not _touches(globs, dropped)}
        notes += [f"The row {title!r} is left out with them." for title in whole if title not in titles[key]]
    return config.model_copy(
        update={
            "datasets": tuple(table for table in config.datasets if table.name not in gone),
            "knowledge": tuple(table for table in tables if table is not None),
            "published": tuple(row for row in config.published if row.dataset not in gone),
            "evaluation": config.evaluation.model_copy(update=titles),
        }
    )


def _narrowed(table: KnowledgeTable, everywhere: Sequence[str], gone: Mapping[str, str]) -> KnowledgeTable | None:
    """A table of knowledge without data sets; None if it names no other."""
    conditions = {}
    for key in ("present", "unobserved"):
        condition = getattr(table, key)
        left = tuple(name for name in table.datasets(everywhere, key) if name not in gone)
        named = {"dataset": left} if "dataset" in condition else {}
        conditions[key] = {**condition, **named} if condition and left else {}
    return table.model_copy(update=conditions) if conditions["present"] or conditions["unobserved"] else None


def _touches(globs: Sequence[str], patterns: Sequence[str]) -> bool:
    """Whether globs over names of knowledge may match one from these tables, such as `digit-{label}`."""
    return any(
        fnmatchcase(pattern, one) or fnmatchcase(one, glob(pattern)) or fnmatchcase(glob(pattern), one)
        for one in globs
        for pattern in patterns
    )
