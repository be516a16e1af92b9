"""Pictures of images: samples, reconstructions through C, and the plane of C.

They are grids.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from tzk_core.report import grid, views
from tzk_core.report.subject import Drawn, Subject
from tzk_core.report.views import MEMBERS, file_name


def samples(subject: Subject, folder: Path) -> Iterator[Drawn]:
    """Grids of samples of groups, of single knowledge types and of the prior.

    A group has a row for a member. It comes first, since samples given a class are the ones that people recognise.
    """
    across, many = _across(subject), max(4, min(16, 1024 // max(subject.model.shape)))
    for group, members in subject.experiment.groups.items():
        yield _rows(subject, folder, group, members=list(members[:MEMBERS]), columns=across)
        last = members[-1]  # among the digits it is 9, as in the paper (Fig. 4)
        yield _grid(subject, folder, last, columns=many, knowledge=last, suffix="-large")
    for name in subject.singles:
        yield _grid(subject, folder, name, columns=across, knowledge=name)
    yield _grid(subject, folder, "prior", columns=across)


def reconstructions(subject: Subject, folder: Path) -> Iterator[Drawn]:
    """Rows of test images, each above its reconstruction through C, by knowledge type."""
    across = _across(subject)
    _, tests = subject.tests(4 * across)
    for name in subject.singles:
        if name in tests:
            yield _pairs(subject, folder, name, tests={name: tests[name]})
    for group, members in subject.experiment.groups.items():
        pairs = {name: tests[name][:across] for name in members[:MEMBERS] if name in tests}
        if pairs:
            yield _pairs(subject, folder, group, tests=pairs)


def planes(subject: Subject, folder: Path) -> Iterator[Drawn]:
    """The plane of C at even quantiles of its prior.

    It is drawn of single types and the last of every group.

    Only C in R² has one. C1 is to the right, C2 upwards. Observed characteristics have their names.
    """
    last = [members[-1] for members in subject.experiment.groups.values()]
    for name in (*subject.singles, *last):
        if subject.model.knowledge[name].characteristics == 2:
            yield _plane(subject, folder, name)


def _across(subject: Subject) -> int:
    """Images in a row, fewer where they are large."""
    return max(4, min(10, 640 // max(subject.model.shape)))


def _grid(
    subject: Subject, folder: Path, title: str, *, columns: int, knowledge: str | None = None, suffix: str = ""
) -> Drawn:
    """A square of samples of the prior, or of one knowledge type."""
    file = f"samples-{file_name(title)}{suffix}.png"
    below = f"samples {subject.temperature}" if subject.temperature else ""
    grid.save(subject.sample(columns * columns, knowledge), folder / file, columns, caption=below)
    what = "p(T)" if knowledge is None else f"p(T given {knowledge})"
    count = columns * columns
    return Drawn(
        file, f"samples of {what} {subject.temperature}".rstrip(), f"A grid of {count} images sampled from {what}."
    )


def _rows(subject: Subject, folder: Path, group: str, *, members: list[str], columns: int) -> Drawn:
    """A row of samples for every member of a group, with its bits per dim."""
    drawn = torch.cat([subject.sample(columns, name) for name in members])
    bits = {name: views.bits_per_dim(subject.results, name) for name in members}
    labels = [name if bits[name] is None else f"{name}\n{bits[name]:.2f} bits/dim" for name in members]
    file = f"samples-{file_name(group)}.png"
    below = f"samples {subject.temperature}" if subject.temperature else ""
    grid.save(drawn, folder / file, columns, row_labels=labels, caption=below)
    return Drawn(
        file,
        f"samples given {group}, by row {subject.temperature}".rstrip(),
        f"{len(members)} rows of {columns} sampled images, one for each of {', '.join(members)}.",
    )


def _pairs(subject: Subject, folder: Path, title: str, *, tests: Mapping[str, Tensor]) -> Drawn:
    across, rows, labels = _across(subject), [], []
    for name, T in tests.items():
        through = views.through_characteristics(subject.model, name, T).to(T)
        for first in range(0, len(T), across):
            for row in (T[first : first + across], through[first : first + across]):
                blank = row.new_ones(across - len(row), *row.shape[1:])
                rows.append(torch.cat([row, blank]))
            labels += [f"{name}, test", "through C"]
    file = f"reconstructions-{file_name(title)}.png"
    grid.save(torch.cat(rows), folder / file, across, row_labels=labels, rows_together=2)
    return Drawn(
        file,
        f"test images, and their reconstructions through the C of {title}",
        f"{len(rows) // 2} rows of test images, each above a row of the same images decoded from C alone.",
    )


def _plane(subject: Subject, folder: Path, name: str) -> Drawn:
    side = _across(subject)
    quantiles = (torch.arange(side) + 0.5) / side
    second, first = torch.meshgrid(quantiles.flip(0), quantiles, indexing="ij")
    decoded = views.at_quantiles(subject.model, name, torch.stack([first, second], -1).reshape(-1, 2))
    labels = [f"{100 * quantile:.3g} %" for quantile in quantiles.tolist()]
    across, upwards = views.characteristic_names(subject.experiment, name)
    rows, columns = [f"{upwards} at {text}" for text in labels[::-1]], [f"{across} at\n{text}" for text in labels]
    file = f"plane-of-C-{file_name(name)}.png"
    grid.save(decoded, folder / file, side, row_labels=rows, column_labels=columns)
    return Drawn(
        file,
        f"the plane of C of {name}: {across} to the right, {upwards} upwards, at quantiles of their prior",
        f"A grid of {side} by {side} images decoded from {across} and {upwards}.",
    )
