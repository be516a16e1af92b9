"""Everything that is registered, configured or typed is documented, and the reference has it."""

from __future__ import annotations

import dataclasses
import inspect
import types
from typing import Any

import click
import pytest
from command_lines import known_commands
from pages import site_module

import tzk_core
from tzk_core.config.reference import every_table
from tzk_core.config.schema import MODELS
from tzk_core.config.signatures import signature
from tzk_core.plugins import SPEC_TYPES, Command, Registered, registry

reference: Any = site_module("reference")
OWN = [part for spec_type in SPEC_TYPES for part in registry().all(spec_type) if part.plugin != "nflows"]


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    return dict(reference.pages())


def undocumented(part: Registered) -> str:
    """What a part lacks: a summary, or a docstring; "" if it has both."""
    if not part.spec.summary.strip():
        return f"{part.qualified_name} has no summary"
    if isinstance(part.spec, Command):
        return ""
    documented = signature(part).docstring or part.load().__doc__
    return "" if documented else f"{part.qualified_name} has no docstring"


@pytest.mark.parametrize("part", OWN, ids=lambda part: f"{part.spec.kind}-{part.qualified_name}")
def test_every_part_is_documented(part: Registered, pages: dict[str, str]) -> None:
    assert undocumented(part) == ""
    page = pages[f"reference/parts/{part.spec.kind.replace(' ', '-')}.md"]
    assert f"\n## {part.name}\n" in f"\n{page}"


def test_a_part_without_documentation_is_seen() -> None:
    part = next(part for part in OWN if part.name == "symlog")
    silent: Any = types.SimpleNamespace(qualified_name="a/b", spec=types.SimpleNamespace(summary=" "))
    assert undocumented(silent) == "a/b has no summary"
    bare = dataclasses.replace(part, spec=dataclasses.replace(part.spec, target="undocumented_part:Layer"))
    assert undocumented(bare) == f"{part.qualified_name} has no docstring"


def test_every_key_of_a_config_says_what_it_does() -> None:
    tables = every_table()
    assert [f"{table.heading} {key.name}" for table in tables for key in table.keys if not key.help.strip()] == []
    assert [table.heading for table in tables if not table.summary.strip()] == []


def test_the_reference_has_every_table_and_key(pages: dict[str, str]) -> None:
    sections = pages["reference/config.md"].split("\n## ")
    for path, model in MODELS.items():
        name = ".".join(path)
        mine = [text for text in sections if text.startswith((f"[{name}]", f"[[{name}]]") if path else "The head")]
        assert mine, path
        for key in model.model_fields.keys() - {"arguments"}:
            if (*path, key) not in MODELS:
                assert f"| `{key}` |" in mine[0], (path, key)


def test_every_command_and_option_says_what_it_does(pages: dict[str, str]) -> None:
    page = pages["reference/command-line.md"]
    for name, command in reference.every_command():
        assert command.help and command.help.strip(), name
        assert f"\n## {name}\n" in page
        for parameter in command.params:
            if isinstance(parameter, click.Option) and not parameter.hidden:
                assert parameter.help and parameter.opts[-1] in page, (name, parameter.name)


def test_the_reference_has_every_command(pages: dict[str, str]) -> None:
    page = pages["reference/command-line.md"]
    assert [name for name in [*known_commands(), "knowledge export"] if f"\n## tzk {name}\n" not in page] == []


def test_every_hook_has_an_example_that_offers_one_part(pages: dict[str, str]) -> None:
    """Each example is the whole module of a plugin."""
    hooks = reference.hook_functions()
    assert len(hooks) == len(SPEC_TYPES)
    for name, hook in hooks.items():
        example = inspect.cleandoc(hook.__doc__).partition("\n\n")[2]
        names: dict[str, Any] = {}
        exec(compile(example, name, "exec"), names)
        assert [bool(spec.summary) for spec in names[name]()] == [True], name
        assert example.strip() in pages["reference/hooks.md"]


def test_the_python_page_has_what_the_package_exports(pages: dict[str, str]) -> None:
    lines = pages["reference/python.md"].splitlines()
    directives = [line.removeprefix("::: ") for line in lines if line.startswith(":::")]
    for name in directives:
        module, _, attribute = name.rpartition(".")
        assert getattr(__import__(module, fromlist=[attribute]), attribute).__doc__, name
    assert {name.rpartition(".")[2] for name in directives} >= set(tzk_core.__all__)


def test_the_schemas_are_those_of_the_command() -> None:
    made = reference.schemas()
    assert made["reference/tzk.schema.json"]["title"] == "TzK config"
    assert made["reference/tzk-addition.schema.json"]["title"] == "TzK spec of an addition"
