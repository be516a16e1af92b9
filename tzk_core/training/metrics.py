"""metrics.csv: averages of what a training measures, a row every so many steps."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from tzk_core.errors import TzkError
from tzk_core.files import check_regular, naming
from tzk_core.objective import Capacity
from tzk_core.objective.routing import presence
from tzk_core.observations import Observations
from tzk_core.storage.atomic import new_file
from tzk_core.training.observers import Logged, Observer, Start

STEP = "step"
MOST_DIGITS = 18
"""Of a step."""


class Metrics:
    """Sums of the steps since the last row."""

    def __init__(self) -> None:
        self.sums: dict[str, float] = {}
        self.counts: dict[str, int] = {}

    def add(self, values: Mapping[str, float]) -> None:
        """Counts one step; a value may be missing from some steps."""
        for key, value in values.items():
            self.sums[key] = self.sums.get(key, 0.0) + value
            self.counts[key] = self.counts.get(key, 0) + 1

    def mean(self, key: str) -> float | None:
        """The average since the last row; None if nothing was counted."""
        return self.sums[key] / self.counts[key] if key in self.sums else None

    def means(self, of: str = "") -> dict[str, float]:
        """The averages since the last row of all keys `of`/NAME, by name.

        By default those of all keys.
        """
        prefix = f"{of}/" if of else ""
        means = {key: total / self.counts[key] for key, total in self.sums.items() if key.startswith(prefix)}
        return {key.removeprefix(prefix): mean for key, mean in means.items()}

    def clear(self) -> None:
        """Starts the averages anew."""
        self.sums, self.counts = {}, {}

    def state_dict(self) -> dict[str, Any]:
        return {"sums": dict(self.sums), "counts": dict(self.counts)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.sums, self.counts = dict(state["sums"]), dict(state["counts"])


class MetricsFile(Observer):
    """Writes the log to metrics.csv of the run's folder, row by row.

    At the start it takes out rows of steps that are still to come, as a kill may leave them. The columns of a file that
    is there stay as they are. A training without a folder has no file.
    """

    path: Path | None = None

    def on_start(self, start: Start) -> None:
        self.path = start.folder / "metrics.csv" if start.folder else None
        if self.path:
            keep_until(self.path, start.step)

    def on_log(self, logged: Logged) -> None:
        if self.path is None:
            return
        there = _header(self.path)
        row = {key: f"{value:.6g}" if isinstance(value, float) else value for key, value in logged.values.items()}
        with naming(self.path), self.path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, there or logged.columns, extrasaction="ignore", restval="")
            if not there:
                writer.writeheader()
            writer.writerow(row)


def log_prob_of_present(capacity: Capacity, observations: Observations) -> dict[str, Tensor]:
    """By knowledge, the mean of log p(T given C, κ=1) over its observed samples.

    These are the samples in which it is present and T was observed. C is as observed, or else from its encoder.
    """
    seen = ~capacity.log_prob_T.isnan()
    present = ((presence(observations) == 1) & seen).to(capacity.log_prob_T)
    prior = (present @ capacity.log_prob_T.detach().nan_to_num()).cpu() / present.sum(1).cpu()
    means = dict(zip(observations.knowledge, prior.tolist(), strict=True))  # thousands of tensors take their time
    return {name: means[name] + ratio for name, ratio in capacity.conditional.items()}


def keep_until(path: Path, step: int) -> None:
    """Remove the rows after `step`, and one that was cut off.

    A kill may leave them.

    Raises `TzkError` if it is no metrics.csv.
    """
    if not path.exists():
        return
    header, rows, cut = read_rows(path)
    earlier = [row for row in rows if int(row[0]) <= step]
    if cut or len(earlier) < len(rows):
        with new_file(path) as fresh, fresh.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([header, *earlier] if earlier else [])


def read_rows(path: Path) -> tuple[list[str], list[list[str]], bool]:
    """The columns of a metrics.csv, its whole rows, and whether its end is cut off.

    The first column is the step.

    Raises `TzkError` naming the line of a row that is not whole and not the last.
    """
    check_regular(path)
    try:
        text = path.read_text(encoding="utf-8")
        header, *rows = list(csv.reader(io.StringIO(text, newline=""))) or [[]]
    except (UnicodeDecodeError, csv.Error) as error:
        raise TzkError(f"{path} is damaged ({error}): take it from a copy, or delete it") from None
    if rows and header[:1] != [STEP]:
        raise TzkError(f"{path} is damaged: expected a column {STEP!r} first; got {', '.join(header)[:80] or 'none'}")
    cut = bool(text) and not text.endswith(("\n", "\r"))
    rows = rows[:-1] if cut else rows
    for number, row in enumerate(rows, 2):
        if len(row) != len(header) or not row[0].isascii() or not row[0].isdigit() or len(row[0]) > MOST_DIGITS:
            raise TzkError(f"{path} is damaged in line {number}: take it from a copy, or delete it")
    return header, rows, cut


def _header(path: Path) -> list[str]:
    """The columns of a file; none if it is not there or empty."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return next(csv.reader(file), [])
