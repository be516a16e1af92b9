"""`tzk ood RUN OUTSIDE.toml`: how well a run tells its own data from others."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tzk_core.cli import output
from tzk_core.errors import TzkError
from tzk_core.runs.folder import RunFolder
from tzk_core.strict_json import json_text
from tzk_plugin_outside.options import importance_samples_option, validation_option

if TYPE_CHECKING:
    from torch import Tensor

    from tzk_core.config import Config
    from tzk_core.data.protocol import Dataset
    from tzk_core.runs.experiment import Experiment

FORMAT = 1


@click.command(name="ood")
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("outside", metavar="OUTSIDE.toml", type=click.Path(path_type=Path))
@click.option(
    "--split",
    type=click.Choice(["validation", "test"]),
    default="test",
    show_default=True,
    help="On which samples of either's data.",
)
@click.option("--limit", type=click.IntRange(min=2), help="Only so many samples of each data set.")
@click.option("--knowledge", multiple=True, metavar="NAME", help="Of these knowledge types only; by default of all.")
@click.option(
    "--false-alarms",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.05,
    show_default=True,
    help="The share of the run's validation data below the threshold.",
)
@validation_option
@importance_samples_option
@click.option(
    "--scores",
    multiple=True,
    type=click.Choice(["dose"]),
    help="Scores that are fitted to the run's training images, too; it needs tzk-plugin-features.",
)
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@click.option(
    "-o", "--output", "written", type=click.Path(path_type=Path), help="A folder to write ood.json and ood.md to."
)
def command(
    *,
    run: Path,
    outside: Path,
    split: str,
    limit: int | None,
    knowledge: tuple[str, ...],
    false_alarms: float,
    validation: int,
    importance_samples: int | None,
    scores: tuple[str, ...],
    as_json: bool,
    written: Path | None,
) -> None:
    """Report areas under the ROC curve between a run's data and those of OUTSIDE.toml.

    There is one area for each statistic. Of OUTSIDE.toml only [[datasets]] and plugins are read, so that the config of
    another run will do. Thresholds are chosen on the run's validation data, and no statistic is fitted to anything from
    outside.
    """
    folder = RunFolder.open(run)
    if written is not None and not written.is_dir():
        raise TzkError(f"-o is expected to name a folder that is there; {written} is none")
    report = _report(
        folder,
        outside,
        split=split,
        limit=limit,
        knowledge=knowledge,
        false_alarms=false_alarms,
        validation=validation,
        importance_samples=importance_samples,
        dose="dose" in scores,
    )
    words = ["tzk", "ood", str(run), str(outside), "--split", split, *(["--limit", str(limit)] if limit else [])]
    words += [word for name in knowledge for word in ("--knowledge", name)]
    words += ["--false-alarms", f"{false_alarms:g}", "--validation", str(validation)]
    words += ["--importance-samples", str(report["importance_samples"])]
    words += [word for name in dict.fromkeys(scores) for word in ("--scores", name)]
    text = _markdown(report, shlex.join(words))
    if written is not None:
        (written / "ood.json").write_text(json_text(report) + "\n", encoding="utf-8")
        (written / "ood.md").write_text(text, encoding="utf-8")
    output.say(json_text(report) if as_json else text, nl=as_json)


def _report(
    folder: RunFolder,
    outside: Path,
    *,
    split: str,
    limit: int | None,
    knowledge: Sequence[str],
    false_alarms: float,
    validation: int,
    importance_samples: int | None,
    dose: bool,
) -> dict[str, Any]:
    """The contents of ood.json."""
    from tzk_core.config import load_config
    from tzk_core.runs.experiment import Experiment
    from tzk_core.runs.tables import datasets_of
    from tzk_plugin_outside.calibration import calibration  # these import torch
    from tzk_plugin_outside.comparison import detections
    from tzk_plugin_outside.dose_of_run import dose_of_run
    from tzk_plugin_outside.evidence import Evidence, evidence

    config = load_config(folder.config, finished=True)
    others = datasets_of(_datasets_only(outside))
    experiment = Experiment(config)
    experiment.load(folder.path)
    model, seed = experiment.model, config.seed
    names = tuple(dict.fromkeys(knowledge)) or tuple(name for name, _ in model.named_knowledge())
    for name in names:
        model.find(name)
    _check_comparable(others, experiment, outside)
    samples = importance_samples or config.evaluation.importance_samples
    fitted = dose_of_run(folder.path, config, model, limit=validation) if dose else None
    settings: dict[str, Any] = {"importance_samples": samples, "seed": seed, "dose": fitted}
    chosen_on = calibration(folder.path, config, limit=validation, **settings).inside(names)

    images = _images(experiment, split, limit)

    def gathered(name: str, dataset: Any) -> Evidence:
        T = images(name, dataset)
        return evidence(model, T, names, levels=experiment.levels, **settings)

    inside = {name: gathered(name, dataset) for name, dataset in experiment.datasets.items()}
    joined = Evidence.joined(list(inside.values()))
    report: dict[str, Any] = {
        "format": FORMAT,
        "run": config.name,
        "split": split,
        "inside": {name: len(evidences) for name, evidences in inside.items()},
        "validation": {name: len(evidences) for name, evidences in chosen_on.items()},
        "knowledge": list(names),
        "false_alarms": false_alarms,
        "importance_samples": samples,
        "seed": seed,
        "outside": [],
    }
    for name, dataset in others.items():
        other = gathered(name, dataset)
        rows = detections(model, names, chosen_on, inside=joined, outside=other, false_alarms=false_alarms)
        report["outside"].append({"dataset": name, "count": len(other), "statistics": rows})
    return report


def _images(experiment: Experiment, split: str, limit: int | None) -> Callable[[str, Dataset], Tensor]:
    """A function to T of a split, dequantised, of a data set by its name."""
    from tzk_core.data.dequantise import dequantise
    from tzk_core.random_streams import stream
    from tzk_core.runs.tables import limited

    def images(name: str, dataset: Dataset) -> Tensor:
        seed = experiment.config.seed
        chosen = limited(dataset.split(split), name, split, limit=limit, seed=seed)
        return dequantise(chosen.T, stream(seed, "evaluation", name, split), experiment.levels)

    return images


def _check_comparable(others: Mapping[str, Dataset], experiment: Experiment, file: Path) -> None:
    """Raise `TzkError` for a data set of another shape or number of grey levels."""
    for name, dataset in others.items():
        if (tuple(dataset.shape), dataset.levels) != (experiment.shape, experiment.levels):
            raise TzkError(
                f"{file}: data set {name!r} is of shape {tuple(dataset.shape)} with {dataset.levels} grey levels; "
                f"this model's data are of shape {experiment.shape} with {experiment.levels}"
            )


def _datasets_only(file: Path) -> Config:
    """A config of the data sets in a file alone. Raises `ConfigError` as `load_config` does."""
    from tzk_core.config import config_from, read_toml

    raw = read_toml(file)
    tables: dict[str, Any] = {"name": "outside", "training": {"steps": 1}}
    tables |= {key: raw[key] for key in ("plugins", "datasets") if key in raw}
    return config_from(tables, source=str(file))


def _markdown(report: dict[str, Any], command: str) -> str:
    from tzk_core.report.table import aligned

    inside = ", ".join(f"{output.count(number)} of {name}" for name, number in report["inside"].items())
    validation = ", ".join(f"{output.count(number)} of {name}" for name, number in report["validation"].items())
    share = f"{100 * report['false_alarms']:g} %"
    parts = [
        "# Out of distribution",
        "Area: the probability that a statistic is larger for an image of this run's data than for one from outside;\n"
        "0.5 says nothing, and below it images from outside look more like the run's than its own. ± is its standard\n"
        f"error. {share} of the validation images ({validation}) lie below each threshold; detected is the share\n"
        "from outside below it, false alarms that of the run's own images, which it was not chosen on. No statistic\n"
        "is fitted to anything from outside.",
    ]
    for compared in report["outside"]:
        header = ["statistic", "what it is", "area", "±", f"detected at {share}", "false alarms"]
        rows = [
            [
                row["statistic"],
                row["meaning"],
                f"{row['area']:.4f}",
                "—" if row["standard_error"] is None else f"{row['standard_error']:.4f}",
                f"{100 * row['detected']:.1f} %",
                f"{100 * row['false_alarms']:.1f} %",
            ]
            for row in compared["statistics"]
        ]
        outside = f"{compared['dataset']} ({output.count(compared['count'])}, {report['split']})"
        parts += [f"## {inside} against {outside}", aligned(header, rows, range(2, len(header)))]
    parts += ["## Made by", f"```sh\n{command}\n```"]
    return "\n\n".join(parts) + "\n"
