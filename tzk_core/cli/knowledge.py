"""`tzk knowledge`: list, export, import and remove the knowledge types of a run."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tzk_core.cli import output
from tzk_core.errors import TzkError
from tzk_core.runs.folder import RunFolder
from tzk_core.runs.lineage import changing, extended, new_folder
from tzk_core.strict_json import json_text

if TYPE_CHECKING:
    from tzk_core.storage.knowledge_files import Changed

RUN = click.argument("run", type=click.Path(path_type=Path))
OUT = click.option(
    "--out", type=click.Path(path_type=Path), help="A new run folder for the result; without it RUN is changed."
)


@click.group(name="knowledge")
def command() -> None:
    """List, export, import and remove the knowledge types of a run: one file holds one.

    A knowledge type fits every run with the same shared flow, which `tzk knowledge list` shows as CORE.
    """


@command.command(name="list")
@RUN
@click.option("--json", "as_json", is_flag=True, help="Print JSON: all that the table says, in full, and arguments.")
def list_(*, run: Path, as_json: bool) -> None:
    """List the knowledge types of a run; needs no data.

    PRIOR is p(κ=1), CORE the hash of the shared flow that the knowledge was trained with. A knowledge type that is
    opaque is kept but cannot be used here; the reason is given below.
    """
    import tzk_core  # imports torch, which --help does without

    listed = tzk_core.list_knowledge(RunFolder.open(run).path)
    if as_json:
        output.say(json_text(listed))
        return
    if not listed:
        output.say(f"{run} has no knowledge types: its model is the shared flow alone")
        return
    header = ("NAME", "TYPE", "FROM", "PARAMETERS", "C", "PRIOR", "IMPLIES", "CORE", "BYTES", "SHA256", "STATE")
    output.say(output.columns(header, [_row(entry) for entry in listed]))
    if reasons := [f"{entry['name']}: {entry['reason']}" for entry in listed if entry["reason"]]:
        output.say("\n" + "\n".join(reasons))


@command.command(name="export")
@RUN
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option(
    "-o",
    "--output",
    "to",
    type=click.Path(path_type=Path),
    default=Path(),
    help="A .safetensors file, or a folder for NAME.safetensors; default the current folder.",
)
def export(run: Path, names: tuple[str, ...], to: Path) -> None:
    """Write knowledge types as files of their own, which `tzk knowledge import` takes.

    RUN stays as it is. A file describes what it holds and is hashed, so that an import notices damage. Nothing is
    overwritten.
    """
    import tzk_core  # as above

    for file in tzk_core.export_knowledge(RunFolder.open(run).path, names, to):
        output.say(str(file))


@command.command(name="import")
@RUN
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE...")
@click.option("--as", "name", help="What to call the knowledge in RUN; for one FILE.")
@OUT
def import_(*, run: Path, files: tuple[Path, ...], name: str | None, out: Path | None) -> None:
    """Put exported knowledge types into a run with the same shared flow.

    Knowledge that it has already does not change. Everything is checked before anything is written, and the checkpoint
    is replaced as a whole.
    """
    import tzk_core  # as above

    def change(checkpoint: Path | None, **options: Any) -> Changed:
        return tzk_core.import_knowledge(run, files, name, out=checkpoint, **options)

    words = [*map(str, files), *(["--as", name] if name is not None else [])]
    _change(run, out, "import", change=change, words=words)


@command.command(name="remove")
@RUN
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@OUT
def remove(run: Path, names: tuple[str, ...], out: Path | None) -> None:
    """Remove knowledge types from a run; the files of all others stay byte for byte."""
    import tzk_core  # as above

    def change(checkpoint: Path | None, **options: Any) -> Changed:
        return tzk_core.remove_knowledge(run, names, checkpoint, **options)

    _change(run, out, "remove", change=change, words=names)


def _change(run: Path, out: Path | None, action: str, *, change: Callable[..., Changed], words: Sequence[str]) -> None:
    """Change a run, in place or as a new one, and record that."""
    from tzk_core.storage.locks import writing  # this imports filelock

    folder = RunFolder.open(run)
    typed = ["tzk", "knowledge", action, str(run), *words, *(["--out", str(out)] if out else [])]
    command = shlex.join(typed)
    if out is None:
        _check_finished(folder, command)  # before anything, the lock included, is written
        with writing(folder.path):
            _check_finished(folder, command)
            changed = change(
                None,
                around=lambda new: changing(folder, action, new.knowledge, core=new.core, command=command),
            )
    else:
        with new_folder(out) as fresh:
            changed = change(fresh.path / "checkpoint")
            fresh.write(fresh.config, folder.config.read_text(encoding="utf-8"))
            record = folder.read_record() | {"status": "finished"}
            fresh.write_json(fresh.record, record | {"lineage": _lineage(folder, action, changed, command=command)})
    for warning in changed.warnings:
        output.warning(warning)
    done = {"import": "imported into", "remove": "removed from"}[action]
    output.say(f"{', '.join(changed.knowledge)} {done} {run}" + (f", as the new run {out}" if out else ""))
    stale = "" if out else "; results.json, results.md and samples/ are from before"
    output.say(f"the likelihood table: {shlex.join(['tzk', 'eval', str(out or run)])}{stale}")


def _lineage(folder: RunFolder, action: str, changed: Changed, *, command: str) -> list[dict[str, Any]]:
    return extended(folder, action, changed.knowledge, core=changed.core, command=command)


def _check_finished(folder: RunFolder, command: str) -> None:
    status = folder.read_record().get("status", "finished")
    if status != "finished":
        raise TzkError(
            f"{folder.path} is not finished (it is {status}), and could not be resumed with other knowledge in it: "
            f"finish it first, tzk run {folder.path} --resume, or leave it as it is and make a new run, "
            f"{command} --out DIR"
        )


def _row(listed: Mapping[str, Any]) -> tuple[str, ...]:
    from tzk_core.storage.knowledge_files import SHORT  # torch

    prior = listed["presence_prior"]
    return (
        listed["name"],
        f"{listed['plugin']}/{listed['type']}" if listed["type"] else "-",
        f"{listed['distribution'] or '-'} {listed['version'] or ''}".rstrip(),
        "-" if listed["parameters"] is None else output.count(listed["parameters"]),
        "-" if listed["characteristics"] is None else str(listed["characteristics"]),
        "-" if prior is None else f"{prior:.3g}",
        ", ".join(listed["implies"]) or "-",
        listed["core"][:SHORT],
        output.count(listed["bytes"]),
        listed["sha256"][:SHORT],
        listed["state"],
    )
