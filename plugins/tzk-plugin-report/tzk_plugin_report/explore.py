"""`tzk explore RUN`: the report of a run with live decoding.

It is served on this machine alone.
"""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tzk_core.cli import output
from tzk_core.errors import TzkError
from tzk_core.runs.folder import RunFolder

if TYPE_CHECKING:
    from tzk_plugin_report.server import PageServer


@click.command(name="explore")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--port", type=click.IntRange(0, 65535), default=0, show_default=True, help="0 takes one that is free.")
@click.option("--open", "opens", is_flag=True, help="Open the page in the browser.")
def command(*, run: Path, port: int, opens: bool) -> None:
    """Walk through a run's model in a browser.

    There are sliders for C and temperature, and several knowledge types with "and" and "not".
    An image dropped on the page is read as the run's data are; the page shows its score, and which knowledge it shows.
    Only this machine can reach the server (127.0.0.1), and only with the address that is printed. Ctrl-C ends it.
    """
    folder = RunFolder.open(run)
    if not folder.has_model:
        raise TzkError(f"{run} holds no trained model: expected a checkpoint in it, as `tzk run` leaves one")
    with server_of(run, port) as server:
        output.say(f"exploring {run} at\n  {server.url}\nCtrl-C ends it")
        if opens:
            webbrowser.open(server.url)
        server.serve_forever()


def server_of(run: Path, port: int = 0) -> PageServer:
    """The server of a run, listening and not yet answering.

    Raises:
        TzkError: for a run whose model cannot be used here, and for a port that is taken.
    """
    import tzk_core  # these import torch, and jinja2
    from tzk_core.config import load_run_config
    from tzk_plugin_report.live import Live, Wanted
    from tzk_plugin_report.measuring import measure
    from tzk_plugin_report.page import render
    from tzk_plugin_report.reading import read_run
    from tzk_plugin_report.server import PageServer, decoded_file

    live = Live(tzk_core.load(run), load_run_config(run / "config.toml"))

    def posterior(asked: Any) -> Any:
        like = asked.get("like")
        return live.posterior(decoded_file(asked), str(asked.get("name", "")), like)

    answers = {"/sample": lambda asked: live.sample(Wanted.of(asked)), "/posterior": posterior}
    page = render(read_run(run), measure(run), live=live.described())
    return PageServer(page, answers, port)
