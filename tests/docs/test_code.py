"""The code of README.md and docs/ runs, page by page, in the order of its blocks."""

from __future__ import annotations

import ast
import contextlib
import io
import re
import shlex
import shutil
import sys
import types
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from command_lines import UnknownCommand, check_block, check_command_line, known_commands
from commands import output_of
from configs_in_pages import needed_plugin, trouble
from pages import ROOT, Block, blocks, commands, page_markers, page_name, pages
from scripts import printed_by

LANGUAGES = {"python", "toml", "sh", "text", "json", "bibtex", "yaml", "markdown"}
"""What a block may be. What is neither Python, TOML nor for the shell is only read."""

TINY = [
    *("training.steps=2", "training.batch_size=32", "evaluation.importance_samples=2"),
    *("datasets.digits.train=300", "datasets.digits.validation=60", "datasets.digits.test=60"),
    *("datasets.letters.train=300", "datasets.letters.validation=60", "datasets.letters.test=60"),
]
"""Overrides that make a run of examples/quickstart.toml take seconds."""

ALL = [page for page in pages() if blocks(page)]
EVERY = [block for page in ALL for block in blocks(page)]


def runs(page: Path) -> bool:
    """Whether any block of a page is run."""
    return any(block.language == "python" or block.marker.startswith("run") for block in blocks(page))


RUN = [
    pytest.param(page, id=page_name(page), marks=[pytest.mark.slow] if "slow" in page_markers(page) else [])
    for page in ALL
    if runs(page)
]


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of examples/quickstart.toml, much shortened."""
    folder = tmp_path_factory.mktemp("quickstart") / "run"
    output_of("run", str(ROOT / "examples/quickstart.toml"), "--out", str(folder), *TINY)
    return folder


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder, which is the current one, with the examples in it."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    gradients = torch.is_grad_enabled()
    yield tmp_path
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]
    torch.set_grad_enabled(gradients)


@pytest.mark.parametrize("page", RUN)
def test_the_blocks_of_a_page_run_in_their_order(
    page: Path, place: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    for block in blocks(page):
        if missing := needed_plugin(block):
            pytest.skip(f"needs {missing}, which is not installed")
    if "setup quickstart" in page_markers(page):
        shutil.copytree(request.getfixturevalue("quickstart"), place / "runs" / "quickstart")
    module = types.ModuleType("page")
    monkeypatch.setitem(sys.modules, "page", module)
    for block in blocks(page):
        take(block, vars(module), place)


def take(block: Block, names: dict[str, Any], folder: Path) -> None:
    """Write a block as a file below `folder`, or run it."""
    words = block.marker.split()
    if words[:2] == ["not", "run:"]:
        return
    if words[:1] == ["file"]:
        (folder / words[1]).parent.mkdir(parents=True, exist_ok=True)
        (folder / words[1]).write_text(block.text, encoding="utf-8")
    elif block.language == "python":
        execute(block, names, words[1:])
    elif words[:1] == ["run"]:
        for line in commands(block.text):
            command(line, words[1:])


def execute(block: Block, names: dict[str, Any], shorter: list[str]) -> None:
    """Run Python; `steps=2` in its comment stands for numbers of two digits and more in the block."""
    text = block.text
    for word in shorter:
        name, _, value = word.partition("=")
        assert re.search(rf"\b{name}=\d\d+", text), f"{block.place}: nothing to shorten is called {name}"
        text = re.sub(rf"\b{name}=\d\d+", f"{name}={value}", text)
    code = compile("\n" * block.line + text, str(block.page), "exec", dont_inherit=True)  # lines as on the page
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec(code, names)


def command(line: str, overrides: list[str]) -> None:
    """Run one command in this process."""
    program, *words = shlex.split(line, comments=True)
    if program == "tzk":
        output_of(*words, *(overrides if words[0] in ("run", "add") else ()))
    elif program == "python":
        printed_by(Path(words[0]), *words[1:])
    else:
        raise AssertionError(f"`{program}` cannot be run by the tests: leave the word `run` out of its comment")


def of(language: str) -> list[Any]:
    return [pytest.param(block, id=block.place) for block in EVERY if block.language == language]


@pytest.mark.parametrize("block", of("toml"))
def test_a_config_is_sound(block: Block, tmp_path: Path) -> None:
    """Whole configs as they are, pieces within a whole one, specs as additions."""
    if missing := needed_plugin(block):
        pytest.skip(f"needs {missing}, which is not installed")
    assert trouble(block, tmp_path) == ""


@pytest.mark.parametrize("block", of("sh"))
def test_every_command_exists_and_takes_its_options(block: Block) -> None:
    try:
        check_block(commands(block.text))
    except UnknownCommand as error:
        raise AssertionError(f"{block.place}: {error}") from error


@pytest.mark.parametrize(
    "line",
    [
        "tzk runn a.toml",
        "tzk run",
        "tzk run a.toml --outt b",
        "tzk run examples/none.toml",
        "tzk run examples/quickstart.toml training.stepps=3",
        "tzk knowledge lst runs/a",
        "tzk describe a b",
        "python examples/none.py",
        "python examples/toys.py --stps 3",
        "pip install ./plugins/none",
        "pip install '.[none]'",
        "make nothing",
        "unknown program",
    ],
)
def test_commands_that_do_not_exist_are_seen(line: str) -> None:
    with pytest.raises(UnknownCommand):
        check_command_line(line)


@pytest.mark.parametrize("page", ALL, ids=page_name)
def test_blocks_say_what_they_are(page: Path) -> None:
    for block in blocks(page):
        assert block.language in LANGUAGES, f"{block.place}: {block.language!r} is none of {sorted(LANGUAGES)}"
        if block.language == "python":
            ast.parse(block.text)
        if block.marker.startswith("not run"):
            assert re.match(r"not run: \w.{8,}", block.marker), f"{block.place}: a block that is left alone says why"


@pytest.mark.parametrize("page", pages(), ids=page_name)
def test_commands_in_sentences_exist(page: Path) -> None:
    for line in re.findall(r"`(tzk [^`]+)`", page.read_text(encoding="utf-8")):
        name = line.split()[1]
        assert name.startswith(("-", "COMMAND")) or name in known_commands(), f"{page_name(page)}: {line}"
