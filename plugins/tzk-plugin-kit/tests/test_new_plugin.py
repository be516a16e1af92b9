"""`tzk new-plugin` writes plugins that install, and whose tests pass untouched."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from commands import output_of, refused
from tzk_plugin_kit.new import kinds, new_plugin

from tzk_core.errors import TzkError
from tzk_core.plugins.specs import SPEC_TYPES

ROOT, KIT = Path(__file__).parents[3], Path(__file__).parents[1]


def test_there_is_a_template_for_every_hook() -> None:
    hooks = {spec_type.hook for spec_type in SPEC_TYPES}
    assert {kind.hook for kind in kinds().values()} == hooks


@pytest.mark.parametrize("kind", kinds())
def test_a_plugin_is_a_whole_distribution(kind: str, tmp_path: Path) -> None:
    folder = new_plugin(f"my-{kind}", kind, tmp_path)
    assert folder == tmp_path / f"tzk-plugin-my-{kind}"
    package = f"tzk_plugin_my_{kind}".replace("-", "_")
    with (folder / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    assert project["name"] == folder.name and project["entry-points"] == {"tzk.v1": {f"my-{kind}": package}}
    assert project["dependencies"][0].startswith("tzk-core")
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    expected = {"README.md", "LICENSE", ".gitignore", ".github/workflows/tests.yml", "pyproject.toml"}
    assert files >= expected | {f"{package}/__init__.py", f"{package}/py.typed", f"tests/test_{package}.py"}
    for path in folder.rglob("*"):
        if path.is_file():
            text = path.read_text(encoding="utf-8")
            assert "$" not in text, path
            if path.suffix == ".py":
                compile(text, str(path), "exec")
    assert f"my-{kind}" in (folder / "README.md").read_text(encoding="utf-8")


def test_the_command_says_what_to_do_next(tmp_path: Path) -> None:
    output = output_of("new-plugin", "tzk-plugin-two-stars", "--into", tmp_path)
    assert (tmp_path / "tzk-plugin-two-stars" / "tzk_plugin_two_stars" / "knowledge.py").is_file()
    assert 'pip install -e ".[test]"' in output
    again = refused("new-plugin", "two-stars", "--kind", "layer", "--into", tmp_path)
    assert len(again.splitlines()) == 1
    assert "tzk-plugin-two-stars is already there: choose another name, or remove it first" in again


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("Two Stars", "layer", "got 'Two Stars': such as 'two-stars'"),
        ("2stars", "layer", "the first a letter, .* such as 'stars'"),
        ("étoiles", "layer", "lower-case words of letters and digits"),
        ("../up", "layer", "such as 'up'"),
        ("", "layer", "such as 'two-stars'"),
        ("a" * 61, "layer", "at most 60 letters"),
        ("symlog", "layer", "the core has a flow layer 'symlog', which would hide it: such as 'my-symlog'"),
        ("run", "command", "the core has a command 'run'"),
        ("mine", "layers", "no kind of plugin is called 'layers'; did you mean 'layer'"),
    ],
)
def test_names_that_do_not_fit_are_refused(name: str, kind: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(TzkError, match=words):
        new_plugin(name, kind, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_every_plugin_installs_and_its_tests_pass_untouched(tmp_path: Path) -> None:
    folders = [new_plugin(f"my-{kind}", kind, tmp_path) for kind in kinds()]
    site = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    _run([*pip, "--target", str(site), *map(str, folders)], {})
    path = os.pathsep.join([str(site), str(ROOT), str(KIT)])
    tests = [str(folder / "tests") for folder in folders]
    result = _run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests], {"PYTHONPATH": path})
    assert "failed" not in result and "passed" in result
    _run([sys.executable, "-m", "ruff", "check", *map(str, folders)], {})


def _run(command: list[str], more: dict[str, str]) -> str:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("TZK_")} | more
    process = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, timeout=300, cwd=Path(command[-1])
    )
    assert process.returncode == 0, process.stdout + process.stderr
    return process.stdout
