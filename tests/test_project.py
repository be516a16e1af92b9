"""The core and its plugins are released together: one version, one licence, and each plugin fits this core alone."""

from __future__ import annotations

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
    for key in ("version", "license", "license-files", "authors", "urls", "requires-python", "classifiers"):
        assert own[key] == core[key], key
    assert (folder / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()


@pytest.mark.parametrize("folder", PLUGINS, ids=lambda folder: folder.name)
def test_every_plugin_asks_for_this_minor_version_of_the_core_and_of_its_siblings(folder: Path) -> None:
    """`tzk` alone would get a stranger's program from the package index."""
    own = project(folder)
    wanted = [*own["dependencies"], *(each for extra in own["optional-dependencies"].values() for each in extra)]
    ours = [each for each in wanted if each.startswith("tzk")]
    major, minor, _ = numbers(project()["version"])
    assert own["name"] == folder.name
    assert f"tzk-core>={major}.{minor},<{major}.{minor + 1}" in own["dependencies"]
    for each in ours:
        assert re.fullmatch(rf"tzk-[a-z-]+>={major}\.{minor},<{major}\.{minor + 1}", each), each


def test_the_citation_and_the_changelog_are_of_this_version() -> None:
    version = project()["version"]
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    released = re.findall(r"^## \[(\d+\.\d+\.\d+)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert released[0] == version and released == sorted(released, key=numbers, reverse=True)


def test_the_directory_lists_every_plugin_of_this_repository() -> None:
    listed = re.findall(
        r"^\| `(tzk-plugin-[a-z-]+)` \|", (ROOT / "docs/plugins-directory.md").read_text(), re.MULTILINE
    )
    assert listed == [folder.name for folder in PLUGINS]
