"""How the program speaks: results to stdout, errors to stderr, numbers and tables for people."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import IntEnum
from typing import Any

import click


class Amount(IntEnum):
    """How much a command says: `--quiet`, as usual, `--verbose`."""

    QUIET = 0
    USUAL = 1
    VERBOSE = 2


_amount = Amount.USUAL


@contextmanager
def amount(*, quiet: bool, verbose: bool) -> Iterator[None]:
    """Say less or more within the block.

    Raises:
        click.UsageError: for both at once.
    """
    global _amount
    if quiet and verbose:
        raise click.UsageError("--quiet and --verbose exclude one another")
    before = _amount
    _amount = Amount.QUIET if quiet else Amount.VERBOSE if verbose else before
    try:
        yield
    finally:
        _amount = before


def amount_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options `--quiet` and `--verbose`."""
    quiet = click.option("-q", "--quiet", is_flag=True, help="Say only how it ended.")
    return quiet(click.option("-v", "--verbose", is_flag=True, help="Say more, such as what took how long.")(command))


def is_quiet() -> bool:
    return _amount == Amount.QUIET


def say(message: str = "", *, nl: bool = True) -> None:
    """What a command says as it goes, but for `--quiet`."""
    if not is_quiet():
        click.echo(message, nl=nl)


def detail(message: str) -> None:
    """What it says with `--verbose` alone."""
    if _amount == Amount.VERBOSE:
        click.echo(message)


def result(message: str) -> None:
    """Print the result of a command, always.

    It is bold on a terminal, unless NO_COLOR is set (no-color.org).
    """
    plain = bool(os.environ.get("NO_COLOR")) or not sys.stdout.isatty()
    click.echo(message if plain else click.style(message, bold=True))


def error(message: str) -> None:
    """An error on stderr; further lines of it stand as they are."""
    click.echo(f"error: {message}", err=True)


def warning(message: str) -> None:
    """A warning on stderr, after something that succeeded."""
    click.echo(f"warning: {message}", err=True)


def columns(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of text, its columns as wide as their longest cell."""
    widths = [max(map(len, cells)) for cells in zip(header, *rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in (header, *rows)]
    return "\n".join(line.rstrip() for line in lines)


def fields(named: Sequence[tuple[str, str]]) -> str:
    """Names and texts, one pair a line, indented; a repeated name is left blank."""
    width = max(len(name) for name, _ in named)
    before = ["", *(name for name, _ in named)]
    return "\n".join(
        f"  {'' if name == last else name:<{width}}  {text}".rstrip()
        for last, (name, text) in zip(before, named, strict=False)
    )


def count(number: int, noun: str = "") -> str:
    """`1,234 steps`, `1 step`."""
    return f"{number:,}" + (f" {noun}{'' if number == 1 else 's'}" if noun else "")
