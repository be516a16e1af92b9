"""Links of a page to files of the repository, as the site has them.

Pages are read in two places: in the repository, where a link may point to any file, and as a site, which has the pages
alone. There pictures, results and examples are copied. A link to anything else becomes its path in words, or a link to
`repo_url`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).parents[2]
COPIES = "repository"
"""The folder of the site that has the files of the repository which pages link to."""

COPIED = (".png", ".json", ".toml", ".py", ".txt", ".cff")
"""What is copied there; pages in Markdown would become pages of the site."""

_LINK = re.compile(r"(?P<bang>!?)\[(?P<text>[^\]]*)\]\((?P<target>[^)\s]+)\)")
_FENCED = re.compile(r"^(`{3,}).*?^\1$", re.MULTILINE | re.DOTALL)


def in_repository(page: str, target: str) -> str | None:
    """The path from the root of the repository of a link out of docs/; None for any other link.

    Args:
        page: the path of the page below docs/.
        target: the link as written.
    """
    if re.match(r"[a-z]+:|#", target):
        return None
    path = os.path.normpath(PurePosixPath("docs", page).parent / target.partition("#")[0])
    return None if path.split("/")[0] in ("docs", "..") else path


def copied(page: str, text: str) -> set[str]:
    """The files of the repository that a page shows or links to and the site copies, by their paths from its root."""
    paths = {in_repository(page, match["target"]) for match in _LINK.finditer(text)}
    return {path for path in paths if path and path.endswith(COPIED)}


def rewritten(page: str, text: str, repository: str | None) -> str:
    """The page for the site.

    Args:
        page: its path below docs/.
        text: the page in Markdown.
        repository: the address of the repository, if it is known.
    """

    def replaced(match: re.Match[str]) -> str:
        path = in_repository(page, match["target"])
        if path is None:
            return match[0]
        if repository and not match["bang"]:
            return f"[{match['text']}]({repository.rstrip('/')}/tree/main/{path})"
        if path.endswith(COPIED):
            return f"{match['bang']}[{match['text']}]({'../' * page.count('/')}{COPIES}/{path})"
        return match["text"] if path in match["text"] else f"{match['text']} (`{path}`)"

    return outside_of_code(text, lambda prose: _LINK.sub(replaced, prose))


def outside_of_code(text: str, change: Callable[[str], str]) -> str:
    """The text with what is not a block of code changed."""
    pieces, end = list[str](), 0
    for fenced in _FENCED.finditer(text):
        pieces += [change(text[end : fenced.start()]), fenced[0]]
        end = fenced.end()
    return "".join([*pieces, change(text[end:])])
