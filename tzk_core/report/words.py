"""How good a run is, in sentences, from results.json."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tzk_core.report.table import FEWEST

UNITS = {"bits_per_dim": "bits/dim", "bits_per_pixel": "bits/pixel"}
"""Columns of likelihood rows in which models are compared, with the name of their unit."""

Results = Mapping[str, Any]
Row = Mapping[str, Any]


def likelihood(results: Results) -> list[str]:
    """A sentence for every data set on what the prior needs.

    The baseline and the best published figure are beside it.
    """
    rows = list(results.get("rows", ()))
    priors = [row for row in rows if row["kind"] == "prior"]
    beside = [[row for row in rows if row.get("dataset") == prior["dataset"]] for prior in priors]
    return [_likelihood_of(*pair, better=i == 0) for i, pair in enumerate(zip(priors, beside, strict=True))]


def knowledge(results: Results) -> str:
    """How many knowledge types are better than the prior, and how often classification is right.

    "" without any.
    """
    entries = [entry for entry in results.get("knowledge", ()) if entry.get("gap_nats") is not None]
    if not entries:
        return ""
    gains = {entry["name"]: entry["gap_nats"] for entry in entries}
    better = [name for name, gap in gains.items() if gap > 0]
    best = max(gains, key=lambda name: gains[name])
    if len(gains) == 1:
        text = f"The knowledge type {best} is {'better' if better else 'no better'} than the prior"
        text += f" ({gains[best]:+.1f} nats)"
    else:
        some = _share_of(len(better), len(gains))
        text = f"{some} are better than the prior on their own samples (the best: {best}, {gains[best]:+.1f} nats)"
    told = [
        f"{entry['partition']} in {percent(entry['discriminator_accuracy'])}"
        for entry in results.get("classification", ())
    ]
    return text + (f"; test samples are told apart: {', '.join(told)}." if told else ".")


def summary(results: Results) -> list[str]:
    """The two lines that end a run: likelihood, and knowledge where there is any."""
    lines = [" ".join(likelihood(results)) or "Nothing was evaluated.", knowledge(results)]
    return [line for line in lines if line]


def compared(value: float, other: float) -> str:
    """`12 % fewer than`, `3 % more than` or `as many as`, of bits beside others."""
    share = (value - other) / abs(other) if other else 0.0
    if not math.isfinite(share) or abs(share) < 0.0005:
        return "as many as"
    return f"{percent(abs(share))} {'fewer' if share < 0 else 'more'} than"


def percent(share: float) -> str:
    """`12 %`, with a decimal below 10 % and close to 100 %."""
    return f"{100 * share:.{1 if share < 0.1 or 0.9 < share < 1 else 0}f} %"


def listed(names: Sequence[str], most: int = 4) -> str:
    """`a`, `a and b`, `a, b and 7 more`."""
    if len(names) > most:
        return f"{', '.join(names[: most - 1])} and {len(names) - most + 1} more"
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last


def common_unit(first: Row, second: Row) -> str | None:
    """The column in which two rows can be compared; None if there is none."""
    return next((key for key in UNITS if first.get(key) is not None and second.get(key) is not None), None)


def best_published(prior: Row, rows: Iterable[Row]) -> tuple[Row, str] | None:
    """The lowest published row that has a unit in common with `prior`, and that unit."""
    published = [(row, unit) for row in rows if row["kind"] == "published" and (unit := common_unit(prior, row))]
    return min(published, key=lambda pair: pair[0][pair[1]] / prior[pair[1]], default=None)


def _share_of(some: int, count: int) -> str:
    """`All 18 knowledge types`, `both knowledge types`, `3 of 18 knowledge types`, `none of ...`."""
    if some == count:
        return "Both knowledge types" if count == 2 else f"All {count} knowledge types"
    return f"{some or 'None'} of {count} knowledge types"


def _likelihood_of(prior: Row, rows: Sequence[Row], *, better: bool) -> str:
    """The sentence on one data set.

    Args:
        better: say whether higher or lower is better.
    """
    dataset, value, nats = prior["dataset"], prior["bits_per_dim"], prior.get("log_prob_nats")
    if nats is None:
        text = f"On {dataset} it takes {value:.3f} bits/dim"
    else:
        text = f"On {dataset} log p(T) is {nats:.3f} nats in the mean, in the unit of the data"
    remarks = [f"{'lower' if nats is None else 'higher'} is better"] if better else []
    if (prior.get("count") or 0) < FEWEST:
        remarks.append(f"of {prior.get('count') or 0} test samples, too few to compare")
    text += f" ({'; '.join(remarks)})" if remarks else ""
    for row in rows:
        if row["kind"] == "baseline" and nats is not None and row.get("log_prob_nats") is not None:
            more = nats - row["log_prob_nats"]
            text += f", {abs(more):.3f} nats {'more' if more >= 0 else 'less'} than a {row['name']}"
        elif row["kind"] == "baseline" and row.get("bits_per_dim") is not None:
            text += f", {compared(value, row['bits_per_dim'])} a {row['name']} ({row['bits_per_dim']:.3f})"
    if published := best_published(prior, rows):
        row, unit = published
        text += f"; the best published beside it is {row['name']}, {row[unit]:g} {UNITS[unit]}"
        text += "" if unit == "bits_per_dim" else f" where this has {prior[unit]:.2f}"
    return text + "."
