"""The registered pictures of this plugin, by the kind of data."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tzk_core.report.subject import Drawn, Subject
from tzk_plugin_report.plots import curves, planar, tabular


def samples(subject: Subject, folder: Path) -> Iterator[Drawn]:
    """Samples of vectors beside or over test data: points in the plane, or columns."""
    if subject.planar:
        yield from planar.samples(subject, folder)
    elif subject.vectors:
        yield from tabular.samples(subject, folder)


def densities(subject: Subject, folder: Path) -> Iterator[Drawn]:
    """The density of observations with one or two dimensions."""
    if subject.vectors and subject.model.shape[0] <= 2:
        yield from tabular.density(subject, folder)


def reconstructions(subject: Subject, folder: Path) -> Iterator[Drawn]:
    """Points of the plane beside their reconstructions through C, by knowledge type."""
    if subject.planar:
        yield from planar.reconstructions(subject, folder)


def planes(subject: Subject, folder: Path) -> Iterator[Drawn]:
    """The plane of C over points of the plane, of knowledge types with two characteristics."""
    if subject.planar:
        yield from planar.planes(subject, folder)


def curves_over_steps(subject: Subject, folder: Path) -> Iterator[Drawn]:
    """Likelihood, inconsistency and multipliers over the steps of training, from metrics.csv."""
    if subject.log is not None:
        curves.draw(subject.log, folder / "training-curves.png")
        yield Drawn(
            "training-curves.png",
            "training: bits per dim, inconsistency, multipliers and the weight of the prior over steps",
            "Line charts over the steps of training, one for each of the quantities in the caption that was logged.",
        )
