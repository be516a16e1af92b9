"""results.md, from results.json: likelihoods, and measurements of every knowledge type."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

if TYPE_CHECKING:
    from tzk_core.report.subject import Drawn

ROW_TYPES = ("prior", "knowledge", "mixture", "baseline", "published")
"""The order of likelihood rows of one data set; other types, such as a plugin's, come after these."""

DASH = "—"

NOTES = """\
Lower is better. bits/image is the whole of -log2 p(T), bits/dim divides it by all dimensions modelled, bits/pixel by
the pixels of the original data. ± is the standard error of bits/image. *One draw* is the density of one dequantised
image, an upper bound; *dequantisations* the mean over several, a tighter one. Of *knowledge* the knowledge is given, in
a *mixture* it is not; *baseline* and *published* rows are no results of this model."""

REAL_NOTES = """\
log p is the mean of log p(T) in nats, in the unit of the data: higher is better, and another unit of a column moves it
by a constant. ± is its standard error. bits/dim is -log2 p(T) over all dimensions, of a density: it may be negative.
Rows of kind *baseline* and *published* are no results of this model. Of a row of kind *knowledge* the knowledge is
given, of a mean over labels each sample's own; in a *mixture*, and in "class summed out", it is not."""

GAIN_NOTES = """\
"Gain" is by how many bits/dim less than the prior's a row is on the same images, ± the standard error of that paired
difference."""

FEWEST = 30
"""The fewest samples to compare: with fewer, the standard error itself is uncertain by an eighth, 1/√(2 n), or more."""

KNOWLEDGE_NOTES = """\
For each knowledge type K = (κ, C), in nats: the terms of Eq. 4, and the inconsistency g between encoder and
decoder (Eq. 5), beside its multiplier λ. The gap is what the conditional gains over the prior on the same
images; a consistent model can gain at most -log p(κ=1), and what goes beyond it measures how badly the shared
flow fits. The last column is the accuracy of p(κ given T)."""


METRIC_NOTES = "↑: higher is better; ↓: lower is."


def markdown(results: Mapping[str, Any], command: str, pictures: Sequence[Drawn] = ()) -> str:
    """Render results.json (format 1) as the text of results.md.

    Parts that are missing or empty are left out. Without `gap_nats` of a knowledge type, the gap is that of its
    row to a prior row of as many images of the same data set and split. Without such rows it is a dash.

    Args:
        results: the contents of results.json. "notes" are sentences for the reader. Two keys of a knowledge entry are
            optional: `gap_nats`, the prior's -log p(T) less the conditional's on the same images, and `presence_prior`,
            p(κ=1).
        command: that made the run.
        pictures: in samples/, by the index there.
    """
    rows = list(results.get("rows", ()))
    parts = ["# Results", *_notes(rows)]
    if _any(rows, "gain_bits_per_dim"):
        parts.append(_worded(GAIN_NOTES, rows))
    if notes := results.get("notes"):
        parts.append("\n".join(f"- {_escape(note)}" for note in notes))
    for (dataset, split), group in _by_dataset(rows).items():
        heading = f"## Likelihood on {_escape(dataset)}" + (f" ({_escape(split)})" if split else "")
        parts += [heading, _likelihood(group)]
    if knowledge := results.get("knowledge"):
        parts += ["## Knowledge", _worded(KNOWLEDGE_NOTES, rows), _knowledge(knowledge, rows)]
    if classification := results.get("classification"):
        parts += ["## Classification", _records(classification)]
    parts += _metrics(results.get("metrics", ()))
    if invertibility := results.get("invertibility"):
        parts += ["## Invertibility", "\n".join(_bullets(invertibility))]
    if pictures:
        links = [
            f"- [{picture.file}](samples/{quote(picture.file)}): {_escape(picture.caption)}" for picture in pictures
        ]
        parts += ["## Pictures", "\n".join(links)]
    parts += ["## Made by", f"```sh\n{command}\n```"]
    return "\n\n".join(parts) + "\n"


def _notes(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the columns mean: those of real-valued data, of grey levels, or of both."""
    real = [_real_valued(group) for group in _by_dataset(rows).values()]
    return [*([NOTES] if not all(real) else []), *([REAL_NOTES] if any(real) else [])]


def _worded(notes: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """Notes about images, of samples where all rows are of real-valued data."""
    own = [row for row in rows if row["kind"] != "published"]
    return notes.replace("images", "samples") if own and all(_real_valued([row]) for row in own) else notes


def _real_valued(rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether these rows are densities of real-valued data."""
    return _any(rows, "log_prob_nats")


def _by_dataset(rows: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], list[Mapping[str, Any]]]:
    """Rows by data set and split, both in order of appearance.

    Published rows without a split join the first group of their data set.
    """
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in sorted(rows, key=lambda row: not row.get("split")):
        dataset = row.get("dataset") or "all data sets"
        same = next((key for key in groups if key[0] == dataset), None)
        key = (dataset, row["split"]) if row.get("split") else same or (dataset, "")
        groups.setdefault(key, []).append(row)
    return {key: sorted(group, key=_row_type_order) for key, group in groups.items()}


