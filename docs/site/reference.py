"""The reference pages, made from what they describe: schema, commands, parts, hooks, Python interface.

`pages()` has them by path below docs/. They are written when the site is built, and are in no repository, so that none
can be older than the code.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

import tzk_core
from tzk_core.cli import main
from tzk_core.commands import OWN_COMMANDS
from tzk_core.config.arguments import supplied
from tzk_core.config.json_schema import json_schema
from tzk_core.config.reference import Reference, every_table
from tzk_core.config.schema import Addition, Config
from tzk_core.config.signatures import signature
from tzk_core.plugins import SPEC_TYPES, Command, Registered, Spec, hookspecs, registry

ROOT = Path(__file__).parents[2]

PYTHON: dict[str, tuple[str, ...]] = {
    "Models": ("tzk_core.model.tzk.TzK", "tzk_core.model.composition.Composition", "tzk_core.model.flow.SharedFlow"),
    "Build": ("tzk_core.build.build_flow", "tzk_core.build.build_knowledge"),
    "Train, save, load": (
        "tzk_core.training.fit.fit",
        "tzk_core.training.adding.add.add",
        "tzk_core.training.fit.save",
        "tzk_core.training.fit.load",
    ),
    "Knowledge": (
        "tzk_core.knowledge.base.Knowledge",
        "tzk_core.storage.knowledge_files.list_knowledge",
        "tzk_core.storage.knowledge_files.export_knowledge",
        "tzk_core.storage.knowledge_files.import_knowledge",
        "tzk_core.storage.knowledge_files.remove_knowledge",
    ),
    "Data and errors": ("tzk_core.observations.Observations", "tzk_core.errors.TzkError"),
}
"""What `tzk_core` exports, under the headings of its page; `further_names` has what is missing here."""


def pages() -> dict[str, str]:
    """Every page that is made, by its path below docs/."""
    made = {
        "index.md": index(),
        "reference/config.md": config(),
        "reference/command-line.md": command_line(),
        "reference/hooks.md": hooks(),
        "reference/python.md": python(),
        "reference/testing.md": testing(),
        "changelog.md": (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"),
    }
    return made | {f"reference/parts/{file}.md": text for file, text in parts().items()}


def index() -> str:
    """The README as the first page, its links from here."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    text = re.sub(r"\]\((?!https?:|#|docs/)", "](../", text)
    text = text.replace("](docs/", "](").replace("](../CHANGELOG.md)", "](changelog.md)")
    return f"---\nhide: [navigation]\n---\n\n{text}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown, with what would end a cell escaped."""
    escaped = [[" ".join(cell.split()).replace("|", "\\|") for cell in row] for row in rows]
    lines = [header, ["---"] * len(header), *escaped]
    return "\n".join("| " + " | ".join(row) + " |" for row in lines) + "\n"


def code(text: str) -> str:
    return f"`{text}`" if text else ""


def config() -> str:
    """Every table and key of a config."""
    made = [
        "# Configuration\n",
        "Every table and key of a config, from the same source as `tzk describe TABLE` and `tzk schema`. The latter "
        "prints a JSON Schema, by which editors complete and check one: [how](../how-to/complete-in-an-editor.md).\n",
        "Any value can be given on the command line too: `tzk run CONFIG training.steps=100`.\n",
    ]
    made += map(_config_table, every_table())
    return "\n".join(made)


def _config_table(reference: Reference) -> str:
    lines = [f"## {reference.heading}\n", f"{reference.summary[:1].upper()}{reference.summary[1:]}\n"]
    rows = [
        (code(key.name), ", ".join(filter(None, (key.type, key.bounds))), code(key.default), key.help)
        for key in reference.keys
    ]
    lines.append(table(("key", "type and bounds", "default", "what it does"), rows))
    if reference.open:
        lines.append("All further keys are the arguments of the part that it names: see [Parts](parts/index.md).\n")
    return "\n".join(lines)


def every_command() -> Iterator[tuple[str, click.Command]]:
    """Every command of `tzk` with its whole name: the core's, then those of installed plugins."""
    context = click.Context(main, info_name="tzk")
    names = [*OWN_COMMANDS, *(name for name in main.list_commands(context) if name not in OWN_COMMANDS)]
    for name in names:
        command = main.get_command(context, name)
        if command is not None:
            yield from _with_subcommands(f"tzk {name}", command)


def _with_subcommands(name: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    yield name, command
    if isinstance(command, click.Group):
        for below, subcommand in command.commands.items():
            yield from _with_subcommands(f"{name} {below}", subcommand)


def command_line() -> str:
    """Every command with its usage, arguments and options."""
    made = [
        "# Command line\n",
        "Errors are one sentence. `TZK_DEBUG=1` shows the traceback. The exit status is 0 for success.\n",
    ]
    made.append("Your shell can complete all of this: see [Shell completion](../how-to/complete-in-the-shell.md).\n")
    for name, command in every_command():
        context = click.Context(command, info_name=name)
        usage = " ".join([name, *command.collect_usage_pieces(context)])
        made += [f"## {name}\n", f"```text\n{usage}\n```\n", f"{inspect.cleandoc(command.help or '')}\n"]
        options = (option for option in command.get_params(context) if isinstance(option, click.Option))
        rows = [record for option in options if (record := option.get_help_record(context))]
        if rows:
            made.append(table(("option", "what it does"), [(code(left), right) for left, right in rows]))
    return "\n".join(made)


def parts() -> dict[str, str]:
    """A page for every type of part, and one that lists them all."""
    by_type = {spec_type: registry().all(spec_type) for spec_type in SPEC_TYPES}
    made = {_file(spec_type): _parts_page(spec_type, found) for spec_type, found in by_type.items() if found}
    rows = [
        (
            f"[{_plural(spec_type)}]({_file(spec_type)}.md)",
            ", ".join(code(part.name) for part in found if not _many(part)),
        )
        for spec_type, found in by_type.items()
        if found
    ]
    text = (
        "Everything that plugins offer and a config can name, as `tzk describe NAME` shows it: of the core, of nflows "
        "and of the plugins of this repository."
    )
    made["index"] = f"# Parts\n\n{text}\n\n" + table(("what", "names"), rows)
    return made


def _many(part: Registered) -> bool:
    """nflows has dozens of layers, which their own page lists."""
    return part.plugin == "nflows"


def _file(spec_type: type[Spec]) -> str:
    return spec_type.kind.replace(" ", "-")


def _plural(spec_type: type[Spec]) -> str:
    return f"{spec_type.kind}s" if not spec_type.kind.endswith("knowledge") else spec_type.kind


def _parts_page(spec_type: type[Spec], found: Sequence[Registered]) -> str:
    heading = _plural(spec_type)
    return "\n".join([f"# {heading[:1].upper()}{heading[1:]}\n", *map(described, found)])


def described(part: Registered) -> str:
    """One part as `tzk describe` shows it."""
    summary = part.spec.summary
    lines = [f"## {part.name}\n", f"{summary[:1].upper()}{summary[1:]}.\n" if summary else ""]
    lines.append(
        f"From `{f'{part.distribution} {part.version}'.strip()}`, plugin `{part.plugin}`, at `{part.spec.target}`.\n"
    )
    if isinstance(part.spec, Command):
        lines.append(f"See [tzk {part.name}](../command-line.md#tzk-{part.name}).\n")
        return "\n".join(lines)
    taken = signature(part)
    own = supplied(type(part.spec), taken)
    rows = [
        (
            code(argument.name),
            code(argument.annotation or ""),
            "given by tzk" if argument.name in own else code(argument.default) if argument.default else "required",
        )
        for argument in taken.arguments
    ]
    if rows:
        lines.append(table(("argument", "type", "default"), rows))
    if documentation := taken.docstring or inspect.getdoc(part.load()):
        lines.append(f"````text\n{documentation}\n````\n")
    return "\n".join(lines)


def hooks() -> str:
    """Every hook with its example, from the docstrings of hookspecs.py."""
    made = [
        "# Hooks\n",
        "A hook is what a plugin implements. `tzk new-plugin NAME` writes a whole plugin; [Plugins](../plugins.md) has "
        "what its parts keep to. Each example is a complete module, announced in `pyproject.toml`:\n",
        '```toml\n[project.entry-points."tzk.v1"]\nmy-plugin = "my_package.plugin"\n```\n',
    ]
    for name, hook in hook_functions().items():
        summary, _, example = inspect.cleandoc(hook.__doc__ or "").partition("\n\n")
        made += [f"## {name}\n", f"{summary}\n", f"```python\n{example.strip()}\n```\n"]
    return "\n".join(made)


def hook_functions() -> dict[str, object]:
    """The hooks there are, by name."""
    return {
        name: hook for name, hook in vars(hookspecs).items() if name.startswith("tzk_") and inspect.isfunction(hook)
    }


def further_names() -> list[str]:
    """What `tzk_core` exports and `PYTHON` does not list, by its whole name."""
    listed = {name.rpartition(".")[2] for names in PYTHON.values() for name in names}
    return [f"{getattr(tzk_core, name).__module__}.{name}" for name in tzk_core.__all__ if name not in listed]


def python() -> str:
    """Directives for mkdocstrings, which reads the docstrings."""
    made = ["# Python\n", "What `import tzk_core` has. Names are imported when they are first used.\n"]
    headings = {**PYTHON, "More": tuple(further_names())}
    for heading, names in headings.items():
        if names:
            made.append(f"## {heading}\n")
            made += [f"::: {name}\n" for name in names]
    return "\n".join(made)


def testing() -> str:
    """The conformance kit for authors of plugins."""
    kit = importlib.import_module("tzk_core.testing")
    made = ["# Conformance kit\n", "`tzk_core.testing` checks what a plugin offers, in the plugin's own tests.\n"]
    made += [f"::: {getattr(kit, name).__module__}.{name}\n" for name in kit.__all__]
    return "\n".join(made)


def schemas() -> dict[str, dict[str, object]]:
    """The JSON Schemas of a config and of a spec, by their paths below docs/."""
    return {
        "reference/tzk.schema.json": json_schema(Config),
        "reference/tzk-addition.schema.json": json_schema(Addition),
    }
