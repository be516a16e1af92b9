"""`tzk plugins`: every installed plugin, its state, and the reason for it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import click

from tzk_core.cli import output
from tzk_core.commands import OWN_COMMANDS
from tzk_core.errors import TzkError
from tzk_core.plugins import SPEC_TYPES, Command, PluginRecord, registry
from tzk_core.strict_json import json_text


@click.command(name="plugins")
@click.option(
    "--json", "as_json", is_flag=True, help="Print JSON: name, version, state, hooks, reason, remarks and more."
)
@click.option("--load", is_flag=True, help="Import every part as well; exit with 1 if one cannot be.")
@click.pass_context
def command(ctx: click.Context, *, as_json: bool, load: bool) -> None:
    """List the plugins: name, distribution, version, state, hooks and, where something is wrong, the reason.

    A plugin is ok, disabled (by TZK_PLUGINS), broken, incompatible or shadowed. Without --load none of its
    parts are imported. Remarks say what else is worth knowing: who is slow to load, who changed the state of the
    process, and which commands are hidden by those of tzk.
    """
    records = [_with_hidden_commands(record) for record in registry().plugins]
    failures = dict(_not_loadable()) if load else {}
    if as_json:
        listed = [dataclasses.asdict(record) for record in records]
        for record in listed if load else []:
            record["not_loadable"] = [text for name, text in failures.items() if name.startswith(f"{record['name']}/")]
        output.say(json_text(listed))
    else:
        rows = [
            (
                r.name,
                r.distribution,
                r.version or "-",
                r.state,
                ", ".join(h.removeprefix("tzk_") for h in r.hooks) or "-",
            )
            for r in records
        ]
        output.say(output.columns(("NAME", "DISTRIBUTION", "VERSION", "STATE", "HOOKS"), rows))
        reasons = [f"{record.name}: {record.reason}" for record in records if record.reason]
        reasons += [f"{record.name}: {remark}" for record in records for remark in record.remarks]
        if reasons or failures:
            output.say("")
        for line in [*reasons, *failures.values()]:
            output.say(line)
        if load and not failures:
            output.say(f"\nall {sum(len(registry().all(spec_type)) for spec_type in SPEC_TYPES)} parts can be imported")
    if failures:
        ctx.exit(1)


def _with_hidden_commands(record: PluginRecord) -> PluginRecord:
    """The record with a remark for each command that tzk's own hides.

    Such a command has the name of one of tzk's own.
    """
    hidden = tuple(
        f"the command {part.name!r} is hidden by that of tzk: type 'tzk {part.qualified_name}'"
        for part in registry().all(Command)
        if part.plugin == record.name and part.name in OWN_COMMANDS
    )
    return dataclasses.replace(record, remarks=(*record.remarks, *hidden)) if hidden else record


def _not_loadable() -> Iterator[tuple[str, str]]:
    """(plugin/name with its kind, reason) for each part whose target cannot be imported, or called."""
    for spec_type in SPEC_TYPES:
        for part in registry().all(spec_type):
            try:
                part.load()
            except TzkError as error:
                yield f"{part.qualified_name} {spec_type.kind}", str(error)
