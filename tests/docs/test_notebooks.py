"""Tutorials as notebooks: they run what the tests of their pages run, and they do run."""

from __future__ import annotations

import contextlib
import io
import json
import re
import sys
import types
from pathlib import Path

import pytest
from commands import output_of
from pages import DOCS, Block, blocks, commands, page_markers, page_name, site_module

PAGES = [page for page in sorted((DOCS / "tutorials").glob("*.md")) if page.stem != "index"]


def expected(block: Block) -> str | list[str] | None:
    """What a cell has of a block: its Python, its file's text, its commands; None where it is only read."""
    words = block.marker.split()
    if words[:2] == ["not", "run:"]:
        return None
    if words[:1] == ["file"] or block.language == "python":
        return block.text
    return commands(block.text) if words[:1] == ["run"] else None


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_a_notebook_runs_the_blocks_of_its_page_in_their_order(page: Path, tmp_path: Path) -> None:
    made = json.loads(json.dumps(site_module("notebooks").notebook(page, tmp_path)))
    assert (made["nbformat"], made["nbformat_minor"]) == (4, 5)
    identifiers = [cell["id"] for cell in made["cells"]]
    assert len(set(identifiers)) == len(identifiers)
    code = [cell["source"] for cell in made["cells"] if cell["cell_type"] == "code"]
    if "setup quickstart" in page_markers(page):
        assert "tzk run examples/quickstart.toml" in code.pop(0)
    wanted = [text for block in blocks(page) if (text := expected(block)) is not None]
    assert len(code) == len(wanted)
    for source, text in zip(code, wanted, strict=True):
        if isinstance(text, list):
            assert [line.removeprefix("!") for line in source.splitlines()] == text
        else:
            assert text.rstrip("\n") in source or repr(text) in source
    prose = "\n".join(cell["source"] for cell in made["cells"] if cell["cell_type"] == "markdown")
    assert prose.startswith("# ") and "<!-- docs:" not in prose
    for target in re.findall(r"\]\((?!https?:|#)([^)\s#]+)", prose):
        assert (tmp_path / target).exists(), target


def test_a_notebook_runs_from_its_first_cell_to_its_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = site_module("notebooks").write(tmp_path)
    assert {file.stem for file in files} == {page.stem for page in PAGES}
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    names = vars(types.ModuleType("notebook"))
    made = json.loads((tmp_path / "first-plugin.ipynb").read_text(encoding="utf-8"))
    ran = 0
    for cell in made["cells"]:
        if cell["cell_type"] != "code":
            continue
        ran += 1
        if cell["source"].startswith("!"):
            for line in cell["source"].splitlines():
                program, *words = line.removeprefix("!").split()
                assert program == "tzk"
                output_of(*words)
        else:
            with contextlib.redirect_stdout(io.StringIO()):
                exec(compile(cell["source"], "cell", "exec", dont_inherit=True), names)
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]
    assert ran > 1
