"""One page that compares several runs.

It has figures side by side, validation in one chart, and where configs differ.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tzk_core.errors import TzkError
from tzk_core.report.words import UNITS, compared, listed
from tzk_core.storage import atomic
from tzk_plugin_report.page import UNITS as UNITS_EXPLAINED
from tzk_plugin_report.page import assets, template
from tzk_plugin_report.provenance import commands
from tzk_plugin_report.reading import Run, read_run
from tzk_plugin_report.tables import Cell, Column, Table, number, share


def write_comparison(folders: Sequence[Path], file: Path) -> Path:
    """Write the page that compares runs.

    Raises:
        TzkError: if a folder is no run, or no run has been evaluated.
    """
    runs = [read_run(folder) for folder in folders]
    if not any(run.rows for run in runs):
        raise TzkError(f"none of {listed([str(run.path) for run in runs])} has been evaluated: expected a results.json")
    atomic.write(file, render(runs))
    return file


def render(runs: Sequence[Run]) -> str:
    """The page as HTML."""
    curves = _curves(runs)
    return template("comparison.html.j2").render(
        title=f"{len(runs)} runs compared",
        over="Runs of TzK, compared",
        name=listed([label(run, runs) for run in runs]),
        sections=[{"id": "answer", "title": "Answer"}, {"id": "figures", "title": "Figures"}]
        + ([{"id": "curves", "title": "Validation"}] if curves else [])
        + [{"id": "differences", "title": "Configs"}, {"id": "provenance", "title": "Get it again"}],
        answer=list(sentences(runs)),
        units=UNITS_EXPLAINED,
        figures=figures(runs),
        curves=curves,
        differences=differences(runs),
        commands=[command for run in runs for command in (f"# {label(run, runs)}", *commands(run)[1:])],
        data={"curves": curves, "planes": []},
        **assets(),
    )


def label(run: Run, runs: Sequence[Run]) -> str:
    """The name of a run, or its folder where several have one name."""
    return run.path.name if sum(other.name == run.name for other in runs) > 1 else run.name


def sentences(runs: Sequence[Run]) -> Iterator[str]:
    """Which run is the best on every data set, and by how much."""
    shared = [dataset for dataset in _datasets(runs) if sum(bool(run.rows_of(dataset, "prior")) for run in runs) > 1]
    if not shared:
        yield "These runs have no data set in common: figures stand side by side below, and cannot be compared."
    for dataset in shared:
        priors = {label(run, runs): row for run in runs for row in run.rows_of(dataset, "prior")}
        for unit in UNITS:
            values = {name: row[unit] for name, row in priors.items() if row.get(unit) is not None}
            if len(values) > 1 and len(values) == len(priors):
                best, *others = sorted(values, key=lambda name: values[name])
                beside = [f"{compared(values[best], values[other])} {other}" for other in others]
                yield f"On {dataset} {best} is the best, {values[best]:.3f} {UNITS[unit]}: {listed(beside)}."
                break
        else:
            yield f"On {dataset} no unit is common to the figures of these runs."


def figures(runs: Sequence[Run]) -> Table:
    """A row for every run and data set."""
    header = [
        Column("run"),
        Column("data set"),
        Column("prior", "bits/dim"),
        Column("±", "bits/sample"),
        Column("prior", "bits/pixel"),
        Column("best given knowledge", "bits/dim"),
        Column("told apart", "share"),
        Column("step"),
    ]
    rows = []
    for run in runs:
        for dataset in _datasets([run]):
            for prior in run.rows_of(dataset, "prior"):
                given = [row["bits_per_dim"] for row in run.rows_of(dataset, "knowledge")]
                told = [
                    entry["discriminator_accuracy"]
                    for entry in run.results.get("classification", ())
                    if entry["dataset"] == dataset
                ]
                cells = [
                    Cell(label(run, runs)),
                    Cell(dataset),
                    number(prior.get("bits_per_dim")),
                    number(prior.get("standard_error"), 1),
                    number(prior.get("bits_per_pixel")),
                    number(min(given, default=None)),
                    share(min(told, default=None)),
                    number(run.results.get("step"), 0),
                ]
                rows.append(cells)
    return Table(header, rows)


def differences(runs: Sequence[Run]) -> Table:
    """A row for every key of the configs that differs, a column for every run."""
    flat = [dict(_leaves(run.config)) for run in runs]
    keys = dict.fromkeys(key for leaves in flat for key in leaves)
    rows = [
        [Cell(key), *(Cell(_shown(leaves.get(key))) for leaves in flat)]
        for key in keys
        if len({_shown(leaves.get(key)) for leaves in flat}) > 1
    ]
    return Table([Column("key"), *(Column(label(run, runs)) for run in runs)], rows)


def _datasets(runs: Sequence[Run]) -> list[str]:
    return list(dict.fromkeys(str(row["dataset"]) for run in runs for row in run.rows if row.get("dataset")))


def _curves(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """One panel: validation of all runs over step, or the training where none was validated."""
    for prefix, title in (("validation/", "Validation"), ("bits_per_dim/", "Training")):
        found = {
            f"{label(run, runs)}, {name.removeprefix(prefix)}": dict(zip(run.columns["step"], values, strict=True))
            for run in runs
            for name, values in run.columns.items()
            if name.startswith(prefix) and any(value is not None for value in values)
        }
        logged = [(step, value) for by_step in found.values() for step, value in by_step.items()]
        steps = sorted({step for step, value in logged if step is not None and value is not None})
        if len(steps) > 1:
            series = [
                {"label": name, "dashed": False, "values": [by_step.get(step) for step in steps]}
                for name, by_step in found.items()
            ]
            panel = {"key": "validation", "title": title, "unit": "bits/dim", "reading": "lower is better"}
            return [panel | {"steps": steps, "series": series}]
    return []


def _leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Values of a config by their dotted keys; tables in a list by their name."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _leaves(inner, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
        for position, item in enumerate(value):
            yield from _leaves(item, f"{key}.{item.get('name', position)}")
    else:
        yield key, value


def _shown(value: Any) -> str:
    return "—" if value is None else str(value)
