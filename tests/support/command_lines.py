"""Commands as the documentation has them, compared with what there is; nothing is run."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Callable, Sequence
from itertools import dropwhile, takewhile
from pathlib import Path

import click
from pages import ROOT

from tzk_core.cli import main
from tzk_core.config import ConfigError, load_config
from tzk_core.plugins import MissingPlugin


class UnknownCommand(Exception):
    """A command, an option or a file that does not exist."""


def check_block(lines: Sequence[str]) -> None:
    """Check the lines of a block; after a `cd`, files of the repository are out of sight, and only `tzk` is checked."""
    elsewhere = False
    for line in lines:
        elsewhere = elsewhere or line.startswith("cd ")
        if not elsewhere or line.startswith("tzk "):
            check_command_line(line)


def check_command_line(line: str) -> None:
    """Compare a line with the commands, options, files and targets that exist.

    Raises:
        UnknownCommand: says what does not exist.
    """
    words = shlex.split(line, comments=True)
    words = list(dropwhile(re.compile(r"[A-Z_]+=\S*").fullmatch, words))  # settings of the environment
    words = list(takewhile(lambda word: word not in (">", "|"), words))
    if not words:
        return
    program, *rest = words
    if program not in PROGRAMS:
        raise UnknownCommand(f"{program!r} is none of {', '.join(sorted(PROGRAMS))}, which the tests know how to check")
    PROGRAMS[program](rest)


def _tzk(words: Sequence[str]) -> None:
    command: click.Command = main
    context = click.Context(main, info_name="tzk")
    rest = list(words)
    while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
        try:
            found = command.get_command(context, rest[0])
        except click.ClickException as error:
            raise UnknownCommand(error.message) from error
        if found is None:
            raise UnknownCommand(f"{context.command_path} has no command {rest[0]!r}")
        command, rest = found, rest[1:]
        context = click.Context(command, info_name=command.name, parent=context)
    _parse(command, context, list(rest))
    if words[:1] == ["run"]:
        _config([word for word in rest if not word.startswith("-")])


def _parse(command: click.Command, context: click.Context, words: list[str]) -> None:
    """Let click read options and arguments, without converting any."""
    try:
        values, left, _ = command.make_parser(context).parse_args(words)
    except click.ClickException as error:
        raise UnknownCommand(error.format_message()) from error
    if left:
        raise UnknownCommand(f"unexpected {' '.join(left)}")
    if values.keys() & {"help", "version"}:
        return
    for parameter in command.params:
        if (
            isinstance(parameter, click.Argument)
            and parameter.required
            and not _supplied(values.get(str(parameter.name)))
        ):
            raise UnknownCommand(f"{parameter.human_readable_name} is missing")


def _supplied(value: object) -> bool:
    return isinstance(value, str) or (isinstance(value, tuple | list) and any(isinstance(one, str) for one in value))


def _config(words: Sequence[str]) -> None:
    """Check a config of examples/ with its overrides."""
    if not words or not words[0].startswith("examples/"):
        return
    try:
        load_config(_file(words[0]), [word for word in words[1:] if re.match(r"[\w.]+=", word)])
    except MissingPlugin:
        return
    except ConfigError as error:
        raise UnknownCommand(str(error)) from error


def _file(path: str) -> str:
    if not (ROOT / path).exists():
        raise UnknownCommand(f"there is no {path}")
    return str(ROOT / path)


def _python(words: Sequence[str]) -> None:
    """A script of the repository takes the options that its text has."""
    if not words or words[0].startswith("-"):
        return
    script = Path(_file(words[0]))
    text = script.read_text(encoding="utf-8")
    beside = (script.parent / f"{name}.py" for name in re.findall(r"^(?:from|import) (\w+)", text, re.MULTILINE))
    text += "".join(module.read_text(encoding="utf-8") for module in beside if module.is_file())
    for word in words[1:]:
        if word.startswith("--") and f'"{word.partition("=")[0]}"' not in text:
            raise UnknownCommand(f"{words[0]} has no {word}")


def _pip(words: Sequence[str]) -> None:
    """A folder to install has a pyproject.toml, with the extras that are asked for."""
    if words[:1] != ["install"]:
        raise UnknownCommand(f"pip {' '.join(words)}: only `pip install` is known")
    for word in words[1:]:
        if not word.startswith("."):
            continue
        folder, _, extras = word.partition("[")
        file = ROOT / folder / "pyproject.toml"
        if not file.is_file():
            raise UnknownCommand(f"{word} has no pyproject.toml")
        known = tomllib.loads(file.read_text(encoding="utf-8"))["project"].get("optional-dependencies", {})
        if unknown := set(filter(None, extras.rstrip("]").split(","))) - known.keys():
            raise UnknownCommand(f"{folder} has no extra {', '.join(unknown)}")


def _make(words: Sequence[str]) -> None:
    """A target of the Makefile."""
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    for word in words:
        if "=" not in word and not re.search(rf"^{re.escape(word)}:", text, re.MULTILINE):
            raise UnknownCommand(f"the Makefile has no {word}")


def _anything(words: Sequence[str]) -> None:
    """Programs that are not ours."""


PROGRAMS: dict[str, Callable[[Sequence[str]], None]] = {
    "tzk": _tzk,
    "python": _python,
    "pip": _pip,
    "make": _make,
    **dict.fromkeys(("cd", "pytest", "source", "eval", "echo", "export", "pre-commit", "torchrun"), _anything),
}
"""What a block for the shell may call, and what checks it."""


def known_commands() -> list[str]:
    """The names of all commands of `tzk`."""
    return main.list_commands(click.Context(main, info_name="tzk"))
