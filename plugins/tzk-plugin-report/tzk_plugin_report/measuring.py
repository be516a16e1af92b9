"""What a report measures of a model itself: samples, planes of C, reconstructions, confusions, surprises."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

import tzk_core
from tzk_core.config import Config, load_run_config
from tzk_core.errors import TzkError
from tzk_core.model import TzK
from tzk_core.report import views
from tzk_core.runs.experiment import Experiment
from tzk_plugin_report import decoding, held_out

MOST = 40
"""Knowledge types that are drawn, from the first on."""

SAMPLES = 24
"""Images of a set of samples."""

TESTED = 500
"""Test samples of a data set that are looked at."""

DATA_SETS = "data sets"
"""The group of knowledge types that mean "from this data set" alone."""

SHOWN = 40
"""Test samples of a knowledge type that are placed on its plane."""


@dataclass(frozen=True)
class Placed:
    """Test samples of a knowledge type on its plane.

    Attributes:
        T: (n, *shape).
        places: (n, 2) in [0, 1], from the left and the top of the plane.
        through: T reconstructed through C alone, (m, *shape), of the first m.
    """

    T: Tensor
    places: Tensor
    C: Tensor
    through: Tensor


@dataclass
class Measured:
    """What a model says and shows.

    Attributes:
        samples: at the temperature of the config, by name, "prior" first.
        planes, axes: of knowledge with C, and the names of its characteristics.
        placed: test samples on these planes.
        encoded: test samples by data set; empty where the data are gone.
        columns: names of the dimensions of T, in order.
        reason: why the data could not be read; "" if they could.
        left_out: how many knowledge types are not drawn.
    """

    model: TzK
    temperature: float
    samples: Mapping[str, Tensor]
    planes: Mapping[str, decoding.Plane]
    axes: Mapping[str, Sequence[str]]
    placed: Mapping[str, Placed] = field(default_factory=dict)
    encoded: Mapping[str, held_out.Encoded] = field(default_factory=dict)
    confusions: Sequence[held_out.Confusion] = ()
    trained_on: Mapping[str, int] = field(default_factory=dict)
    blown: Mapping[str, float] = field(default_factory=dict)
    plane_change: Mapping[str, float] = field(default_factory=dict)
    columns: Sequence[str] = ()
    reason: str = ""
    left_out: int = 0


def measure(folder: Path, experiment: Experiment | None = None) -> Measured:
    """Measure the model of a run.

    What needs its data is left out where these are gone.

    Args:
        experiment: of the run, trained or loaded, so that nothing is read again.

    Raises:
        TzkError: for a run without a model that can be used here.
    """
    if experiment is not None:
        return _with_data(experiment)
    config = load_run_config(folder / "config.toml")
    try:
        opened = Experiment(config)
    except Exception as error:  # a data set of a plugin raises what it likes where its files are gone
        reason = str(error) if isinstance(error, TzkError) else f"{type(error).__name__}: {error}"
        model = tzk_core.load(folder)
        return _without_data(model, config, reason)
    opened.load(folder)
    return _with_data(opened)


def _without_data(model: TzK, config: Config, reason: str) -> Measured:
    temperature, seed = config.pictures.temperature, config.seed
    names = list(model.knowledge)
    shown = names[:MOST]
    planes = dict(_planes(model, shown))
    return Measured(
        model=model,
        temperature=temperature,
        samples=decoding.drawn(model, [None, *shown], count=SAMPLES, temperature=temperature, seed=seed),
        planes=planes,
        axes={name: [f"C{i + 1}" for i in range(model.find(name).characteristics)] for name in planes},
        columns=[f"T{i + 1}" for i in range(math.prod(model.shape))],
        reason=reason,
        left_out=len(names) - len(shown),
    )


def _with_data(experiment: Experiment) -> Measured:
    """Measure with the data of the experiment at hand."""
    config, model = experiment.config, experiment.model
    measured = _without_data(model, config, "")
    evaluation = experiment.evaluation
    limit = min(TESTED, config.evaluation.limit or TESTED)
    encoded = {name: held_out.encode(model, evaluation.split(name, "test", limit)) for name in experiment.datasets}
    measured.encoded = encoded
    if len(model.shape) == 1:
        measured.columns = views.column_names(experiment)
    known = [name for name in measured.planes if name in experiment.knowledge_names]
    measured.axes = {
        name: views.characteristic_names(experiment, name) if name in known else axes
        for name, axes in measured.axes.items()
    }
    measured.placed = {name: placed for name in known if (placed := _placed(model, name, encoded)) is not None}
    measured.confusions = _confusions(experiment, list(encoded.values()))
    measured.trained_on = _trained_on(experiment)
    reference = _of_all(encoded)
    measured.blown = {name: decoding.blown_share(T, reference) for name, T in measured.samples.items()}
    measured.plane_change = {
        name: decoding.change_of(measured.planes[name], own)
        for name in known
        if (own := _present(name, encoded)) is not None and len(own) > 1
    }
    return measured


def _planes(model: TzK, names: Sequence[str]) -> Iterator[tuple[str, decoding.Plane]]:
    for name in names:
        if decoding.has_plane(model.find(name)):
            yield name, decoding.plane(model, name)


def _present(name: str, encoded: Mapping[str, held_out.Encoded]) -> Tensor | None:
    """All test samples in which knowledge is present; None without any."""
    parts = [e.split.T[e.split.rows(name)] for e in encoded.values() if name in e.split.knowledge]
    parts = [part for part in parts if len(part)]
    return torch.cat(parts) if parts else None


def _of_all(encoded: Mapping[str, held_out.Encoded]) -> Tensor:
    return torch.cat([samples.split.T for samples in encoded.values()])


def _placed(model: TzK, name: str, encoded: Mapping[str, held_out.Encoded]) -> Placed | None:
    """The first test samples of a knowledge type, where its encoder takes them."""
    for samples in encoded.values():
        if name in samples.split.knowledge and len(rows := samples.split.rows(name)[:SHOWN]):
            T = samples.split.T[rows]
            C = samples.characteristics[name][rows].to(model.like)
            through = views.through_characteristics(model, name, T[:8]).float().cpu()
            return Placed(T.float(), decoding.place_on_plane(model.find(name), C).cpu(), C.cpu(), through)
    return None


def _confusions(experiment: Experiment, encoded: Sequence[held_out.Encoded]) -> list[held_out.Confusion]:
    """Of the data sets as knowledge, and of every table of knowledge."""
    groups = {DATA_SETS: list(experiment.dataset_knowledge.values()), **experiment.groups}
    all_of_them = (held_out.confusion(title, members[:MOST], encoded) for title, members in groups.items())
    return [confusion for confusion in all_of_them if confusion is not None]


def _trained_on(experiment: Experiment) -> dict[str, int]:
    annotation = experiment.annotation
    totals = torch.stack([(table == 1).sum(0) for table in annotation.presence.values()]).sum(0)
    return {name: int(count) for name, count in zip(annotation.names, totals.tolist(), strict=True)}