def _row_type_order(row: Mapping[str, Any]) -> int:
    row_type = row["kind"]
    return ROW_TYPES.index(row_type) if row_type in ROW_TYPES else len(ROW_TYPES)


def _likelihood(rows: Sequence[Mapping[str, Any]]) -> str:
    columns: list[tuple[str, list[str]]] = [
        ("model", [_name(row) for row in rows]),
        ("kind", [_escape(row["kind"]) for row in rows]),
        *(_nats(rows) if _real_valued(rows) else _bits(rows)),
    ]
    if _any(rows, "gain_bits_per_dim"):
        columns.append(("gain, bits/dim", [gain(row) for row in rows]))
    columns.append(("estimate", [_estimate(row) for row in rows]))
    columns.append(("samples" if _real_valued(rows) else "images", [_count(row.get("count")) for row in rows]))
    header = [title for title, _ in columns]
    numeric = [i for i, title in enumerate(header) if title not in ("model", "kind", "estimate")]
    return aligned(header, list(zip(*(cells for _, cells in columns), strict=True)), numeric)


def _bits(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[str]]]:
    """The columns of grey levels."""
    columns = [
        ("bits/image", [_decimals(row.get("bits_per_image"), 1) for row in rows]),
        ("±", [_decimals(row.get("standard_error"), 1) for row in rows]),
        ("bits/dim", [_decimals(row.get("bits_per_dim"), 3) for row in rows]),
    ]
    if _any(rows, "one_draw_bits_per_dim"):
        columns.append(("one draw, bits/dim", [_decimals(row.get("one_draw_bits_per_dim"), 3) for row in rows]))
    return [*columns, ("bits/pixel", [_decimals(row.get("bits_per_pixel"), 3) for row in rows])]


def _nats(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[str]]]:
    """The columns of real-valued data, nats first."""
    errors = [row.get("standard_error") for row in rows]
    return [
        ("log p, nats", [_decimals(row.get("log_prob_nats"), 3) for row in rows]),
        ("±", [_decimals(None if error is None else error * math.log(2), 3) for error in errors]),
        ("bits/dim", [_decimals(row.get("bits_per_dim"), 3) for row in rows]),
    ]


def _any(rows: Sequence[Mapping[str, Any]], key: str) -> bool:
    return any(row.get(key) is not None for row in rows)


def _name(row: Mapping[str, Any]) -> str:
    name = _escape(row["name"])
    return f"*{name}*" if row["kind"] in ("baseline", "published") else name


def gain(row: Mapping[str, Any]) -> str:
    """The gain over the prior with its standard error, unless samples are fewer than `FEWEST`."""
    value, error, count = (row.get(key) for key in ("gain_bits_per_dim", "gain_standard_error", "count"))
    if value is None:
        return DASH
    return "too few to compare" if error is None or (count or 0) < FEWEST else f"{value:.4f} ± {error:.4f}"


def _estimate(row: Mapping[str, Any]) -> str:
    estimate = row.get("estimate") or row.get("source")
    samples = row.get("importance_samples")
    if not estimate:
        return DASH
    plural = "" if samples == 1 else "s"
    return _escape(estimate) + (f", {_count(samples)} sample{plural}" if samples else "")


def _knowledge(entries: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]]) -> str:
    header = ["knowledge", "I(z;K)", "H(K)", "H(K given T)", "g", "λ", "gap", "-log p(κ=1)", "discriminator"]
    cells = []
    for entry in entries:
        row = next((r for r in rows if r["kind"] == "knowledge" and r.get("knowledge") == entry["name"]), {})
        presence = entry.get("presence_prior")
        gap = entry.get("gap_nats")
        cells.append(
            [
                _escape(entry["name"]),
                _decimals(entry.get("mutual_information"), 2),
                _decimals(entry.get("entropy"), 2),
                _decimals(entry.get("conditional_entropy"), 2),
                _decimals(entry.get("inconsistency_nats", row.get("inconsistency_nats")), 2),
                _decimals(entry.get("multiplier"), 3),
                _decimals(_gap(row, rows) if gap is None else gap, 2),
                _decimals(-math.log(presence) if presence else None, 2),
                _percent(entry.get("discriminator_accuracy")),
            ]
        )
    return aligned(header, cells, numeric=range(1, len(header)))


