"""Paths of a config, relative to its folder, made absolute: a run works from anywhere."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tzk_core.config.signatures import Signature
from tzk_core.errors import Note
from tzk_core.files import shown_path


def resolved(
    arguments: Mapping[str, Any], signature: Signature, folder: Path, *, typed: frozenset[str]
) -> dict[str, Any]:
    """The arguments with relative paths made absolute, where something is there.

    A path is looked for in the `folder` of the config, then in the working folder, with a `Note`. One that was `typed`
    on the command line is looked for in the working folder first. What is in neither place is left as it is, since it
    may lie below the data root.
    """
    changed = dict(arguments)
    for name, written in _paths(arguments, signature):
        here = Path()
        first, second = (here, folder) if name in typed else (folder, here)
        if _is_there(first / written):
            changed[name] = str((first / written).absolute())
        elif _is_there(second / written):
            changed[name] = str((second / written).absolute())
            if name not in typed:
                warnings.warn(
                    f"{name} = {shown_path(written)!r} is not in the folder of the config, {folder.absolute()}, and "
                    "was found in the working folder: write it relative to the config",
                    Note,
                    stacklevel=2,
                )
    return changed


def _paths(arguments: Mapping[str, Any], signature: Signature) -> Iterator[tuple[str, str]]:
    """The arguments that a part takes as paths and that are relative, with their text."""
    for argument in signature.arguments:
        value = arguments.get(argument.name)
        is_path = re.search(r"\bPath\b", argument.annotation) is not None
        if is_path and isinstance(value, str) and value and not value.startswith("~") and not Path(value).is_absolute():
            yield argument.name, value


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # whoever opens it says why it cannot be a path
        return False
