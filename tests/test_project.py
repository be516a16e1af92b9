"""The core and its plugins have one version and one licence, docstrings and files of tests are short."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
PLUGINS = sorted(file.parent for file in ROOT.glob("plugins/*/pyproject.toml"))
EVERY = pytest.mark.parametrize("folder", [ROOT, *PLUGINS], ids=lambda folder: folder.name)


def project(folder: Path = ROOT) -> dict[str, Any]:
    with (folder / "pyproject.toml").open("rb") as file:
        return dict(tomllib.load(file)["project"])


def numbers(version: str) -> list[int]:
    return [int(number) for number in version.split(".")]


def test_the_plugins_are_found() -> None:
    assert {"tzk-plugin-omniglot", "tzk-plugin-glow"} <= {folder.name for folder in PLUGINS}


@EVERY
def test_every_distribution_has_the_version_and_the_licence_of_the_core(folder: Path) -> None:
    own, core = project(folder), project()
    for key in ("version", "license", "authors", "urls", "requires-python", "classifiers"):
        assert own[key] == core[key], key
    licence, *others = own["license-files"]
    assert [licence] == core["license-files"]
    assert all((folder / other).is_file() for other in others), "of what others wrote, packed with it"
    assert (folder / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()


@pytest.mark.parametrize("folder", PLUGINS, ids=lambda folder: folder.name)
def test_every_plugin_asks_for_this_minor_version_of_the_core_and_of_its_siblings(folder: Path) -> None:
    """`tzk` alone would get a stranger's program from the package index."""
    own = project(folder)
    wanted = [
        *own["dependencies"],
        *(requirement for extra in own["optional-dependencies"].values() for requirement in extra),
    ]
    ours = [requirement for requirement in wanted if requirement.startswith("tzk")]
    major, minor, _ = numbers(project()["version"])
    assert own["name"] == folder.name
    assert f"tzk-core>={major}.{minor},<{major}.{minor + 1}" in own["dependencies"]
    for requirement in ours:
        assert re.fullmatch(rf"tzk-[a-z-]+>={major}\.{minor},<{major}\.{minor + 1}", requirement), requirement


def test_the_citation_and_the_changelog_are_of_this_version() -> None:
    version = project()["version"]
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    released = re.findall(r"^## \[(\d+\.\d+\.\d+)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert released[0] == version and released == sorted(released, key=numbers, reverse=True)


SOURCES = sorted(
    file
    for folder in ("benchmarks", "examples", "plugins", "tzk_core")
    for file in ROOT.glob(f"{folder}/**/*.py")
    if not {"tests", "build"} & set(file.relative_to(ROOT).parts)
)
OF_SOURCES = pytest.mark.parametrize("file", SOURCES, ids=lambda file: str(file.relative_to(ROOT)))
LONGEST_FIRST_LINE, LONGEST_SENTENCE = 15, 30
LONGEST_FUNCTION, LONGEST_FILE, MOST_POSITIONAL = 60, 400, 3


def words(text: str) -> int:
    return sum(bool(re.search(r"\w", word)) for word in text.split())


def sentences(docstring: str) -> list[str]:
    """Its sentences; items of lists, and entries such as `name: what it is`, are sentences of their own."""
    pieces = re.split(r"\n\s*\n|\n(?=\s*(?:- |\w[\w, ]*: ))|\n(?=\s*\w+:\n)", docstring)
    return [text for piece in pieces for text in re.split(r"(?<=[.!?])\s", " ".join(piece.split()))]


def docstrings(source: str) -> list[str]:
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, documented)]
    return [text for node in nodes if (text := ast.get_docstring(node))]


def too_long(docstring: str) -> list[str]:
    first = docstring.splitlines()[0]
    wordy = [text for text in sentences(docstring) if words(text) > LONGEST_SENTENCE]
    return wordy + [first] * (words(first) > LONGEST_FIRST_LINE)


def test_a_long_sentence_and_a_long_first_line_are_seen() -> None:
    word, many = "word ", LONGEST_SENTENCE + 1
    assert too_long(f"Short.\n\n{word * many}.") and too_long(f"{word * (LONGEST_FIRST_LINE + 1)}.")
    assert not too_long(f"Short.\n\n{word * (many - 1)}. {word * (many - 1)}.")
    assert not too_long(f"Short.\n\nArgs:\n    x: {word * (many - 2)}\n    y: {word * (many - 2)}")


