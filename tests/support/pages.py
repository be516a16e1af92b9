"""The pages of the documentation, taken apart: blocks of code, links, anchors.

A comment in the line above a block says how the tests treat it; a reader does not see it. Without one, Python is run,
TOML is checked, and commands are compared with what there is.

    <!-- docs: run KEY=VALUE ... -->   run these commands, with these overrides for `tzk run` and `tzk add`
    <!-- docs: file NAME -->           write the block as this file, for what follows on the page
    <!-- docs: piece of CONFIG -->     check the block within this config, and not within examples/quickstart.toml
    <!-- docs: spec of CONFIG -->      check the block as what `tzk add` adds to a run of this config
    <!-- docs: not run: REASON -->     leave the block alone
    <!-- docs: setup quickstart -->    anywhere on a page: it starts with a finished run of examples/quickstart.toml
    <!-- docs: slow -->                anywhere on a page: running its blocks takes more than a few seconds
"""

from __future__ import annotations

import importlib.util
import re
import sys
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"

_FENCE = re.compile(r"^(?P<indent> *)(?P<ticks>`{3,})(?P<language>[\w-]*).*$")
_MARKER = re.compile(r"<!-- docs: (?P<words>.*?) -->")
_LINK = re.compile(r"!?\[(?P<text>[^\]]*)\]\((?P<target>[^)\s]+)(?: \"[^\"]*\")?\)")
_HEADING = re.compile(r"^#{1,6} (?P<title>.+?)(?: \{ *#(?P<id>[\w-]+) *\})?$")


class Block(NamedTuple):
    """One block of code: the page and line it is at, its language, the words of its comment, its text."""

    page: Path
    line: int
    language: str
    marker: str
    text: str

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def pages() -> list[Path]:
    """README.md and all pages below docs/."""
    return [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]


def page_name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: Path) -> list[Block]:
    """The blocks of code of a page, in its order."""
    found: list[Block] = []
    opened: tuple[int, str, str] | None = None
    language, marker, taken = "", "", list[str]()
    lines = page.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, 1):
        fence = _FENCE.match(line)
        if opened is None and fence:
            above = _MARKER.search(lines[number - 2]) if number > 1 else None
            opened = (number, fence["ticks"], fence["indent"])
            language, marker, taken = fence["language"], above["words"] if above else "", []
        elif opened and line.strip() == opened[1]:
            found.append(Block(page, opened[0], language, marker, "\n".join(taken) + "\n"))
            opened = None
        elif opened:
            taken.append(line.removeprefix(opened[2]))
    if opened is not None:
        raise ValueError(f"{page}:{opened[0]}: this block of code has no end")
    return found


def page_markers(page: Path) -> set[str]:
    """The comments of a page that concern all of it."""
    words = {match["words"] for match in _MARKER.finditer(page.read_text(encoding="utf-8"))}
    return words & {"slow", "setup quickstart"}


def prose(text: str) -> str:
    """A page's text without its blocks of code."""
    kept, within = list[str](), ""
    for line in text.splitlines():
        fence = _FENCE.match(line)
        if within:
            within = "" if line.strip() == within else within
        elif fence:
            within = fence["ticks"]
        else:
            kept.append(line)
    return "\n".join(kept)


def links(text: str) -> list[str]:
    """The targets of all links and pictures."""
    plain = re.sub(r"`[^`\n]+`(?!\])", "", prose(text))
    return [match["target"] for match in _LINK.finditer(plain)]


def anchors(text: str) -> set[str]:
    """What `#...` of a link to this page may be, as GitHub and mkdocs make it of its headings."""
    names: set[str] = set()
    for line in prose(text).splitlines():
        if heading := _HEADING.match(line):
            names.add(heading["id"] or slug(heading["title"]))
    return names | set(re.findall(r"<a (?:id|name)=\"([\w-]+)\"", text))


def slug(title: str) -> str:
    """A heading as an anchor."""
    plain = _LINK.sub(lambda match: match["text"], title)
    return re.sub(r"[ ]", "-", re.sub(r"[^\w\- ]", "", plain.replace("`", "")).strip().lower())


def commands(text: str) -> list[str]:
    """The commands of a block for the shell: comments left out, continued lines joined."""
    lines = text.replace("\\\n", " ").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]


@cache
def site_module(name: str) -> ModuleType:
    """A module of docs/site, which makes pages when the site is built."""
    path = DOCS / "site" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"docs_site_{name}", path)
    if spec is None or spec.loader is None:
        raise FileNotFoundError(path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
