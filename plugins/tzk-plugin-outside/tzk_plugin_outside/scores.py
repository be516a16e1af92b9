"""Scores of images as a table for people, JSON and CSV, made image by image."""

from __future__ import annotations

import csv
import itertools
import json
import math
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from tzk_core.cli import output
from tzk_core.errors import TzkError
from tzk_core.storage.atomic import new_file
from tzk_core.strict_json import json_text
from tzk_core.units import bits_per_dim
from tzk_plugin_outside.evidence import Evidence
from tzk_plugin_outside.novelty import Novelty
from tzk_plugin_outside.reading import Read
from tzk_plugin_outside.spool import Spool

FORMAT = 1


@dataclass
class Scored:
    """Evidence about images, and the verdict on each.

    Only numbers and names stay, on the disk: the images themselves may be gone, and memory does not grow with them.

    run: the run folder. dims: of one observation. levels: of grey, None for real-valued data.
    settings: keys of the JSON on how it was computed.
    unreadable: by file that was left out, the reason.
    """

    run: str
    novelty: Novelty
    dims: int
    levels: int | None
    settings: dict[str, Any] = field(default_factory=dict)
    unreadable: dict[Path, str] = field(default_factory=dict)
    knowledge: tuple[str, ...] = ()
    _batches: Spool = field(default_factory=Spool)
    _count: int = 0

    def __len__(self) -> int:
        return self._count

    def add(self, read: Read, evidence: Evidence) -> None:
        """Add one batch: its sources, and the evidence about it."""
        names = {file: str(file) for file in read.files}
        self.knowledge = evidence.knowledge
        self._count += len(evidence)
        self._batches.add([names[file] for file in read.files], list(read.rows), evidence)

    def entries(self) -> Iterator[dict[str, Any]]:
        """One entry for each image, in their order; None for what is not finite."""
        for files, rows, evidence in self._batches:
            verdicts = self.novelty.verdicts(evidence)
            bits = bits_per_dim(evidence.log_prob.double(), self.dims, self.levels).tolist()
            best = evidence.log_ratio.argmax(1).tolist() if evidence.knowledge else [None] * len(evidence)
            ratios, presences = evidence.log_ratio.tolist(), evidence.log_presence.exp().tolist()
            for i, column in enumerate(best):
                none = bool(verdicts.none[i])
                yield {
                    "file": files[i],
                    "row": rows[i],
                    "log_prob": _number(evidence.log_prob[i].item()),
                    "bits_per_dim": _number(bits[i]),
                    "none": none,
                    "knowledge": None if column is None or none else evidence.knowledge[column],
                    "best": None if column is None else evidence.knowledge[column],
                    "log_ratio": None if column is None else _number(ratios[i][column]),
                    "presence": None if column is None else _number(presences[i][column]),
                    "statistic": _number(verdicts.values[i].item()),
                    "p_value": None if verdicts.p_value is None else verdicts.p_value[i].item(),
                    "each": {
                        name: {"log_ratio": _number(ratios[i][j]), "presence": _number(presences[i][j])}
                        for j, name in enumerate(evidence.knowledge)
                    },
                }

    def json_parts(self) -> Iterator[str]:
        """What `--json` prints, part by part."""
        table = {
            "format": FORMAT,
            "run": self.run,
            "knowledge": list(self.knowledge),
            **self.settings,
            **self.novelty.to_json(),
            "images": [],
            "unreadable": [{"file": str(file), "reason": reason} for file, reason in self.unreadable.items()],
        }
        before, after = json_text(table).split('"images": []', 1)
        yield before + '"images": ['
        for number, entry in enumerate(self.entries()):
            text = json.dumps(entry, indent=2, allow_nan=False).replace("\n", "\n    ")
            yield ("," if number else "") + "\n    " + text
        yield "\n  ]" + after

    def write_csv(self, file: Path) -> None:
        """Write one line for each image, with the best knowledge type alone.

        The file is whole, or not there.

        Raises:
            TzkError: if the file cannot be written.
        """
        is_stream = file.exists() and not file.is_file()  # as /dev/stdout, whose place none can take
        try:
            with nullcontext(file) if is_stream else new_file(file) as place, _opened(place) as stream:
                writer = None
                for entry in self.entries():
                    del entry["each"]
                    if writer is None:
                        writer = csv.DictWriter(stream, list(entry))
                        writer.writeheader()
                    writer.writerow(entry)
        except OSError as error:
            raise TzkError(f"{file} cannot be written: {error.strerror}") from None

    def text_parts(self) -> Iterator[str]:
        """A table for people, line by line, and below it what "none of them" means."""
        report = self.novelty.to_json()
        statistic, limit = report["statistic"], report["threshold"]
        header = ["file", "bits/dim", "log p(T)", "knowledge", "log ratio", "p(κ=1)", statistic["name"], "p-value"]
        widths, number = list(map(len, header)), 0
        for image in self.entries():
            number += image["none"]
            widths = [max(width, len(cell)) for width, cell in zip(widths, _cells(image), strict=True)]
        for row in itertools.chain([header], map(_cells, self.entries())):
            yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() + "\n"
        summary = f"None of them: {statistic['name']}, {statistic['meaning']}, below {limit['value']:.6g}"
        if limit["false_alarms"] is not None:
            counts = ", ".join(f"{output.count(count)} of {name}" for name, count in limit["validation"].items())
            summary += f", as {100 * limit['false_alarms']:g} % of the validation images are ({counts})"
        summary += f".\n{output.count(number)} of {output.count(len(self), 'image')} are none of them."
        yield "\n" + summary


def _opened(file: Path) -> IO[str]:
    return file.open("w", newline="", encoding="utf-8")


def _cells(image: dict[str, Any]) -> list[str]:
    """One line of the table."""
    row = "" if image["row"] is None else f"[{image['row']}]"
    best = image["best"] or "-"
    none = "out of distribution" if image["best"] is None else f"none of them ({best})"
    return [
        image["file"] + row,
        _decimals(image["bits_per_dim"], 3),
        _decimals(image["log_prob"], 1),
        none if image["none"] else best,
        _decimals(image["log_ratio"], 1),
        _decimals(image["presence"], 3),
        _decimals(image["statistic"], 3),
        _decimals(image["p_value"], 4),
    ]


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _decimals(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
