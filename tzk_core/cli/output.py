"""How the program speaks: results to stdout, errors to stderr, numbers and tables for people."""

from __future__ import annotations

from collections.abc import Sequence

import click

say = click.echo


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
