"""Run an example's script in this interpreter, or import it.

In an interpreter of its own, importing torch alone takes seconds.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import runpy
import sys
from pathlib import Path
from types import ModuleType
from unittest import mock


def printed_by(script: Path, *words: str) -> str:
    """The output of `python script words`; raises its exceptions, and `SystemExit` if it fails."""
    printed = io.StringIO()
    argv = mock.patch.object(sys, "argv", [str(script), *words])
    path = mock.patch.object(sys, "path", [str(script.parent), *sys.path])  # as `python script` has it
    with argv, path, contextlib.redirect_stdout(printed):
        try:
            runpy.run_path(str(script), run_name="__main__")
        except SystemExit as ended:
            if ended.code not in (None, 0):
                raise
    return printed.getvalue()


def module_of(script: Path) -> ModuleType:
    """A script as a module, without running it; it finds those beside it."""
    name = f"{script.parent.name}_{script.stem}"
    spec = importlib.util.spec_from_file_location(name, script)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look for their module
    with mock.patch.object(sys, "path", [str(script.parent), *sys.path]):
        spec.loader.exec_module(module)
    return module