def test_the_sources_are_of_every_room_plugin_and_example() -> None:
    rooms = {file.relative_to(ROOT).parent.parts[:2] for file in SOURCES}
    assert {("tzk_core", folder.parent.name) for folder in ROOT.glob("tzk_core/*/__init__.py")} < rooms
    assert {("plugins", folder.name) for folder in PLUGINS} | {("examples", "knowledge"), ("benchmarks",)} < rooms


@OF_SOURCES
def test_docstrings_have_short_first_lines_and_sentences(file: Path) -> None:
    assert [text for docstring in docstrings(file.read_text(encoding="utf-8")) for text in too_long(docstring)] == []


def functions(source: str) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    return [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def lines_of(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return (function.end_lineno or function.lineno) - function.lineno + 1


def positional_of(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    """The parameters that a caller may pass by position, without the object or class of a method."""
    names = [parameter.arg for parameter in (*function.args.posonlyargs, *function.args.args)]
    return names[1:] if names[:1] in (["self"], ["cls"]) else names


def says_why(function: ast.FunctionDef | ast.AsyncFunctionDef, source: str) -> bool:
    """Whether the signature, or the head of the file, tells ruff to leave it alone, with a reason."""
    lines = source.splitlines()
    signature = lines[function.lineno - 1 : function.body[0].lineno - 1]
    told = [match for line in signature + lines[:20] if (match := re.search(r"noqa: ([A-Z0-9, ]+)(.*)", line))]
    return any("PLR0917" in match[1] and words(match[2]) > 1 for match in told)


def test_long_functions_and_many_positional_parameters_are_seen() -> None:
    source = "def f(a, b, c, d, *, e):\n" + "    pass\n" * LONGEST_FUNCTION
    (function,) = functions(source)
    assert lines_of(function) == LONGEST_FUNCTION + 1 and len(positional_of(function)) == MOST_POSITIONAL + 1
    assert not says_why(function, source) and not says_why(function, source.replace(":\n", ":  # noqa: PLR0917\n", 1))
    assert says_why(function, source.replace(":\n", ":  # noqa: PLR0917 -- torch calls it\n", 1))
    (method,) = functions(
        "class C:\n    def f(  # noqa: PLR0917 -- torch calls it\n        self, a, b):\n        pass\n"
    )
    assert positional_of(method) == ["a", "b"]


@OF_SOURCES
def test_files_and_functions_are_short_and_calls_go_by_name(file: Path) -> None:
    source = file.read_text(encoding="utf-8")
    assert len(source.splitlines()) <= LONGEST_FILE
    assert [function.name for function in functions(source) if lines_of(function) > LONGEST_FUNCTION] == []
    many = [function for function in functions(source) if len(positional_of(function)) > MOST_POSITIONAL]
    assert [function.name for function in many if not says_why(function, source)] == []


def test_the_directory_lists_every_plugin_of_this_repository() -> None:
    listed = re.findall(
        r"^\| `(tzk-plugin-[a-z-]+)` \|", (ROOT / "docs/plugins-directory.md").read_text(), re.MULTILINE
    )
    assert listed == [folder.name for folder in PLUGINS]


TESTS = sorted(file for folder in (ROOT, *PLUGINS) for file in folder.glob("tests/**/*.py"))
LONGEST_TEST_FILE = 400
RUNNER = ROOT / "tests" / "support" / "commands.py"


def runs_commands(source: str) -> bool:
    """Whether it calls the command `main` by click's runner, which `tests/support/commands.py` does for all."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    invoked = [call for call in calls if isinstance(call.func, ast.Attribute) and call.func.attr == "invoke"]
    return any(isinstance(call.args[0], ast.Name) and call.args[0].id == "main" for call in invoked if call.args)


def test_a_runner_is_seen() -> None:
    assert runs_commands("def tzk(*words):\n    return CliRunner().invoke(main, list(words))")
    assert not runs_commands("runner.invoke(command, words)\nmain(words)")


def test_commands_are_run_by_one_runner() -> None:
    assert [file for file in TESTS if runs_commands(file.read_text(encoding="utf-8"))] == [RUNNER]


def test_files_of_tests_are_short() -> None:
    lengths = {str(file.relative_to(ROOT)): len(file.read_text(encoding="utf-8").splitlines()) for file in TESTS}
    assert {name: length for name, length in lengths.items() if length > LONGEST_TEST_FILE} == {}
