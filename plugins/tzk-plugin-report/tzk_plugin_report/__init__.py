"""The commands `report`, `explore`, `list` and `init`, and the report of a run.

They are registered without importing torch.
"""

from tzk_core.plugins import Command, Report, hookimpl


@hookimpl
def tzk_commands() -> list[Command]:
    """The commands of this plugin."""
    return [
        Command("report", "tzk_plugin_report.report:command", "write what a run is worth as one HTML page"),
        Command(
            "explore", "tzk_plugin_report.explore:command", "walk through a run's model in a browser, on this machine"
        ),
        Command("list", "tzk_plugin_report.listing:command", "list runs with their figures"),
        Command("init", "tzk_plugin_report.init:command", "write a commented config for your own data"),
    ]


@hookimpl
def tzk_reports() -> list[Report]:
    """What `tzk run` and `tzk add` leave in the run folder at their end."""
    return [Report("page", "tzk_plugin_report.writing:write_report", "report.html, one page that needs no network")]
