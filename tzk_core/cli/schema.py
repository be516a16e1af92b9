"""`tzk schema`: the JSON Schema of a config, which editors take."""

from __future__ import annotations

import json

import click

from tzk_core.cli import output


@click.command(name="schema")
@click.option("--addition", is_flag=True, help="That of a spec, for `tzk add`.")
def command(*, addition: bool) -> None:
    """Print the JSON Schema of a config.

    It has every table and key with type, default, bounds and help. Editors complete and check a TOML file by it. With
    `tzk schema > tzk.schema.json`, the first line `#:schema ./tzk.schema.json` of a config is what many of them look
    for.
    """
    from tzk_core.config.json_schema import json_schema  # pydantic, which the other commands do without
    from tzk_core.config.schema import Addition, Config

    output.say(json.dumps(json_schema(Addition if addition else Config), indent=2, ensure_ascii=False))
