"""What moved from the core to plugins is found by its former names, or says what to install."""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
from pathlib import Path

import pytest
from installed import python

import tzk_core
from tzk_core.moved import MODULES, PARTS, home
from tzk_core.plugins import Command, KnowledgeType, Optimizer, Picture, Registry, UnknownPart
from tzk_core.plugins.builtin import BUILTIN
from tzk_core.plugins.loader import load_all

CORE = Path(tzk_core.__file__).parent
ROOT = CORE.parent
ALONE = Registry(load_all(BUILTIN, []))
"""The core without any plugin."""


@pytest.mark.parametrize(("kind", "name"), PARTS)
@pytest.mark.parametrize("before", ["", "tzk/"])
def test_without_its_plugin_a_part_names_the_distribution(kind: str, name: str, before: str) -> None:
    spec_type = {"command": Command, "knowledge type": KnowledgeType, "optimizer": Optimizer, "picture": Picture}[kind]
    distribution = PARTS[kind, name].distribution
    with pytest.raises(UnknownPart, match=f"^the {kind} '{before}{name}' is in the plugin '{distribution}': .+"):
        ALONE.find(spec_type, before + name)
    assert home(kind, f"others/{name}") is None and home("flow layer", name) is None


@pytest.mark.parametrize("former", MODULES)
def test_a_module_is_gone_from_the_core_and_imported_by_its_former_name(former: str) -> None:
    assert not (ROOT / Path(*former.split("."))).with_suffix(".py").exists()
    present, where = MODULES[former]
    if importlib.util.find_spec(present.partition(".")[0]) is None:
        pytest.skip(f"{where.distribution} is not installed")
    assert importlib.import_module(former) is importlib.import_module(present) is sys.modules[former]


def test_without_the_plugin_an_import_names_the_distribution(tmp_path: Path) -> None:
    """In a process that sees the core's source and what it depends on, and no plugin."""
    program = """
        import json, sys
        class Absent:
            def find_spec(self, name, path=None, target=None):
                if name.startswith("tzk_plugin_"):
                    raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        sys.meta_path.insert(0, Absent())
        import tzk_core
        from tzk_core.moved import MODULES
        said = {}
        for former in MODULES:
            try:
                __import__(former)
            except ModuleNotFoundError as error:
                said[former] = (error.name, str(error))
        print(json.dumps(said))
    """
    ended = python(tmp_path, program)
    assert ended.returncode == 0, ended.stderr
    said = json.loads(ended.stdout)
    assert set(said) == set(MODULES)
    for former, (name, message) in said.items():
        present, where = MODULES[former]
        assert name == former
        assert (
            message == f"{former} is now {present}, in a plugin that is not installed: pip install {where.distribution}"
        )


def test_a_fault_within_the_plugin_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that the plugin itself lacks is named, and not the plugin."""
    monkeypatch.setitem(MODULES, "tzk_core.something", ("tzk_core_no_plugin.part", next(iter(PARTS.values()))))
    monkeypatch.setitem(sys.modules, "tzk_core_no_plugin", type(sys)("tzk_core_no_plugin"))
    sys.modules["tzk_core_no_plugin"].__path__ = []  # type: ignore[attr-defined]

    class Broken:
        def find_spec(self, name: str, path: object = None, target: object = None) -> None:
            if name == "tzk_core_no_plugin.part":
                raise ModuleNotFoundError("No module named 'elsewhere'", name="elsewhere")

    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    with pytest.raises(ModuleNotFoundError, match="No module named 'elsewhere'"):
        importlib.import_module("tzk_core.something")


def test_nothing_else_is_forwarded() -> None:
    with pytest.raises(ModuleNotFoundError, match="No module named 'tzk_core.evaluation.nothing'"):
        importlib.import_module("tzk_core.evaluation.nothing")