def _gap(row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> float | None:
    """Gain over the prior in nats an image; None without rows to compare."""
    same = ("dataset", "split", "count")
    for prior in rows:
        if row and prior["kind"] == "prior" and all(prior.get(key) == row.get(key) for key in same):
            return (prior["bits_per_image"] - row["bits_per_image"]) * math.log(2)
    return None


def _metrics(metrics: Sequence[Mapping[str, Any]]) -> list[str]:
    """A section for each metric that has rows."""
    measured = [metric for metric in metrics if metric["rows"]]
    return [part for metric in measured for part in (f"## {_metric_title(metric)}", METRIC_NOTES, _metric(metric))]


def _metric_title(metric: Mapping[str, Any]) -> str:
    """`coverage (near = 3), of my-plugin`."""
    arguments = ", ".join(f"{key} = {value}" for key, value in metric["arguments"].items())
    return _escape(metric["name"] + (f" ({arguments})" if arguments else "") + f", of {metric['plugin']}")


def _metric(metric: Mapping[str, Any]) -> str:
    """The table of a metric: texts first, then its columns with unit and direction."""
    columns, arrows = metric["columns"], {"higher": " ↑", "lower": " ↓", "": ""}
    numbers = {column["name"]: column for column in columns}
    texts = list(dict.fromkeys(key for row in metric["rows"] for key in row if key not in numbers))
    header = [_escape(key) for key in texts]
    header += [_escape(f"{name}, {c['unit']}{arrows[c['better']]}") for name, c in numbers.items()]
    cells = [
        [*(_escape(row.get(key, "")) for key in texts), *(_significant(row.get(name)) for name in numbers)]
        for row in metric["rows"]
    ]
    return aligned(header, cells, range(len(texts), len(header)))


def _significant(value: float | None) -> str:
    if value is None:
        return DASH
    return _count(value) if isinstance(value, int) else f"{value:.4g}"


def _records(records: Sequence[Mapping[str, Any]]) -> str:
    """A table of records with any keys, one column a key."""
    keys = list(dict.fromkeys(key for record in records for key in record))
    cells = [[_value(key, record.get(key)) for key in keys] for record in records]
    numbers = [
        i for i, key in enumerate(keys) if all(isinstance(record.get(key), int | float | None) for record in records)
    ]
    return aligned([_escape(key.replace("_", " ")) for key in keys], cells, numeric=numbers)


def _bullets(entries: Mapping[str, Any], prefix: str = "") -> list[str]:
    lines = []
    for key, value in entries.items():
        words = prefix + _escape(str(key).replace("_", " "))
        if isinstance(value, Mapping):
            lines += _bullets(value, words + ", ")
        else:
            lines.append(f"- {words}: {_value(key, value)}")
    return lines


def _value(key: str, value: Any) -> str:
    if isinstance(value, float):
        return _percent(value) if "accuracy" in key or key == "chance" else f"{value:.3g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return _count(value)
    if isinstance(value, list | tuple):
        return ", ".join(_escape(item) for item in value) or DASH
    return DASH if value is None else _escape(value)


def _decimals(value: float | None, digits: int) -> str:
    return DASH if value is None else f"{value:.{digits}f}"


def _percent(value: float | None) -> str:
    return DASH if value is None else f"{100 * value:.2f} %"


def _count(value: int | None) -> str:
    return DASH if value is None else f"{value:,}"


def _escape(text: Any) -> str:
    """Escape text for a Markdown table."""
    return re.sub(r"([\\`*<|\[\]])", r"\\\1", " ".join(str(text).split()))


def aligned(header: Sequence[str], cells: Sequence[Sequence[str]], numeric: Sequence[int]) -> str:
    """A Markdown table that is also aligned as plain text.

    Args:
        numeric: positions of the columns that are aligned to the right.
    """
    widths = [max(3, *(len(line[i]) for line in (header, *cells))) for i in range(len(header))]

    def line(texts: Sequence[str]) -> str:
        sides = (">" if i in numeric else "<" for i in range(len(widths)))
        padded = (f"{t:{side}{w}}" for t, side, w in zip(texts, sides, widths, strict=True))
        return f"| {' | '.join(padded)} |"

    rule = ["-" * (w - 1) + ":" if i in numeric else "-" * w for i, w in enumerate(widths)]
    return "\n".join(line(texts) for texts in (header, rule, *cells))
