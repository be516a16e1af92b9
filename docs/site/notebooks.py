"""Tutorials as notebooks, made of their pages: `make notebooks`.

A page is the only source: what a notebook runs are the blocks that the tests run, in their order.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
TUTORIALS = ROOT / "docs" / "tutorials"

_BLOCK = re.compile(
    r"^(?:<!-- docs: (?P<marker>(?:(?!-->).)*?) -->\n)?```(?P<language>\w*)\n(?P<text>.*?)^```$\n?",
    re.MULTILINE | re.DOTALL,
)
_COMMENT = re.compile(r"<!-- docs: (.*?) -->\n?")
_LINK = re.compile(r"(\]\()(?!https?:|#)([^)\s#]+)")

QUICKSTART = (
    "from pathlib import Path\n\n"
    'if not Path("runs/quickstart").exists():  # the run that this page starts from\n'
    "    !tzk run examples/quickstart.toml --out runs/quickstart\n"
)


def notebook(page: Path, folder: Path) -> dict[str, Any]:
    """A page as a notebook (format 4.5) that lies in `folder`."""
    text = page.read_text(encoding="utf-8")
    cells = list(_cells(text, page, folder))
    if "setup quickstart" in _COMMENT.findall(text):
        cells.insert(1, ("code", QUICKSTART))
    return {
        "cells": [_cell(kind, source, number) for number, (kind, source) in enumerate(cells)],
        "metadata": {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }


def _cells(text: str, page: Path, folder: Path) -> Iterator[tuple[str, str]]:
    """Kinds and sources of cells: text of the page, and what of its blocks is run."""
    end = 0
    prose = ""
    for match in _BLOCK.finditer(text):
        prose += text[end : match.start()]
        end = match.end()
        code = _code(match["marker"] or "", match["language"], match["text"])
        if code is None:
            prose += f"```{match['language']}\n{match['text']}```\n"
            continue
        if words := _prose(prose, page, folder):
            yield "markdown", words
        prose = ""
        yield "code", code
    if words := _prose(prose + text[end:], page, folder):
        yield "markdown", words


def _code(marker: str, language: str, text: str) -> str | None:
    """The source of a cell for a block; None for one that is only read."""
    words = marker.split()
    if words[:2] == ["not", "run:"]:
        return None
    if words[:1] == ["file"]:
        folder = Path(words[1]).parent
        before = "" if folder == Path() else f"import os\n\nos.makedirs({str(folder)!r}, exist_ok=True)\n"
        return f"{before}with open({words[1]!r}, 'w', encoding='utf-8') as file:\n    file.write({text!r})\n"
    if language == "python":
        return text
    if language == "sh" and words[:1] == ["run"]:
        lines = text.replace("\\\n", " ").splitlines()
        return "".join(f"!{line.strip()}\n" for line in lines if line.strip() and not line.lstrip().startswith("#"))
    return None


def _prose(text: str, page: Path, folder: Path) -> str:
    """Text without comments for the tests, whose links lead from `folder`."""

    def moved(match: re.Match[str]) -> str:
        return match[1] + Path(os.path.relpath((page.parent / match[2]).resolve(), folder.resolve())).as_posix()

    return _LINK.sub(moved, _COMMENT.sub("", text)).strip()


def _cell(kind: str, source: str, number: int) -> dict[str, Any]:
    cell = {"id": f"cell-{number}", "cell_type": kind, "metadata": {}, "source": source.rstrip("\n")}
    return cell | ({"outputs": [], "execution_count": None} if kind == "code" else {})


def write(folder: Path) -> list[Path]:
    """Write a notebook for every tutorial, and beside them a link to examples/, which they name."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "examples").exists():
        (folder / "examples").symlink_to(os.path.relpath(ROOT / "examples", folder.resolve()))
    written = []
    for page in sorted(TUTORIALS.glob("*.md")):
        if page.stem != "index":
            written.append(folder / f"{page.stem}.ipynb")
            written[-1].write_text(json.dumps(notebook(page, folder), indent=1, ensure_ascii=False) + "\n", "utf-8")
    return written


if __name__ == "__main__":
    for file in write(Path(sys.argv[1])):
        print(file)
