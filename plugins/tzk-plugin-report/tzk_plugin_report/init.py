"""`tzk init DATA`: a commented config for a person's data.

They are a folder of images, a table or an npz file.
"""

from __future__ import annotations

from pathlib import Path

import click

from tzk_core.cli import output
from tzk_core.errors import TzkError


@click.command(name="init")
@click.argument("data", type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", "file", type=click.Path(path_type=Path, dir_okay=False), help="The config; default NAME.toml."
)
def command(*, data: Path, file: Path | None) -> None:
    """Write a commented config for your own data, after a look at them.

    DATA is a folder of images, whose subfolders are labels; a table (csv, tsv, parquet, feather, with
    tzk-plugin-tables); or an npz file with an array T. The config is checked as `tzk check` does. A file that is there
    is never overwritten.
    """
    from tzk_core.config import load_config  # these import pydantic, numpy and Pillow
    from tzk_core.storage import atomic
    from tzk_plugin_report.looking import look
    from tzk_plugin_report.starting import config_of

    file = file or Path(f"{data.resolve().name.split('.')[0] or 'mine'}.toml")
    if file.exists():
        raise TzkError(f"{file} is there already, and is never overwritten: name another with -o")
    if not file.resolve().parent.is_dir():
        raise TzkError(f"{file} cannot be written: there is no folder {file.parent}")
    looked = look(data)
    atomic.write(file, config_of(looked, file))
    try:
        load_config(file)
    except TzkError as error:
        raise TzkError(f"{file} was written, and has to be put right: {error}") from error
    for remark in looked.remarks:
        output.say(remark)
    output.say(f"{file}: written and checked. Read it, then: tzk run {file}")
