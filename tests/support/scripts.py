"""Runs an example's script without an interpreter of its own, of which importing torch alone takes seconds."""

from __future__ import annotations

import contextlib
import io
import runpy
import sys
from pathlib import Path
from unittest import mock


def printed_by(script: Path, *words: str) -> str:
    """What `python script words` prints. Its exception is one here, and so is an exit that says failure."""
    printed = io.StringIO()
    with mock.patch.object(sys, "argv", [str(script), *words]), contextlib.redirect_stdout(printed):
        try:
            runpy.run_path(str(script), run_name="__main__")
        except SystemExit as ended:
            if ended.code not in (None, 0):
                raise
    return printed.getvalue()
