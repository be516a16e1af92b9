"""Checks of a picture: its files, its words, and an unchanged model."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from tzk_core.errors import TzkError
from tzk_core.report.pictures import checked
from tzk_core.report.subject import Drawn, Subject
from tzk_core.testing.expectations import NotConforming, expect

Draw = Callable[[Subject, Path], Iterable[Drawn]]


def check_picture(draw: Draw, subject: Subject) -> list[Drawn]:
    """Check that a picture lists its files, repeats itself, and changes no number.

    Args:
        subject: what it is to be drawn of, such as `Subject(experiment, results)` of a small run. A picture that has
            nothing to draw of its kind of data returns nothing.

    Returns:
        What it drew.

    Raises:
        NotConforming: with what was expected and what it got.
    """
    name = getattr(draw, "__name__", repr(draw))
    state = {key: value.clone() for key, value in subject.model.state_dict().items()}
    random_state = torch.get_rng_state()
    with TemporaryDirectory() as first, TemporaryDirectory() as second:
        drawings = _checked(draw, subject, Path(first), name=name)
        again = _checked(draw, subject, Path(second), name=name)
        expect(drawings == again, f"{name}: the same subject should give the same pictures; got {again}")
        listed = {drawn.file for drawn in drawings}
        written = {path.name for path in Path(first).iterdir()}
        expect(written == listed, f"{name}: should list the files {sorted(written)}; it lists {sorted(listed)}")
        for file in sorted(listed):
            same = (Path(first) / file).read_bytes() == (Path(second) / file).read_bytes()
            expect(same, f"{name}: {file} should be the same each time; it differs")
    expect(torch.equal(random_state, torch.get_rng_state()), f"{name}: draws from torch's global generator; use a seed")
    for key, value in subject.model.state_dict().items():
        expect(torch.equal(value, state[key]), f"{name}: should leave the model as it is; it changed {key!r}")
    return drawings


def _checked(draw: Draw, subject: Subject, folder: Path, *, name: str) -> list[Drawn]:
    try:
        return list(checked(draw(subject, folder), folder))
    except TzkError as error:
        raise NotConforming(f"{name}: {error}") from error
