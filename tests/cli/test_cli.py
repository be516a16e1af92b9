"""The command line: what each command says, what plugins add to it, and that it starts quickly."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from commands import refused, tzk
from fake_experiment import CONFIG

from tzk_core.plugins import SPEC_TYPES, Command, Registry, hookimpl, registry

# --- starting ---


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["--version"],
        ["plugins"],
        ["run", "--help"],
        ["schema", "--help"],
        ["sample", "--help"],
        ["knowledge", "import", "--help"],
    ],
)
def test_nothing_heavy_is_imported_to_say_what_there_is(words: list[str]):
    code = (
        "import sys; from tzk_core.cli import main; main(sys.argv[1:], standalone_mode=False);"
        "print([n for n in ('torch', 'nflows', 'pydantic', 'numpy', 'tqdm') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_help_lists_every_command():
    result = tzk("--help")
    assert result.exit_code == 0
    for name in ("run", "eval", "sample", "check", "describe", "plugins"):
        assert f"  {name} " in result.stdout
        assert tzk(name, "--help").exit_code == 0


def test_an_unknown_command_suggests_the_nearest():
    assert "no command is called 'smaple'; did you mean 'sample'?" in refused("smaple")


# --- commands of plugins ---


class Greeter:
    @hookimpl
    def tzk_commands(self) -> list[Command]:
        return [
            Command("greet", f"{__name__}:greet", "say hello"),
            Command("fail", "nowhere.at.all:command", "cannot be imported"),
            Command("odd", f"{__name__}:Greeter", "is no command"),
            Command("run", f"{__name__}:greet", "called like a command of the program"),
        ]


def _greet() -> Any:
    import click

    return click.command()(lambda: click.echo("hello"))


greet = _greet()


@pytest.fixture
def greeter(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plugin with commands, good and bad, as if it was installed."""
    from tzk_core.cli import program
    from tzk_core.plugins import loader

    loaded = loader.load_all({"greeter": loader.Builtin("greeter", Greeter())}, allow=[])
    monkeypatch.setattr(program, "registry", lambda: Registry(loaded))


def test_commands_of_plugins_are_listed_and_run(greeter: None):
    listed = tzk("--help").stdout
    assert "Commands of plugins:" in listed
    for name in ("greet", "fail", "odd", "greeter/run"):
        assert f"  {name} " in listed
    assert tzk("greet").stdout == "hello\n"
    assert tzk("greeter/run").stdout == "hello\n"


def test_a_command_that_fails_to_load_is_one_error(greeter: None):
    assert "No module named 'nowhere'" in refused("fail")
    assert "expected a click command" in refused("odd")


def test_help_says_why_commands_of_plugins_are_missing(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TZK_PLUGINS_STRICT", "maybe")
    result = tzk("--help")
    assert result.exit_code == 0
    assert "not listed: the environment variable TZK_PLUGINS_STRICT" in " ".join(result.stdout.split())


# --- plugins, describe, check ---


def test_plugins_are_listed_for_people_and_programs():
    table = tzk("plugins").stdout
    assert table.splitlines()[0].split() == ["NAME", "DISTRIBUTION", "VERSION", "STATE", "HOOKS"]
    listed = json.loads(tzk("plugins", "--json").stdout)
    core = next(plugin for plugin in listed if plugin["name"] == "tzk")
    assert set(core) >= {"name", "distribution", "version", "state", "hooks", "reason"}
    assert (core["distribution"], core["state"]) == ("tzk-core", "ok")


def test_plugins_can_be_loaded_whole():
    result = tzk("plugins", "--load")
    assert result.exit_code == 0, result.stdout
    assert "parts can be imported" in result.stdout


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mnist", ["mnist: data set", "validation", "int", "= 5000", "tzk_core/data/mnist.py"]),
        ("tiled-convolution", ["flow layer", "tile", "= 1", "tzk_core.transforms"]),
        ("paper", ["flow recipe", "steps", "= 10", "16×16 tiles"]),
        ("lu-linear", ["flow layer", "features", "required", "nflows"]),
        ("nflows/lu-linear", ["flow layer"]),
    ],
)
def test_describe_prints_arguments_defaults_and_where_a_part_comes_from(name: str, message: list[str]):
    result = tzk("describe", name)
    assert result.exit_code == 0, result.output
    for each in message:
        assert each in result.stdout


def test_describe_shows_every_spec_type_of_that_name():
    parts = [part.name for spec_type in registry()._parts for part in registry().all(spec_type)]
    for name in {name for name in parts if parts.count(name) > 1}:
        assert tzk("describe", name).stdout.count("target") == parts.count(name)


def test_describe_of_nothing_suggests():
    assert "did you mean 'two-moons'?" in refused("describe", "two-moon")
    assert "`tzk describe` lists all names" in refused("describe", "quite-another")


def test_describe_without_a_name_lists_every_part_with_its_summary():
    lines = [" ".join(line.split()) for line in tzk("describe").stdout.splitlines()]
    for spec_type in SPEC_TYPES:
        for part in registry().all(spec_type):
            assert f"{part.name} {part.plugin} {part.spec.summary}" in lines


def test_check_says_ok_and_the_plan(here: Path):
    result = tzk("check", "small.toml", "training.steps=7")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("small.toml: ok\n")
    assert "7 steps of 256" in result.stdout


def test_check_says_all_that_is_wrong(here: Path):
    (here / "small.toml").write_text(CONFIG.replace("steps", "stepz").replace('"affine"', '"afine"'))
    message = refused("check", "small.toml")
    assert message.splitlines() == [
        "error: the config has 3 problems",
        "  small.toml: [training] steps: is required",
        "  small.toml: [training] stepz: unknown key; did you mean 'steps'?",
        "  small.toml: [[flow.layers]] #1 type: no flow layer is called 'afine'; did you mean 'affine'?",
    ]
