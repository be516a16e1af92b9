"""The page of a run: its contents, and how it becomes one HTML file."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup

from tzk_core.report import words
from tzk_plugin_report import curves, extra, pictures, tables
from tzk_plugin_report.answer import answer
from tzk_plugin_report.findings import Facts, findings
from tzk_plugin_report.measuring import Measured
from tzk_plugin_report.provenance import commands, provenance
from tzk_plugin_report.reading import Run

UNITS = (
    "Bits/dim is −log₂ p(T) divided by all dimensions that are modelled, bits/pixel by the pixels of the original "
    "data: the bits that a pixel would take if the model compressed it. Lower is better. Figures in different units "
    "are not to be compared."
)

ROWS = {
    "prior": "The prior is p(T), when nothing is known of a sample.",
    "knowledge": "A mean is p(T given the class of each sample), over all classes.",
    "mixture": "A mixture does not know the class, and weighs all of them.",
    "baseline": "A baseline is a simple model of the same data.",
    "published": "Published figures are those of other models.",
}
"""What a row of a type is, for who reads the bars."""

KINDS = ("prior", "mixture", "baseline", "published")
"""Rows of likelihood that the answer shows as bars, beside means over several knowledge types."""

MOST_BARS = 14

SECTIONS = (
    ("live", "Decode", "live"),
    ("answer", "Answer", ""),
    ("findings", "Worth knowing", ""),
    ("curves", "Training", "curves"),
    ("likelihood", "Likelihood", "likelihood"),
    ("knowledge", "Knowledge types", "knowledge"),
    ("samples", "Samples", "samples marginals"),
    ("plane", "Plane of C", "planes"),
    ("reconstructions", "Reconstructions", "reconstructions"),
    ("pictures", "Pictures of plugins", "drawn"),
    ("confusion", "Confusion", "confusions"),
    ("surprises", "Least likely", "surprises"),
    ("before-after", "Before and after", "comparison"),
    ("provenance", "Get it again", ""),
)
"""Identifier, title, and the keys of which one has to be there."""


def render(run: Run, measured: Measured | None, *, live: Mapping[str, Any] | None = None, reason: str = "") -> str:
    """The page of a run as HTML.

    Args:
        measured: of its model; None where that cannot be used here, for a `reason`.
        live: of `tzk explore`, what can be chosen.
    """
    shown: dict[str, Any] = {"live": live, "notes": _notes(run, measured, reason)}
    shown |= _results(run, measured) | (_measured(measured, run) if measured is not None else {})
    shown["curves"] = curves.panels(run.columns)
    shown["drawn"] = extra.of_plugins(run.path)
    planes = shown.get("planes", [])
    shown["first_plane"] = max(planes, key=_change(measured))["name"] if planes else None
    shown["data"] = {"curves": shown["curves"], "planes": planes, "live": live}
    shown["sections"] = [
        {"id": identifier, "title": title}
        for identifier, title, keys in SECTIONS
        if not keys or any(shown.get(key) for key in keys.split())
    ]
    return template().render(
        title=f"{run.name}: report",
        over="Explore a run of TzK on this machine" if live else "Report of a run of TzK",
        name=run.name,
        units=UNITS,
        provenance=provenance(run),
        commands=commands(run),
        config_text=(run.path / "config.toml").read_text(encoding="utf-8"),
        **assets(),
        **shown,
    )


def _change(measured: Measured | None) -> Callable[[Mapping[str, Any]], float]:
    """How much a plane changes, which is what one opens first."""
    return lambda plane: measured.plane_change.get(str(plane["name"]), 0.0) if measured else 0.0


def _results(run: Run, measured: Measured | None) -> dict[str, Any]:
    """What results.json, the log and the record say."""
    objective = run.config.get("objective", {})
    facts = Facts(
        rows=run.rows,
        knowledge=run.knowledge,
        columns=run.columns,
        objective=objective,
        trained_on=measured.trained_on if measured else {},
        blown=measured.blown if measured else {},
        plane_change=measured.plane_change if measured else {},
        parent=run.parent if run.addition else "",
    )
    datasets = list(dict.fromkeys(str(row["dataset"]) for row in run.rows if row.get("dataset")))
    likelihood = [
        {"table": tables.likelihood(rows), "caption": f"{dataset}, {len(rows)} rows", "ways": tables.estimates(rows)}
        for dataset in datasets
        if (rows := run.rows_of(dataset))
    ]
    classification = run.results.get("classification")
    return {
        "answer": answer(run),
        "findings": findings(facts),
        "bars": (bars := [group for dataset in datasets if (group := _bars(run, dataset))]),
        "rows_meaning": _rows_meaning(bars),
        "likelihood": likelihood,
        "knowledge": tables.knowledge(run.knowledge, run.rows, tolerance=objective.get("tolerance", 0.0))
        if run.knowledge
        else None,
        "classification": tables.classification(classification) if classification else None,
        "comparison": {
            "parent": run.parent,
            "table": tables.before_after(run.comparison["header"], run.comparison["rows"]),
        }
        if run.comparison
        else None,
    }


def _measured(measured: Measured, run: Run) -> dict[str, Any]:
    return {
        "temperature": f"{measured.temperature:g}",
        "first": pictures.first(measured, [str(entry["name"]) for entry in run.knowledge]),
        "samples": pictures.samples(measured),
        "marginals": pictures.distributions(measured),
        "planes": pictures.planes(measured),
        "reconstructions": pictures.reconstructions(measured),
        "confusions": pictures.confusions(measured),
        "surprises": pictures.surprises(measured),
        "left_out": measured.left_out,
    }


def _bars(run: Run, dataset: str) -> dict[str, Any] | None:
    """Rows of a data set as bars.

    They have the unit in which most published figures can stand beside them.
    """
    rows = [row for row in run.rows_of(dataset) if row["kind"] in KINDS or row["name"] != row.get("knowledge")]
    own = [row for row in rows if row["kind"] == "prior"]
    if not own or own[0].get("log_prob_nats") is not None:
        return None  # nats of real-valued data may have either sign, and no bar
    published = words.best_published(own[0], rows)
    unit = published[1] if published else "bits_per_dim"
    beside = sorted((row for row in rows if row.get(unit) is not None), key=lambda row: row[unit])[:MOST_BARS]
    largest = max(row[unit] for row in beside)
    bars = [
        {
            "name": row["name"],
            "kind": row["kind"],
            "note": {"published": row.get("estimate"), "baseline": "baseline"}.get(row["kind"], ""),
            "width": round(max(0.0, 100 * row[unit] / largest), 1),
            "value": f"{row[unit]:.3f}",
        }
        for row in beside
    ]
    return {"dataset": dataset, "unit": words.UNITS[unit], "bars": bars}


def _rows_meaning(groups: Sequence[Mapping[str, Any]]) -> str:
    """A sentence on every row type among the bars."""
    drawn = {bar["kind"] for group in groups for bar in group["bars"]}
    return " ".join(sentence for kind, sentence in ROWS.items() if kind in drawn)


def _notes(run: Run, measured: Measured | None, reason: str) -> list[str]:
    notes = [str(note) for note in run.results.get("notes", ())]
    if reason:
        notes.append(f"The model cannot be used here, and nothing of it is drawn: {reason}")
    if measured is not None and measured.reason:
        notes.append(f"The data cannot be read here, and no test sample is shown: {measured.reason}")
    return notes


def assets() -> dict[str, Markup]:
    """Styles and scripts that stand within the page."""
    return {
        "css": _static("report.css"),
        "js": _static("report.js"),
        "live_js": _static("explore.js"),
        "uplot_css": _static("uPlot.min.css"),
        "uplot_js": _static("uPlot.iife.min.js"),
    }


@functools.cache
def _static(name: str) -> Markup:
    """A file of this package, which goes into the page as it is."""
    text = (resources.files("tzk_plugin_report") / "static" / name).read_text(encoding="utf-8")
    return Markup(text)  # noqa: S704 -- our own file, nothing of a run


@functools.cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("tzk_plugin_report"),
        autoescape=True,
        undefined=jinja2.ChainableUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def template(name: str = "report.html.j2") -> jinja2.Template:
    """A page of this package."""
    return _environment().get_template(name)
