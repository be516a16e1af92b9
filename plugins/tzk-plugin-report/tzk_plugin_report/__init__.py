"""Registers commands, plots and the report of a run, without importing torch."""

from tzk_core.plugins import Command, Picture, Report, hookimpl


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


@hookimpl
def tzk_pictures() -> list[Picture]:
    """The plots of this plugin.

    The core's pictures draw images, and have vectors drawn by those of their name and `-of-vectors`.
    """
    return [
        Picture(name, f"tzk_plugin_report.plots.pictures:{target}", summary)
        for name, target, summary in (
            ("samples-of-vectors", "samples", "samples beside or over test data"),
            ("reconstructions-of-vectors", "reconstructions", "points beside what C alone keeps of them"),
            ("plane-of-c-of-vectors", "planes", "the plane of C over points of the plane"),
            ("density", "densities", "the density of one or two dimensions"),
            ("training-curves", "curves_over_steps", "metrics.csv over the steps of training"),
        )
    ]
