"""`tzk describe [NAME]`: what a part or a table takes, or all of them."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tzk_core.cli import output
from tzk_core.errors import TzkError, nearest
from tzk_core.moved import home
from tzk_core.plugins import SPEC_TYPES, Command, Registered, registry

if TYPE_CHECKING:
    from tzk_core.config.reference import Reference

WIDTH = 100
"""Columns of the help of a key."""


@click.command(name="describe")
@click.argument("name", required=False)
def command(name: str | None) -> None:
    """Describe a registered part, or a table of a config.

    Without NAME, list all of them.

    Of a part: its kind, plugin, arguments with types and defaults, documentation and source. Of a table: every key
    with type, default, bounds and help.

    NAME is whatever a plugin offers, such as a data set, a knowledge type, a flow layer, an observer or a command. Any
    nflows transform is a flow layer too. Every part of that name is shown. plugin/name names the part of one plugin. Or
    it is a table, such as training, objective or evaluation; [flow] is the table alone where a part is called so too.
    """
    from tzk_core.config.reference import TABLES, references  # pydantic, which the other commands do without

    if name is None:
        output.say(_everything(TABLES))
        return
    table = name.strip("[]")
    tables = [_table(reference) for reference in references(table)] if table in TABLES else []
    parts = [part for spec_type in SPEC_TYPES for part in registry().all(spec_type)]
    matching = [part for part in parts if name in (part.name, part.qualified_name)]
    if not matching and not tables:
        for spec_type in SPEC_TYPES:
            if home(spec_type.kind, name):
                registry().find(spec_type, name)  # raises, and says what to install
        known = [*(part.qualified_name if "/" in name else part.name for part in parts), *TABLES]
        raise TzkError(
            f"nothing registered is called {name!r}"
            + (nearest(name, known) or "; `tzk describe` lists all names")
            + (registry().not_available(name.partition("/")[0]) or registry().not_available())
        )
    output.say("\n\n".join([*(_described(part) for part in matching), *tables]))


def _everything(tables: Iterable[str]) -> str:
    """The parts of every type, a line each, and the tables of a config."""
    sections = []
    for spec_type in SPEC_TYPES:
        parts = sorted(registry().all(spec_type), key=lambda part: part.name)
        rows = [(part.name, part.plugin, part.spec.summary) for part in parts]
        if rows:
            title = spec_type.kind.upper()
            sections.append(output.columns((title, "PLUGIN", "SUMMARY"), rows))
    return "\n\n".join([*sections, f"TABLES OF A CONFIG\n{', '.join(tables)}"])


def _table(table: Reference) -> str:
    """A table of a config: a line for each key, and its help below."""
    rows = [key[:-1] for key in table.keys]
    header, *lines = output.columns(("KEY", "TYPE", "DEFAULT", "BOUNDS"), rows).splitlines()
    indent = " " * 6
    text = [f"{table.heading}: {table.summary}", "", f"  {header}"]
    for key, line in zip(table.keys, lines, strict=True):
        text.append(f"  {line}")
        if key.help:
            text.append(textwrap.fill(key.help, WIDTH, initial_indent=indent, subsequent_indent=indent))
    if table.open:
        text.append("  ...  all further keys are the arguments of its part, which `tzk describe NAME` lists")
    return "\n".join(text)


def _described(part: Registered) -> str:
    heading = f"{part.name}: {part.spec.kind}. {part.spec.summary}"
    origin = [("plugin", part.plugin), ("from", f"{part.distribution} {part.version}".rstrip())]
    origin += [(extra, getattr(part.spec, extra)) for extra in ("layer", "device") if hasattr(part.spec, extra)]
    origin.append(("target", part.spec.target))
    if isinstance(part.spec, Command):
        return "\n".join([heading, output.fields([*origin, ("usage", f"tzk {part.name} --help")])])
    try:
        return "\n".join([heading, *_read(part, origin)])
    except TzkError as error:
        return "\n".join([heading, output.fields(origin), "", str(error)])


def _read(part: Registered, origin: list[tuple[str, str]]) -> list[str]:
    """Origin, arguments and documentation of a part. Raises `TzkError` if it cannot be imported."""
    from tzk_core.config.arguments import supplied  # pydantic, which the other commands do without
    from tzk_core.config.signatures import signature

    taken = signature(part)
    own = supplied(type(part.spec), taken)
    rows = [
        (
            argument.name,
            argument.annotation or "-",
            "given by tzk" if argument.name in own else f"= {argument.default}" if argument.default else "required",
        )
        for argument in taken.arguments
    ] + ([("...", "-", "any other keyword")] if taken.open else [])
    lines = [output.fields([*origin, ("source", _short(taken.file))])]
    if rows:
        lines += ["", textwrap.indent(output.columns(("ARGUMENT", "TYPE", "DEFAULT"), rows), "  ")]
    if documentation := taken.docstring or inspect.getdoc(part.load()):
        lines += ["", textwrap.indent(documentation, "  ")]
    return lines


def _short(file: str) -> str:
    """A file relative to where one is, if it lies below."""
    path = Path(file)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else file
