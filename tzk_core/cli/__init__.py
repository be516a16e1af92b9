"""The command line `tzk`: one module a command, imported only when that command is called."""

from tzk_core.cli.program import main

__all__ = ["main"]
