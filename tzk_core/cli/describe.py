"""`tzk describe NAME`: what a registered part is, where it comes from and what it takes."""

from __future__ import annotations

from pathlib import Path

import click

from tzk_core.cli import output
from tzk_core.errors import TzkError, nearest
from tzk_core.plugins import KINDS, Command, Registered, registry


@click.command(name="describe")
@click.argument("name")
def command(name: str) -> None:
    """Say what a registered part is: its kind, plugin, arguments with types and defaults, documentation and
    source.

    NAME is a data set, a knowledge type, a flow layer (any nflows transform too), a recipe, a command or an
    implementation; every part of that name is shown. plugin/name names the part of one plugin.
    """
    parts = [part for kind in KINDS for part in registry().all(kind)]
    found = [part for part in parts if name in (part.name, part.qualified_name)]
    if not found:
        known = [part.qualified_name if "/" in name else part.name for part in parts]
        raise TzkError(
            f"nothing registered is called {name!r}"
            + (
                nearest(name, known)
                or "; `tzk plugins` lists the plugins, and names are " + ", ".join(sorted(set(known)))
            )
        )
    output.say("\n\n".join(_described(part) for part in found))


def _described(part: Registered) -> str:
    from tzk_core.config.signatures import signature  # what is needed to list parts is not needed for this

    heading = f"{part.name}: {part.spec.kind}. {part.spec.summary}"
    origin = [("plugin", part.plugin), ("from", f"{part.distribution} {part.version}".rstrip())]
    for extra in ("layer", "device"):
        if value := getattr(part.spec, extra, ""):
            origin.append((extra, value))
    origin.append(("target", part.spec.target))
    if isinstance(part.spec, Command):
        return "\n".join([heading, output.fields([*origin, ("usage", f"tzk {part.name} --help")])])
    try:
        taken = signature(part)
    except TzkError as error:
        return "\n".join([heading, output.fields(origin), "", str(error)])
    origin.append(("source", _short(taken.file)))
    lines = [heading, output.fields(origin)]
    if taken.arguments or taken.open:
        rows = [
            (a.name, a.annotation or "-", "required" if a.required else f"= {a.default}")
            for a in taken.arguments
        ] + ([("...", "-", "any other keyword")] if taken.open else [])
        lines += [
            "",
            "\n".join(
                f"  {line}" for line in output.columns(("ARGUMENT", "TYPE", "DEFAULT"), rows).splitlines()
            ),
        ]
    if taken.docstring:
        lines += ["", "\n".join(f"  {line}".rstrip() for line in taken.docstring.splitlines())]
    return "\n".join(lines)


def _short(file: str) -> str:
    """A file relative to where one is, if it lies below."""
    path = Path(file)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else file
