"""The program `tzk`: its own commands and those of plugins, loaded when called."""

from __future__ import annotations

import errno
import importlib
import os
import sys
from typing import Any

import click

from tzk_core.cli import edge, homeless, interrupts, output
from tzk_core.commands import OWN_COMMANDS
from tzk_core.errors import TzkError, nearest
from tzk_core.moved import home
from tzk_core.plugins import Command, Registered, UnknownPart, registry
from tzk_core.plugins.isolation import threads_left
from tzk_core.world import end_process, met_others


class Program(click.Group):
    """A group whose help lists commands by their summaries, without loading them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*OWN_COMMANDS, *(name for name, _ in _plugin_commands())]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in OWN_COMMANDS:
            return importlib.import_module(f"tzk_core.cli.{cmd_name.replace('-', '_')}").command
        try:
            part = registry().find(Command, cmd_name)
        except UnknownPart as error:
            suggestion = "" if home(Command.kind, cmd_name) else nearest(cmd_name, self.list_commands(ctx))
            raise click.UsageError(
                f"no command is called {cmd_name!r}{suggestion}" if suggestion else str(error)
            ) from None
        command = part.load()
        if not isinstance(command, click.Command):
            raise TzkError(
                f"the command {cmd_name!r} of plugin {part.plugin!r} cannot be run: expected a click command "
                f"at {part.spec.target!r}, got {type(command).__name__}"
            )
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(OWN_COMMANDS.items()))
        try:
            others = _plugin_commands()
        except TzkError as error:  # help is what one calls when something is wrong
            with formatter.section("Commands of plugins"):
                formatter.write_text(f"not listed: {error}")
            return
        if others:
            with formatter.section("Commands of plugins"):
                formatter.write_dl([(name, f"{part.spec.summary} ({part.distribution})") for name, part in others])

    def main(self, *args: Any, **kwargs: Any) -> Any:
        os.environ["MPLBACKEND"] = "agg"  # pictures are files; a notebook leaves one that only it can import
        homeless.give_places()
        with edge.printable():
            try:
                return super().main(*args, **kwargs)
            except Exception as error:  # before a command is known; within one, `invoke` has it
                sys.exit(_report(error))
            except SystemExit as ended:
                if not args and not kwargs:  # a program of its own, not a call from another
                    _end(ended.code)
                raise

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        """The context of a call.

        It reads the plugins for the help, which can be interrupted as a command can.
        """
        try:
            return super().make_context(*args, **kwargs)
        except KeyboardInterrupt as interrupt:
            click.echo(f"\n{interrupts.worded(interrupt)}", err=True)
            raise click.exceptions.Exit(interrupts.status(interrupt)) from None

    def invoke(self, ctx: click.Context) -> Any:
        """Runs a command: an interrupt is its exit status, any other error one sentence."""
        try:
            with interrupts.stoppable():
                return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except KeyboardInterrupt as interrupt:
            from tzk_core.cli import ranks  # uuid and more, which most commands do without

            if not ranks.launched():  # the program that started this one says so
                click.echo(f"\n{interrupts.worded(interrupt)}", err=True)
            ctx.exit(interrupts.status(interrupt))
        except Exception as error:
            if isinstance(error, OSError) and error.errno == errno.EPIPE:
                raise  # whoever reads the output has enough: click ends quietly
            ctx.exit(_report(error))


def _report(error: Exception) -> int:
    """Print the sentence of an error; the exit status."""
    message, status = edge.sentence(error)
    output.error(message)
    return status


def _end(status: Any) -> None:
    """End the program at once where threads would keep it from ending, or abort it.

    They are those that plugins have left behind, and those of torch in one of several processes.
    """
    if met_others() or threads_left():
        end_process(status if isinstance(status, int) else int(status is not None))


def _plugin_commands() -> list[tuple[str, Registered]]:
    """What to type for commands of plugins: a name, or plugin/name where names clash."""
    parts = registry().all(Command)
    names = [*OWN_COMMANDS, *(part.name for part in parts)]
    return [(part.name if names.count(part.name) == 1 else part.qualified_name, part) for part in parts]


def _version(ctx: click.Context, option: click.Parameter, wanted: bool) -> None:  # noqa: FBT001 -- click's call
    if wanted and not ctx.resilient_parsing:
        import tzk_core

        click.echo(f"tzk {tzk_core.__version__}")
        ctx.exit()


@click.group(cls=Program, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Say the version.")
def main() -> None:
    """TzK: one flow and any number of knowledge types that condition it.

    `tzk COMMAND --help` says what a command takes.
    """
