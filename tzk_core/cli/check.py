"""`tzk check CONFIG`: everything that is wrong with a config, or its plan."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tzk_core.cli import output

if TYPE_CHECKING:
    from tzk_core.config import KnowledgeTable


@click.command(name="check")
@click.argument("config", type=click.Path(path_type=Path))
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
def command(config: Path, overrides: tuple[str, ...]) -> None:
    """Check a config: print all that is wrong with it, or its plan.

    An error is shown with its file, table and key. The flow and knowledge types are built, as a run does.

    KEY=VALUE overrides one value, as in `training.steps=100` or `datasets.mnist.size=32`. No sample is read:
    `tzk run CONFIG --dry-run` does that too, and checks labels.
    """
    from tzk_core.config import load_config  # pydantic, which the other commands do without

    checked = load_config(config, overrides)
    from tzk_core.runs.building import before_data  # torch, for a config that is worth it
    from tzk_core.runs.observing import observers_of

    observers_of(checked)
    before_data(checked)
    flow = checked.flow
    shape = f"{len(flow.layers)} layers" if flow.layers is not None else f"recipe {_short(flow.recipe)}"
    training = checked.training
    plan = [
        ("flow", f"{shape}, {flow.base} base"),
        *(("data sets", _typed(table.name, table.type)) for table in checked.datasets),
        *(
            ("knowledge", f"{_typed(table.name, table.type)}, C in R^{table.characteristics}{_amounts(table)}")
            for table in checked.knowledge
        ),
        ("training", f"{output.count(training.steps, 'step')} of {training.batch_size}"),
    ]
    output.say(f"{config}: ok\n{output.fields(plan)}")


def _typed(name: str, part: str) -> str:
    return name if name == _short(part) else f"{name} ({_short(part)})"


def _short(part: str) -> str:
    """A part of the core by its plain name, which is always the core's."""
    return part.removeprefix("tzk/")


def _amounts(table: KnowledgeTable) -> str:
    """What the table does not hide: `, labels kept in 1,000`, or `in 10 %`."""
    amounts = (("labels", table.labelled), ("C", table.characterised))
    return "".join(
        f", {what} kept in {output.count(amount) if isinstance(amount, int) else f'{100 * amount:g} %'}"
        for what, amount in amounts
        if amount is not None
    )
