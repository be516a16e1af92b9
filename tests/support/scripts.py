"""Run an example's script in this interpreter: in one of its own, importing torch alone takes seconds."""

from __future__ import annotations

import contextlib
import io
import runpy
import sys
from pathlib import Path
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
