"""`tzk sweep CONFIG key=a,b,c --seeds N`: many runs side by side, in one table."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from tzk_core.cli import output
from tzk_core.errors import TzkError
from tzk_core.runs.folder import RUNS, RunFolder
from tzk_core.storage import atomic
from tzk_core.strict_json import json_text
from tzk_plugin_sweep.figures import evaluated
from tzk_plugin_sweep.grid import Point, points
from tzk_plugin_sweep.processes import Job, run_all
from tzk_plugin_sweep.slurm import submit_all
from tzk_plugin_sweep.summary import markdown, rows_of

FORMAT = 1
JSON, TABLE = "sweep.json", "sweep.md"


@click.command(name="sweep")
@click.argument("config", type=click.Path(path_type=Path))
@click.argument("overrides", nargs=-1, metavar="[KEY=A,B,C]...")
@click.option("--seeds", type=click.IntRange(min=1), metavar="N", help="Every combination with the seeds 0 to N-1.")
@click.option("--jobs", type=click.IntRange(min=1), metavar="N", help="So many at once; by default one a core.")
@click.option("--out", type=click.Path(path_type=Path), help="The folder of the sweep; default runs/NAME-sweep.")
@click.option(
    "--launcher",
    type=click.Choice(["processes", "submitit"]),
    default="processes",
    show_default=True,
    help="Where runs are done.",
)
@click.option("--slurm", multiple=True, metavar="KEY=VALUE", help="A parameter of submitit, as slurm_partition=gpu.")
@click.option("--cluster", type=click.Choice(["slurm", "local"]), help="Where submitit runs; Slurm if there is one.")
@click.pass_context
def command(
    ctx: click.Context,
    *,
    config: Path,
    overrides: tuple[str, ...],
    seeds: int | None,
    jobs: int | None,
    out: Path | None,
    launcher: str,
    slurm: tuple[str, ...],
    cluster: str | None,
) -> None:
    """Run a config for every combination of values, and leave one table.

    KEY=A,B,C has the values of a key; commas within quotes, lists and tables are part of a value, as in
    'flow.layers=[{type="affine"}]'. Every run is a `tzk run` with one thread, in a folder of its own. The same command
    again goes on with what is missing; with more values or seeds it adds these. A run that fails is named, and ends
    no other; the exit status is then 1. sweep.json and sweep.md have means over seeds and their standard errors.
    """
    wanted = points(overrides, seeds)
    digest, name = _checked(config, wanted)
    folder = out or RUNS / f"{name}-sweep"
    _check_same(folder, config, digest)
    work = {Job(folder / point.name, config.absolute(), tuple(point.overrides)): point for point in wanted}
    missing = [job for job in work if not RunFolder(job.folder).finished]
    output.say(f"{output.count(len(work), 'run')} in {folder}, {len(missing)} to do")
    at_once = jobs or len(os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1))
    ended: Iterator[tuple[Job, int]]
    if launcher == "submitit":
        parameters, files = _parameters(slurm), folder / "submitit"
        ended = submit_all(missing, at_once, folder=files, parameters=parameters, cluster=cluster)
    else:
        ended = run_all(missing, at_once)
    errors: dict[Job, str] = {}
    try:
        for number, (job, status) in enumerate(ended, 1):
            if status:
                errors[job] = job.failure(status)
                output.error(f"{job.folder}: {errors[job]}")
            output.say(f"{number} of {len(missing)}: {job.folder.name} {'failed' if status else 'finished'}")
    finally:
        table = _write(folder, config, digest, work=work, errors=errors)
    output.result(f"table: {table}")
    if errors:
        ctx.exit(1)


def _checked(config: Path, wanted: Sequence[Point]) -> tuple[str, str]:
    """The hash of the config and its name, once every combination is checked.

    Raises:
        TzkError: for what is wrong with it, or with a value.
    """
    from tzk_core.config import load_config  # pydantic

    if not config.is_file():
        raise TzkError(f"{config} is expected as the TOML file of a config; there is no such file")
    names = [load_config(config, point.overrides).name for point in wanted]
    return hashlib.sha256(config.read_bytes()).hexdigest(), names[0]


def _check_same(folder: Path, config: Path, digest: str) -> None:
    """Raises `TzkError` where the sweep in the folder is of another config."""
    file = folder / JSON
    if not file.exists():
        return
    try:
        other = json.loads(file.read_text(encoding="utf-8"))["config_sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TzkError(f"{file} cannot be read ({error}): delete it, and the sweep goes on") from None
    if other != digest:
        raise TzkError(
            f"{folder} has the runs of another config than {config} is now: name another folder with --out, or put "
            "the config back as it was"
        )


def _write(folder: Path, config: Path, digest: str, *, work: dict[Job, Point], errors: dict[Job, str]) -> Path:
    """Write sweep.json and sweep.md about what is finished; the path of the latter."""
    finished, runs = [], []
    for job, point in work.items():
        run = RunFolder(job.folder)
        status = "failed" if job in errors else run.read_record().get("status", "missing")
        if run.finished:
            finished.append((point, evaluated(job.folder)))
        about = {"run": job.folder.name, "values": dict(point.values), "seed": point.seed}
        runs.append({**about, "status": status, "error": errors.get(job)})
    keys = list(dict.fromkeys(key for point in work.values() for key in point.values))
    sweep: dict[str, Any] = {"format": FORMAT, "config": str(config), "config_sha256": digest, "keys": keys}
    sweep |= {"runs": runs, "rows": rows_of(finished)}
    folder.mkdir(parents=True, exist_ok=True)
    atomic.write(folder / JSON, json_text(sweep) + "\n")
    atomic.write(folder / TABLE, markdown(sweep))
    return folder / TABLE


def _parameters(texts: Sequence[str]) -> dict[str, Any]:
    """Parameters of submitit, whole numbers as such.

    Raises:
        TzkError: for what is no KEY=VALUE.
    """
    parameters: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise TzkError(f"--slurm is expected as KEY=VALUE, such as slurm_partition=gpu; got {text!r}")
        parameters[key] = int(value) if value.isdecimal() else value
    return parameters
