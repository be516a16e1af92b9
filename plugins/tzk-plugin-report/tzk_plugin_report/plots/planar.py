"""Pictures of points in the plane: samples, reconstructions through C, and the plane of C.

Samples are beside test data.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from tzk_core.report import views
from tzk_core.report.subject import Drawn, Subject
from tzk_core.report.views import MEMBERS, file_name
from tzk_plugin_report.plots import scatter

SHOWN = 2000
"""Test observations and samples of a picture."""


def samples(subject: Subject, folder: Path) -> Iterator[Drawn]:
    """Samples of the prior, of single knowledge types and of groups, beside test data."""
    datasets, tests = subject.tests(SHOWN)
    prior = {"": subject.sample(sum(map(len, datasets.values())))}
    yield _beside(subject, folder, "prior", observed=datasets, drawn=prior)
    for name in subject.singles:
        observed = {name: tests[name]} if name in tests else datasets
        yield _beside(subject, folder, name, observed=observed, drawn={name: subject.sample(SHOWN, name)})
    for group, members in subject.experiment.groups.items():
        shown = list(members[:MEMBERS])
        drawn = {name: subject.sample(500, name) for name in shown}
        observed = {name: tests[name][:500] for name in shown if name in tests} or datasets
        yield _beside(subject, folder, file_name(group), observed=observed, drawn=drawn)


def reconstructions(subject: Subject, folder: Path) -> Iterator[Drawn]:
    """Lines from test points to where C takes them."""
    _, tests = subject.tests(SHOWN)
    for name in _own(subject):
        if name in tests:
            T = tests[name][:300]
            through = views.through_characteristics(subject.model, name, T)
            file = f"reconstructions-{file_name(name)}.png"
            scatter.moved(T, through, folder / file, title=f"{name}, through C")
            yield Drawn(
                file,
                f"test points of {name}, and where they come to lie through C",
                f"{len(T)} grey points, each joined by a line to the point decoded from its C alone.",
            )


def planes(subject: Subject, folder: Path) -> Iterator[Drawn]:
    """The images of lines along C1 and along C2, for C in R²."""
    for name in _own(subject):
        if subject.model.knowledge[name].characteristics != 2:
            continue
        fine, coarse = torch.linspace(0.02, 0.98, 97), torch.linspace(0.05, 0.95, 13)
        fixed, swept = (part.reshape(-1) for part in torch.meshgrid(coarse, fine, indexing="ij"))
        lines = [
            views.at_quantiles(subject.model, name, torch.stack(pair, -1)).reshape(len(coarse), len(fine), 2)
            for pair in ((swept, fixed), (fixed, swept))
        ]
        file, names = f"plane-of-C-{file_name(name)}.png", views.characteristic_names(subject.experiment, name)
        scatter.net(lines[0], lines[1], folder / file, title=f"{name}, the plane of C", names=names)
        yield Drawn(
            file,
            f"the plane of C of {name}, decoded: lines along {names[0]} and along {names[1]}",
            f"A net of {len(coarse)} curves along {names[0]} and as many along {names[1]}, in the plane of the data.",
        )


def _own(subject: Subject) -> list[str]:
    """Single knowledge types, and the last of every group."""
    return [*subject.singles, *(members[-1] for members in subject.experiment.groups.values())]


def _beside(
    subject: Subject,
    folder: Path,
    title: str,
    *,
    observed: dict[str, torch.Tensor],
    drawn: dict[str, torch.Tensor],
) -> Drawn:
    file = f"samples-{file_name(title)}.png"
    worded = f"{title}, {subject.temperature}" if subject.temperature else title
    scatter.beside(observed, drawn, folder / file, title=worded)
    what = "p(T)" if title == "prior" else f"p(T given {title})"
    return Drawn(
        file,
        f"test data, and samples of {what} {subject.temperature}".rstrip(),
        f"Two scatter plots on one scale: test points to the left, points sampled from {what} to the right.",
    )
