"""The command line `tzk`: one module a command, imported only when that command is called."""

try:
    from tzk_core.cli.program import main
except KeyboardInterrupt:  # most of the time that `tzk --help` takes goes by here
    raise SystemExit(130) from None

__all__ = ["main"]
