"""`tzk pack RUN FOLDER`: a small copy of a run, to share its model."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from tzk_core.cli import output
from tzk_core.errors import TzkError
from tzk_core.runs.folder import RunFolder
from tzk_core.runs.lineage import extended, new_folder
from tzk_core.storage.places import checkpoint_in

COPIED = ("config.toml", "addition.toml", "results.json", "results.md")
MEGABYTE = 1e6


@click.command(name="pack")
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--half", is_flag=True, help="Round the weights to half precision, where that is enough.")
@click.option(
    "--limit",
    type=click.IntRange(min=0),
    default=500,
    show_default=True,
    help="How many test images of each data set to evaluate; 0 for none, which needs no data.",
)
@click.option(
    "--tolerance",
    type=click.FloatRange(min=0),
    default=0.001,
    show_default=True,
    help="With --half: how many bits per dimension no figure may change by.",
)
def command(*, run: Path, folder: Path, half: bool, limit: int, tolerance: float) -> None:
    """Make a small copy of RUN as FOLDER, which is a run folder again.

    `tzk sample`, `eval`, `score` and `add` take it as they take RUN. The state of the training, curves and pictures are
    left out: it cannot be resumed. With --half the weights are rounded to half precision, which halves them. Tensors
    where that errs by more than 1/2048, root mean square, stay as they are. It is refused, and nothing is left, if any
    likelihood changes by more than --tolerance. What the copy gives on --limit test images is kept in it as
    results-LIMIT.json, so that anybody can check it: tzk eval FOLDER --limit LIMIT --json.
    """
    parent = RunFolder.open(run)
    if not parent.has_model:
        raise TzkError(f"{run} holds no trained model: expected a checkpoint in it, as `tzk run` leaves one")
    options = [*(["--half"] if half else []), "--limit", str(limit), *(["--tolerance", str(tolerance)] if half else [])]
    typed = shlex.join(["tzk", "pack", str(run), str(folder), *options])
    with new_folder(folder, option=False) as packed:
        report = _pack(parent, packed, half=half, limit=limit, tolerance=tolerance, typed=typed)
    sizes = [
        sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) / MEGABYTE for path in (run, folder)
    ]
    output.say(f"{report}{folder}: {sizes[1]:.2f} MB, of {sizes[0]:.2f} MB in {run}")


def _pack(parent: RunFolder, packed: RunFolder, *, half: bool, limit: int, tolerance: float, typed: str) -> str:
    """Fill the new folder; the report of how figures changed."""
    from tzk_core.storage.manifest import read_manifest  # these import torch
    from tzk_core.storage.packing import pack_checkpoint

    for name in COPIED:
        if (parent.path / name).is_file():
            shutil.copyfile(parent.path / name, packed.path / name)
    unrounded = pack_checkpoint(checkpoint_in(parent.path), packed.path / "checkpoint", half=half)
    record = parent.read_record()
    core = read_manifest(packed.path / "checkpoint")["core"]["hash"]
    record["lineage"] = extended(parent, "pack", [], core=core, command=typed)
    report = ""
    if half:
        record["half"] = {"kept": unrounded}
        report = f"kept in float32: {', '.join(unrounded)}\n" if unrounded else ""
    if limit:
        before, after = _figures(parent, packed, record, half=half, limit=limit)
        if half:
            furthest, difference = _furthest(before, after)
            record["half"] |= {"limit": limit, "bits_per_dim": difference}
            report += f"what changes most, of {limit} images: {furthest}, by {difference:.6f} bits per dimension\n"
            if difference > tolerance:
                raise TzkError(
                    f"half precision changes {furthest} by {difference:.6f} bits per dimension, and {tolerance:g} is "
                    "allowed: pack without --half, or with a larger --tolerance"
                )
        packed.write_json(packed.path / f"results-{limit}.json", after)
    packed.write_json(packed.record, record)
    return report


def _figures(
    parent: RunFolder, packed: RunFolder, record: Mapping[str, Any], *, half: bool, limit: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """results.json on `limit` test images, of the run and of its copy.

    It is computed once where their weights are the same.
    """
    from tzk_core.runs.opened import open_run  # pydantic and torch

    experiment = open_run(packed.path, record)
    after = experiment.evaluate("test", limit)
    if not half:
        return after, after
    experiment.load(parent.path)
    experiment.multipliers = {}  # which the copy has none of
    return experiment.evaluate("test", limit), after


def _furthest(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, float]:
    """The row whose bits per dimension differ most, and by how much."""
    differences = {
        f"{a['dataset']}, {a['name']}": abs(a["bits_per_dim"] - b["bits_per_dim"])
        for a, b in zip(after["rows"], before["rows"], strict=True)
        if a["kind"] not in ("baseline", "published")
    }
    name = max(differences, key=lambda row: differences[row])
    return name, differences[name]
