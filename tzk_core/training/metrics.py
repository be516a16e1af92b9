"""metrics.csv: averages of what a training measures, a row every so many steps."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tzk_core.storage.atomic import new_file


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

    def means(self, of: str) -> dict[str, float]:
        """The averages since the last row of all keys `of`/NAME, by name."""
        prefix = f"{of}/"
        means = {key: total / self.counts[key] for key, total in self.sums.items() if key.startswith(prefix)}
        return {key.removeprefix(prefix): mean for key, mean in means.items()}

    def write(self, path: Path, columns: Sequence[str], more: Mapping[str, float | int]) -> None:
        """Appends a row of the averages and `more`; the columns of a file that is there stay as they are."""
        row: dict[str, Any] = {key: total / self.counts[key] for key, total in self.sums.items()} | dict(more)
        there = _header(path)
        with path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, there or columns, extrasaction="ignore", restval="")
            if not there:
                writer.writeheader()
            writer.writerow({key: f"{value:.6g}" if isinstance(value, float) else value for key, value in row.items()})
        self.clear()

    def clear(self) -> None:
        """Starts the averages anew."""
        self.sums, self.counts = {}, {}

    def state_dict(self) -> dict[str, Any]:
        return {"sums": dict(self.sums), "counts": dict(self.counts)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.sums, self.counts = dict(state["sums"]), dict(state["counts"])


def keep_until(path: Path, step: int) -> None:
    """Takes the rows after `step` out of a file, as a kill may leave them."""
    if not path.exists():
        return
    with path.open(newline="", encoding="utf-8") as file:
        header, *lines = list(csv.reader(file)) or [[]]
    kept = [line for line in lines if int(line[0]) <= step]
    if len(kept) < len(lines):
        with new_file(path) as fresh, fresh.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([header, *kept])


def _header(path: Path) -> list[str]:
    """The columns of a file; none if it is not there or empty."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return next(csv.reader(file), [])
