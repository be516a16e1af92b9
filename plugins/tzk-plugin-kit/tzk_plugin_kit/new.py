"""A new plugin from the templates of this package.

It is a distribution with one part that conforms.
"""

from __future__ import annotations

import datetime
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from string import Template
from typing import Any

from tzk_core.commands import OWN_COMMANDS
from tzk_core.errors import TzkError, nearest
from tzk_core.plugins.registry import Registry
from tzk_core.plugins.specs import SPEC_TYPES, Spec
from tzk_core.storage.atomic import AlreadyThere, new_folder
from tzk_core.version import installed_version

PREFIX = "tzk-plugin-"
LONGEST = 60
"""Letters of a name, which is also a folder's and a package's."""

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


@dataclass(frozen=True)
class Kind:
    """A folder of templates: `kind.toml`, the package, its part and its test.

    hook: the hook that offers such a part. class_suffix: of the name of its class. module: where the part is.
    usage: how to use it, for the README.
    """

    name: str
    hook: str
    summary: str
    class_suffix: str
    module: str
    usage: str

    @property
    def spec_type(self) -> type[Spec]:
        """The spec of such a part."""
        return next(spec_type for spec_type in SPEC_TYPES if spec_type.hook == self.hook)


def kinds() -> dict[str, Kind]:
    """The kinds of plugins with templates, by name.

    They are those for hooks that this version has.
    """
    offered: dict[str, Kind] = {}
    hooks = {spec_type.hook for spec_type in SPEC_TYPES}
    for folder in sorted(_templates().iterdir(), key=lambda folder: folder.name):
        description = folder / "kind.toml"
        if not description.is_file():
            continue
        table: Mapping[str, Any] = tomllib.loads(description.read_text(encoding="utf-8"))
        kind = Kind(folder.name, table["hook"], table["summary"], table["class"], table["module"], table["usage"])
        if kind.hook in hooks:
            offered[kind.name] = kind
    return offered


def new_plugin(name: str, kind: str, into: Path) -> Path:
    """Write a plugin with one part of this kind.

    Args:
        name: of the plugin and its part, lower-case words joined by "-"; "tzk-plugin-" in front is left out.
        kind: one of `kinds`.
        into: the folder that gets the new one.

    Returns:
        The new folder.

    Raises:
        TzkError: for a name that does not fit or is the core's, an unknown kind, or a folder that is there.
    """
    available = kinds()
    if kind not in available:
        raise TzkError(f"no kind of plugin is called {kind!r}{nearest(kind, available)}: {', '.join(available)}")
    chosen = available[kind]
    name = name.removeprefix(PREFIX)
    _check_name(name, chosen)
    values = _values(name, chosen)
    folder = into / values["distribution"]
    try:
        with new_folder(folder) as fresh:
            for path, text in _files(chosen, values).items():
                (fresh / path).parent.mkdir(parents=True, exist_ok=True)
                (fresh / path).write_text(text, encoding="utf-8", newline="\n")
    except AlreadyThere:
        raise TzkError(f"{folder} is already there: choose another name, or remove it first") from None
    return folder


def _templates() -> Traversable:
    return resources.files("tzk_plugin_kit.templates")


def _check_name(name: str, kind: Kind) -> None:
    if not _NAME.fullmatch(name) or len(name) > LONGEST:
        like = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-0123456789")[:LONGEST].strip("-") or "two-stars"
        raise TzkError(
            f"a plugin is called by lower-case words of letters and digits joined by '-', at most {LONGEST} letters,"
            " the first a letter, since the name is also a distribution's and a package's;"
            f" got {name!r}: such as {like!r}"
        )
    core = [part.name for part in Registry.discover(allow=[]).all(kind.spec_type)]
    if kind.name == "command":
        core += list(OWN_COMMANDS)
    if name in core:
        raise TzkError(f"the core has a {kind.spec_type.kind} {name!r}, which would hide it: such as 'my-{name}'")


def _values(name: str, kind: Kind) -> dict[str, str]:
    """What stands for the names in a template."""
    package = (PREFIX + name).replace("-", "_")
    values = {
        "name": name,
        "distribution": PREFIX + name,
        "package": package,
        "class_name": "".join(word.capitalize() for word in name.split("-")) + kind.class_suffix,
        "summary": kind.summary,
        "core": _range(installed_version()),
        "year": str(datetime.date.today().year),
    }
    return values | {"usage": Template(kind.usage.strip("\n")).substitute(values)}


def _range(version: str | None) -> str:
    """The versions of the core that a plugin fits, as pip writes them.

    That is this minor version, if it is known.
    """
    numbers = re.match(r"(\d+)\.(\d+)", version or "")
    if numbers is None:
        return ""
    major, minor = int(numbers[1]), int(numbers[2])
    return f">={major}.{minor},<{major}.{minor + 1}"


def _files(kind: Kind, values: Mapping[str, str]) -> dict[str, str]:
    """Texts by their paths in the new folder."""
    package = values["package"]
    own, common = _templates() / kind.name, _templates() / "common"
    sources = {
        "pyproject.toml": common / "pyproject.toml.template",
        "README.md": common / "README.md.template",
        "LICENSE": common / "LICENSE.template",
        ".gitignore": common / "gitignore.template",
        ".github/workflows/tests.yml": common / "tests.yml.template",
        f"{package}/__init__.py": own / "init.template",
        f"{package}/{kind.module}.py": own / "part.template",
        f"tests/test_{package}.py": own / "test.template",
    }
    texts = {path: Template(file.read_text(encoding="utf-8")).substitute(values) for path, file in sources.items()}
    return texts | {f"{package}/py.typed": ""}
