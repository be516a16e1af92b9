"""The conformance checks of observers and pictures pass right ones, and refuse each fault with what to change."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from tzk_core import TzK, build_flow, build_knowledge
from tzk_core.plugins import Observer as ObserverSpec
from tzk_core.plugins import Registered, registry
from tzk_core.report import pictures
from tzk_core.report.subject import Drawn, Subject
from tzk_core.testing import NotConforming, check_observer, check_picture
from tzk_core.training.history import History
from tzk_core.training.observers import EachStep, Logged, Observer, Start


class Silent(Observer):
    """Watches nothing."""


class Misspelt(Observer):
    def on_logged(self, logged: Logged) -> None: ...


class Writing(Observer):
    """Changes the record."""

    def on_log(self, logged: Logged) -> None:
        logged.values["step"] = 0  # type: ignore[index]


class NeedsAFolder(Observer):
    """Fails in `fit`."""

    def on_start(self, start: Start) -> None:
        (start.folder / "mine").write_text("x")  # type: ignore[operator]


@pytest.mark.parametrize("make", [lambda: EachStep(print), lambda: History(None)], ids=["EachStep", "History"])  # type: ignore[arg-type]
def test_the_observers_of_the_core_conform(make: Callable[[], Observer]) -> None:
    check_observer(make)


@pytest.mark.parametrize("part", [part for part in registry().all(ObserverSpec) if part.plugin == "tzk"], ids=str)
def test_the_registered_observers_of_the_core_conform(part: Registered) -> None:
    check_observer(part.load())


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (object, "object should be a subclass of tzk_core.training.observers.Observer"),
        (Silent, "Silent watches nothing: override one of on_start, "),
        (Misspelt, "Misspelt.on_logged is called at no event; did you mean 'on_log'"),
        (Writing, "Writing.on_log should raise nothing; it raised TypeError"),
        (NeedsAFolder, "NeedsAFolder.on_start should raise nothing; it raised TypeError"),
    ],
)
def test_a_wrong_observer_is_refused(make: Any, words: str) -> None:
    with pytest.raises(NotConforming, match=words):
        check_observer(make)


def subject(shape: tuple[int, ...] = (2,)) -> Subject:
    """A small, untrained model on Gaussian test data."""
    model = TzK(build_flow(shape, layers=[{"type": "affine"}]))
    model.add("all", build_knowledge("gaussian", shape, name="all", hidden=4, layers=2))

    def samples(dataset: str, split: str) -> tuple[Tensor, Tensor]:
        T = torch.randn(20, *shape, generator=torch.Generator().manual_seed(0))
        return T, torch.ones(20, 1)

    config = SimpleNamespace(
        seed=0, datasets=[SimpleNamespace(name="a")], pictures=SimpleNamespace(temperature=1.0, draw=())
    )
    experiment = SimpleNamespace(
        config=config,
        model=model,
        knowledge_names=["all"],
        groups={},
        observed={},
        dataset_knowledge={"a": "all"},
        samples=samples,
    )
    return Subject(experiment, {})  # type: ignore[arg-type]


@pytest.mark.parametrize("draw", [pictures.samples, pictures.reconstructions, pictures.planes])
@pytest.mark.parametrize("shape", [(2,), (1, 6, 6), (3,)])
def test_the_pictures_of_the_core_conform(draw: Any, shape: tuple[int, ...]) -> None:
    drawn = check_picture(draw, subject(shape))
    assert bool(drawn) == (len(shape) != 1 or shape == (2,) or draw is pictures.samples)


def written(folder: Path, text: str = "x", file: str = "a.txt") -> str:
    (folder / file).write_text(text)
    return file


def changing(subject: Subject, folder: Path) -> list[Drawn]:
    with torch.no_grad():
        next(iter(subject.model.parameters())).add_(1)
    return [Drawn(written(folder), "a", "b")]


def by_chance(subject: Subject, folder: Path) -> list[Drawn]:
    return [Drawn(written(folder, str(random.random())), "a", "b")]


def from_torchs_generator(subject: Subject, folder: Path) -> list[Drawn]:
    torch.rand(1)
    return [Drawn(written(folder), "a", "b")]


@pytest.mark.parametrize(
    ("draw", "words"),
    [
        (lambda subject, folder: [Drawn("a.png", "a", "b")], "should have written 'a.png' to samples/"),
        (lambda subject, folder: [written(folder)], "expected tzk_core.report.subject.Drawn; got 'a.txt'"),
        (lambda subject, folder: [Drawn(written(folder), "", "b")], "a.txt: caption should be a line of text; got ''"),
        (lambda subject, folder: [Drawn(written(folder), "a", " ")], "a.txt: alt should be a line of text"),
        (lambda subject, folder: [Drawn("../a.png", "a", "b")], "expected the name of a file in samples/"),
        (lambda subject, folder: written(folder) and [], r"should list the files \['a.txt'\]; it lists \[\]"),
        (changing, "should leave the model as it is; it changed 'flow"),
        (by_chance, "a.txt should be the same each time; it differs"),
        (from_torchs_generator, "draws from torch's global generator; use a seed"),
    ],
)
def test_a_wrong_picture_is_refused(draw: Any, words: str) -> None:
    with pytest.raises(NotConforming, match=words):
        check_picture(draw, subject())
