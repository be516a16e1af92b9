"""Links of README.md, docs/ and the files beside lead somewhere; so do links of the pages that are made."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

import pytest
from pages import DOCS, ROOT, anchors, links, page_name, pages, site_module

WRITTEN = [*pages(), ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *sorted(ROOT.glob("plugins/*/README.md"))]
OUTSIDE = ("http://", "https://", "mailto:")


@pytest.fixture(scope="module")
def made() -> dict[str, str]:
    """Pages that exist in the site alone, by path from the root."""
    return {f"docs/{path}": text for path, text in site_module("reference").pages().items()}


def problem(place: str, target: str, made: dict[str, str]) -> str:
    """Why a link leads nowhere; "" if it leads somewhere.

    Args:
        place: the page that has the link, from the root.
        target: the link as written.
        made: the text of pages that are made, by path from the root.
    """
    path, _, anchor = target.partition("#")
    where = os.path.normpath(PurePosixPath(place).parent / path) if path else place
    if where not in made and not (ROOT / where).exists():
        return f"{place}: {target}: there is no {where}"
    if not anchor or not where.endswith(".md"):
        return ""
    text = made[where] if where in made else (ROOT / where).read_text(encoding="utf-8")
    return "" if anchor in anchors(text) else f"{place}: {target}: {where} has no heading {anchor}"


def inner_links(text: str) -> list[str]:
    return [target for target in links(text) if not target.startswith(OUTSIDE)]


@pytest.mark.parametrize("page", WRITTEN, ids=page_name)
def test_links_and_anchors_lead_somewhere(page: Path, made: dict[str, str]) -> None:
    targets = inner_links(page.read_text(encoding="utf-8"))
    assert [trouble for target in targets if (trouble := problem(page_name(page), target, made))] == []


def test_links_of_made_pages_lead_somewhere(made: dict[str, str]) -> None:
    found = [(place, target) for place, text in made.items() for target in inner_links(text)]
    assert [trouble for place, target in found if (trouble := problem(place, target, made))] == []


def test_links_that_lead_nowhere_are_seen(made: dict[str, str]) -> None:
    assert not problem("docs/glossary.md", "plugins.md#what-a-part-keeps-to", made)
    assert "there is no docs/nowhere.md" in problem("docs/glossary.md", "nowhere.md", made)
    assert "no heading nothing" in problem("docs/glossary.md", "plugins.md#nothing", made)
    assert "no heading nothing" in problem("docs/glossary.md", "reference/config.md#nothing", made)


def test_links_out_of_the_docs_become_what_the_site_has() -> None:
    rewritten = site_module("links").rewritten
    text = "![P](../../examples/p.png) [run](../../examples/a.md) [page](../concepts.md)\n```text\n[x](../../y)\n```\n"
    plain = rewritten("how-to/a.md", text, None)
    assert plain.startswith("![P](../repository/examples/p.png) run (`examples/a.md`) [page](../concepts.md)\n")
    assert "[x](../../y)" in plain
    assert rewritten("a.md", "[r](../examples/r.json)", None) == "[r](repository/examples/r.json)"
    assert "[run](https://host/x/tree/main/examples/a.md)" in rewritten("how-to/a.md", text, "https://host/x/")


@pytest.mark.parametrize("folder", ["tutorials", "how-to"])
def test_an_index_has_every_page_of_its_folder(folder: str) -> None:
    """Pages right below docs/ come into the navigation by themselves, see docs/.nav.yml."""
    listed = set(inner_links((DOCS / folder / "index.md").read_text(encoding="utf-8")))
    assert {page.name for page in (DOCS / folder).glob("*.md")} - {"index.md"} == listed - {"../tutorials/index.md"}


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


def test_there_are_how_tos_of_one_question() -> None:
    how_tos = [page for page in (DOCS / "how-to").glob("*.md") if page.name != "index.md"]
    titles = {page.name: page.read_text(encoding="utf-8").splitlines()[0] for page in how_tos}
    assert len(how_tos) >= 15
    assert [name for name, title in titles.items() if not (title.startswith("# ") and title.endswith("?"))] == []


def test_the_citation_is_that_of_the_file() -> None:
    page = (DOCS / "citing.md").read_text(encoding="utf-8")
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    version = citation.split("\nversion: ")[1].split("\n")[0]
    for text in ("TzK Flow - Conditional Generative Model", "1811.01837", "Livne", "Fleet"):
        assert text in citation and text in page
    assert f"version = {{{version}}}" in page
