"""Tables of a page: cells with their text, and the number that they sort by."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tzk_core.report.table import gain
from tzk_core.report.words import percent

DASH = "—"


@dataclass(frozen=True)
class Cell:
    """A text, and the number that it sorts by; without one it sorts as text."""

    text: str
    number: float | None = None


@dataclass(frozen=True)
class Column:
    title: str
    unit: str = ""


@dataclass(frozen=True)
class Table:
    header: Sequence[Column]
    rows: Sequence[Sequence[Cell]]

    @property
    def numeric(self) -> list[bool]:
        """Whether a column has numbers, which stand at its right."""
        return [any(row[i].number is not None for row in self.rows) for i in range(len(self.header))]


def number(value: float | None, digits: int = 3) -> Cell:
    """A number with so many decimals; a dash where there is none."""
    return Cell(DASH) if value is None or not math.isfinite(value) else Cell(f"{value:,.{digits}f}", float(value))


def share(value: float | None) -> Cell:
    return Cell(DASH) if value is None else Cell(percent(value), float(value))


def likelihood(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Likelihood rows of one data set."""
    columns = (
        ("log p", "nats, higher is better", "log_prob_nats", 3),
        ("bits/dim", "lower is better", "bits_per_dim", 3),
        ("bits/pixel", "of the original", "bits_per_pixel", 3),
        ("bits/sample", "all of −log₂ p(T)", "bits_per_image", 1),
        ("±", "bits/sample", "standard_error", 1),
    )
    shown = [column for column in columns if any(row.get(column[2]) is not None for row in rows)]
    if all(row.get("bits_per_pixel") == row.get("bits_per_dim") for row in rows):
        shown = [column for column in shown if column[2] != "bits_per_pixel"]  # nothing was padded
    header = [Column("model"), Column("row type"), *(Column(title, unit) for title, unit, _, _ in shown)]
    header += [Column("gain", "bits/dim"), Column("samples")]
    cells = [
        [
            Cell(row["name"]),
            Cell(row["kind"]),
            *(number(row.get(key), digits) for _, _, key, digits in shown),
            Cell(gain(row), row.get("gain_bits_per_dim")),
            number(row.get("count"), 0),
        ]
        for row in rows
    ]
    return Table(header, cells)


def estimates(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """How figures were got, each way once, with the row types that have it.

    Rows are named where others of their type have another.
    """
    ways = dict.fromkeys(str(row["estimate"]) for row in rows if row.get("estimate"))
    found = []
    for way in ways:
        own = [row for row in rows if row.get("estimate") == way]
        others = {row["kind"] for row in rows if row.get("estimate") != way}
        of = dict.fromkeys(row["name"] if row["kind"] in others else row["kind"] for row in own)
        found.append((", ".join(map(str, of)), way))
    return found


def knowledge(entries: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]], *, tolerance: float) -> Table:
    """What is measured of every knowledge type."""
    tested: dict[str, int] = {}
    bits: dict[str, list[float]] = {}
    for row in rows:
        if row["kind"] == "knowledge":
            tested[row["name"]] = tested.get(row["name"], 0) + (row.get("count") or 0)
            bits.setdefault(row["name"], []).append(row["bits_per_dim"])
    header = [
        Column("knowledge"),
        Column("gain", "nats, higher is better"),
        Column("−log p(κ=1)", "nats, the most"),
        Column("bits/dim", "given it"),
        Column("g", f"nats, {tolerance:g} allowed"),
        Column("λ", "per nat"),
        Column("I(z;K)", "nats"),
        Column("C", "nats about T"),
        Column("told", "share"),
        Column("test samples"),
    ]
    cells = [
        [
            Cell(str(entry["name"])),
            number(entry.get("gap_nats"), 1),
            number(-math.log(entry["presence_prior"]) if entry.get("presence_prior") else None, 2),
            number(bits[entry["name"]][0] if len(bits.get(entry["name"], ())) == 1 else None),
            number(entry.get("inconsistency_nats"), 1),
            number(entry.get("multiplier"), 3),
            number(entry.get("mutual_information"), 2),
            number(entry.get("characteristics_kl_nats"), 2),
            share(entry.get("discriminator_balanced_accuracy") or entry.get("discriminator_accuracy")),
            number(tested.get(entry["name"]), 0),
        ]
        for entry in entries
    ]
    return _without_empty(Table(header, cells))


def classification(entries: Sequence[Mapping[str, Any]]) -> Table:
    header = [
        Column("partition"),
        Column("data set"),
        Column("by Bayes", "p(T given K)"),
        Column("by discriminators", "p(κ given T)"),
        Column("disagree", "share"),
        Column("samples"),
    ]
    cells = [
        [
            Cell(str(entry["partition"])),
            Cell(str(entry["dataset"])),
            share(entry.get("bayes_accuracy")),
            share(entry.get("discriminator_accuracy")),
            share(entry.get("disagreement")),
            number(entry.get("count"), 0),
        ]
        for entry in entries
    ]
    return Table(header, cells)


def plain(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """A table of texts."""
    return Table([Column(str(title)) for title in header], [[Cell(str(text)) for text in row] for row in rows])


def before_after(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """Everything older, by what was compared.

    Both sides of a row are the same, so that one is shown.

    Args:
        header, rows: of before-after.json, whose cells read "before = after".
    """
    titles = {
        "SHA256 OF FILE": ("file", "sha256, its start"),
        "REQUIRES_GRAD": ("can be trained", "parameters of all"),
        "LOG-LIKELIHOOD (NATS)": ("log p of probes", "nats"),
        "SHA256 OF SAMPLES": ("samples", "sha256, their start"),
    }
    columns = [Column(*titles.get(str(title), (str(title).lower(), ""))) for title in header]
    return Table(columns, [[Cell(_one_side(str(text))) for text in row] for row in rows])


def _one_side(text: str) -> str:
    """What stands on both sides of an equal cell; of others all of it."""
    before, _, after = text.partition(" = ")
    same = after == before or after.startswith(f"{before} of ")
    return after if same else text


def _without_empty(table: Table) -> Table:
    """The columns in which something stands."""
    used = [i for i in range(len(table.header)) if any(row[i].text != DASH for row in table.rows)]
    return Table([table.header[i] for i in used], [[row[i] for i in used] for row in table.rows])
