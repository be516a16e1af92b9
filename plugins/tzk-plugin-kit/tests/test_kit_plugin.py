"""The kit is found by the core, registers as a plugin does, and holds the checks that `tzk_core.testing` lists."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
from installed import python

import tzk_core.testing as testing


def test_the_plugin_registers() -> None:
    (spec,) = testing.check_plugin("tzk_plugin_kit")
    assert spec.name == "new-plugin"


@pytest.mark.parametrize("name", testing.__all__)
def test_every_check_is_found_under_its_address_in_the_core(name: str) -> None:
    found = getattr(testing, name)
    assert found.__name__ == name and found.__module__.partition(".")[0] in ("tzk_core", "tzk_plugin_kit")
    assert name == "NotConforming" or inspect.isfunction(found)


def test_no_other_name_is_found() -> None:
    assert not hasattr(testing, "check_nothing")


def test_without_the_kit_the_core_checks_a_plugin_and_says_what_to_install(tmp_path: Path) -> None:
    program = """
        import sys
        class Absent:
            def find_spec(self, name, path=None, target=None):
                if name.partition(".")[0] == "tzk_plugin_kit":
                    raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        sys.meta_path.insert(0, Absent())
        from tzk_core.testing import NotConforming, check_implementation, check_plugin
        check_plugin("tzk_core.plugins.builtin:CORE")
        try:
            from tzk_core.testing import check_transform
        except ModuleNotFoundError as error:
            print(error)
    """
    ended = python(tmp_path, program)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.strip().endswith("in a plugin that is not installed: pip install tzk-plugin-kit")
