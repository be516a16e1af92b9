"""Pictures of vectors: marginals, pairs of columns, and densities.

Densities are drawn of one or two dimensions.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tzk_core.report import views
from tzk_core.report.subject import Drawn, Subject
from tzk_core.report.views import MEMBERS, file_name
from tzk_plugin_report.plots import columns

SHOWN = 2000
"""Test observations and samples of a picture."""


def samples(subject: Subject, folder: Path) -> Iterator[Drawn]:
    """Samples over test data, column by column and in pairs.

    They are of the prior, of knowledge and of groups of it.
    """
    datasets, tests = subject.tests(SHOWN)
    observed, names = torch.cat(list(datasets.values())), views.column_names(subject.experiment)
    for name in (None, *subject.singles):
        title = f"{name or 'prior'}, {subject.temperature}".removesuffix(", ")
        data, drawn = tests.get(name or "", observed), subject.sample(SHOWN, name)
        yield _marginals(data, {title: drawn}, folder, of=file_name(name or "prior"), names=names)
        if len(names) > 1:
            file = f"pairs-{file_name(name or 'prior')}.png"
            as_many = drawn[: len(data)]  # more would hide the data
            columns.pairs(data, as_many, folder / file, names=names, title=title)
            alt = "Scatter plots of every two columns: test data below samples."
            yield Drawn(file, f"samples over test data, by pairs of columns: {title}", alt)
    for group, members in subject.experiment.groups.items():
        by_member = {name: subject.sample(1000, name) for name in members[:MEMBERS]}
        yield _marginals(observed, by_member, folder, of=file_name(group), names=names)


def density(subject: Subject, folder: Path) -> Iterator[Drawn]:
    """p(T), and p(T given κ=1) of single knowledge types, of one or two dimensions."""
    names = views.column_names(subject.experiment)
    datasets, tests = subject.tests(1000)
    observed = torch.cat(list(datasets.values()))
    for name in ("", *subject.singles):
        title = f"density: {name or 'prior'}"
        file = f"density-{file_name(name or 'prior')}.png"
        log_prob = partial(_log_prob, subject.model, name=name)
        columns.density(log_prob, tests.get(name, observed), folder / file, names=names, title=title)
        what = f"p(T given {name})" if name else "p(T)"
        yield Drawn(file, f"the density {what}, with test data", f"{what} over {' and '.join(names)}, test data on it.")


def _log_prob(model: Any, points: Tensor, *, name: str) -> Tensor:
    """log p at points, (n,): -inf where the flow has no finite latent."""
    points = points.to(model.like)
    z, logabsdet = model.flow.encode(points)
    inside = logabsdet.isfinite() & z.flatten(1).isfinite().all(1)
    values = torch.full_like(logabsdet, -torch.inf)
    if inside.any():
        values[inside] = model.log_prob(points[inside], name or None)
    return values


def _marginals(data: Tensor, by_title: dict[str, Tensor], folder: Path, *, of: str, names: tuple[str, ...]) -> Drawn:
    file = f"samples-{of}.png"
    columns.marginals(data, by_title, folder / file, names=names)
    return Drawn(
        file,
        f"samples over test data, column by column: {', '.join(by_title)}",
        f"A histogram for each of {len(names)} columns: test data filled, samples as lines.",
    )
