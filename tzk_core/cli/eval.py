"""`tzk eval RUN`: the likelihood table of a run, computed anew from its folder."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from tzk_core.cli import output, ranks
from tzk_core.runs.folder import RunFolder
from tzk_core.strict_json import json_text


@click.command(name="eval")
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--split",
    type=click.Choice(["train", "validation", "test"]),
    default="test",
    show_default=True,
    help="On which samples of the run's data.",
)
@click.option("--limit", type=click.IntRange(min=1), help="Only so many samples of each data set.")
@click.option("--json", "as_json", is_flag=True, help="Print what results.json would hold.")
@ranks.processes_option
@click.pass_context
def command(
    ctx: click.Context, *, run: Path, split: str, limit: int | None, as_json: bool, processes: int | None
) -> None:
    """Print the likelihood table of a run, computed from the run folder alone; writes nothing.

    What needs a plugin that is not installed is left out, and a note says what to install. With --processes, or
    started by torchrun, all processes score test samples.
    """
    folder = RunFolder.open(run)

    from tzk_core.report import table  # these import pydantic and torch, which `tzk --help` does without
    from tzk_core.runs.opened import open_run

    with ranks.taking_part() as world:
        ranks.launched_again(ctx, folder.path, advice="Nothing was written")
        experiment = open_run(folder.path)
        if not world.first:
            experiment.evaluation.take_part(split, world, limit)
            return
        results = experiment.evaluate(split, limit, world=world)
    if as_json:
        output.say(json_text(results))
        return
    words = ["tzk", "eval", str(run), "--split", split, *(["--limit", str(limit)] if limit else [])]
    output.say(table.markdown(results, shlex.join(words)), nl=False)
