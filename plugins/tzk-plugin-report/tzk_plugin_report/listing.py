"""`tzk list [FOLDER ...]`: runs with their figures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from tzk_core.cli import output
from tzk_core.errors import TzkError
from tzk_core.report.table import DASH
from tzk_core.report.words import percent
from tzk_core.runs.folder import RUNS
from tzk_core.strict_json import json_text

HEADER = ("RUN", "BEGUN", "STATE", "STEP", "DATA SET", "BITS/DIM", "BITS/PIXEL", "KNOWLEDGE", "TOLD APART")


@click.command(name="list")
@click.argument("folders", metavar="[FOLDER]...", nargs=-1, type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(*, folders: tuple[Path, ...], as_json: bool) -> None:
    """List the runs in FOLDER, runs/ by default, the latest first.

    A run has its state, the likelihood of the prior, and classification.

    FOLDER may be a run itself. What cannot be read is listed with its error, and the exit status is then 1.
    """
    entries = [entry for folder in folders or (RUNS,) for entry in _entries_below(folder)]
    entries.sort(key=lambda entry: str(entry["begun"] or ""), reverse=True)
    if as_json:
        output.say(json_text(entries))
    elif entries:
        output.say(output.columns(HEADER, [_cells(entry) for entry in entries]))
    else:
        where = ", ".join(str(folder) for folder in folders or (RUNS,))
        output.say(f"no runs in {where}; `tzk run CONFIG` makes one")
    errors = [entry for entry in entries if entry["error"]]
    for entry in errors:
        output.error(f"{entry['run']}: {entry['error']}")
    if errors:
        click.get_current_context().exit(1)


def _entries_below(folder: Path) -> Iterator[dict[str, Any]]:
    """The entries of a run, or of the runs right below a folder.

    Of what cannot be read there is one with the error.

    Raises:
        TzkError: for a folder that does not exist; runs/ need not.
    """
    try:
        if not folder.is_dir():
            if folder == RUNS:
                return
            what = f"{folder} is a file" if folder.exists() else f"there is no folder {folder}"
            raise TzkError(f"{what}: expected a run, or a folder of runs")
        below = [folder] if _is_run(folder) else sorted(folder.iterdir())
    except OSError as error:
        yield _unreadable(folder, error)
        return
    for path in below:
        if path != folder and path.name.startswith("."):
            continue
        try:
            if _is_run(path):
                yield from entries_of(path)
        except OSError as error:
            yield _unreadable(path, error)


def _is_run(path: Path) -> bool:
    return (path / "config.toml").is_file()


def _empty(path: Path) -> dict[str, Any]:
    """The entry of a run of which nothing is known."""
    figures = ("step", "dataset", "bits_per_dim", "bits_per_pixel", "knowledge", "told_apart")
    return {"run": str(path), **dict.fromkeys(("begun", "state", *figures, "error"))}


def _unreadable(path: Path, error: OSError) -> dict[str, Any]:
    return _empty(path) | {"state": "unreadable", "error": f"it cannot be read: {error.strerror}"}


def entries_of(path: Path) -> list[dict[str, Any]]:
    """The entries of a run, one for every data set.

    There is one without figures if there are no data sets with any.
    """
    from tzk_plugin_report.reading import read_run  # pydantic

    entry = _empty(path)
    try:
        run = read_run(path)
    except TzkError as error:
        return [entry | {"state": "damaged", "error": str(error)}]
    entry |= {"begun": run.record.get("started"), "state": run.record.get("status"), "step": run.results.get("step")}
    entry |= {"knowledge": len(run.knowledge) or None}
    told = {row["dataset"]: row["discriminator_accuracy"] for row in run.results.get("classification", ())}
    figures = ("dataset", "bits_per_dim", "bits_per_pixel")
    entries = [
        entry | {key: row.get(key) for key in figures} | {"told_apart": told.get(row["dataset"])}
        for row in run.rows
        if row["kind"] == "prior"
    ]
    return entries or [entry]


def _cells(entry: dict[str, Any]) -> tuple[str, ...]:
    def shown(key: str, form: str) -> str:
        return DASH if entry[key] is None else format(entry[key], form)

    told = entry["told_apart"]
    return (
        entry["run"],
        str(entry["begun"] or DASH)[:16].replace("T", " "),
        str(entry["state"] or DASH),
        shown("step", ","),
        str(entry["dataset"] or DASH),
        shown("bits_per_dim", ".3f"),
        shown("bits_per_pixel", ".3f"),
        shown("knowledge", ","),
        DASH if told is None else percent(told),
    )
