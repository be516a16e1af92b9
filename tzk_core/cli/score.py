"""`tzk score RUN FILE_OR_FOLDER`: likelihoods of images, and the knowledge that they show."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tzk_core.cli import output
from tzk_core.cli.calibrated import importance_samples_option, validation_option
from tzk_core.errors import TzkError
from tzk_core.runs.folder import RunFolder
from tzk_core.strict_json import json_text

if TYPE_CHECKING:
    from tzk_core.config import Config
    from tzk_core.data.reading import Read
    from tzk_core.evaluation.evidence import Evidence
    from tzk_core.evaluation.novelty import Verdicts

FORMAT = 1


@click.command(name="score")
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("path", metavar="FILE_OR_FOLDER", type=click.Path(path_type=Path))
@click.option("--knowledge", multiple=True, metavar="NAME", help="Of these knowledge types only; by default of all.")
@click.option("--like", metavar="DATASET", help="Read images as this data set of the run; needed where several differ.")
@click.option(
    "--statistic",
    metavar="NAME",
    help="What is compared with the threshold: best (the default), ratio, mixture, presence, joint, likelihood, "
    "typicality or complexity; `tzk ood` says of each what it is.",
)
@click.option(
    "--false-alarms",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.05,
    show_default=True,
    help="The share of the run's validation images that the threshold wrongly calls none of them.",
)
@click.option("--threshold", type=float, help="A threshold of your own; the run's data are not needed then.")
@validation_option
@importance_samples_option
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Same seed, same scores.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@click.option("--csv", "table", type=click.Path(path_type=Path, dir_okay=False), help="Write one line an image there.")
def command(
    *,
    run: Path,
    path: Path,
    knowledge: tuple[str, ...],
    like: str | None,
    statistic: str | None,
    false_alarms: float,
    threshold: float | None,
    validation: int,
    importance_samples: int | None,
    seed: int,
    as_json: bool,
    table: Path | None,
) -> None:
    """Score images: how likely each is, and which knowledge type it shows best, or none.

    FILE_OR_FOLDER is an image, a folder of images, which are looked for in its subfolders too, or an npz file with
    an array T of shape (n, *shape): uint8 grey levels, or floating point in [0, 1] with its noise in it. Images are
    padded, resized or inverted as the data sets of the run do it. Grey levels get uniform noise that derives from
    --seed and the image alone, so that an image has one score whatever is scored beside it.

    An image is none of them if its statistic lies below a threshold, chosen so that --false-alarms is the share of
    validation images with knowledge that do; the run folder keeps what that takes. Files of a folder that cannot be
    read are listed, and the exit status is then 1.
    """
    folder = RunFolder.open(run)
    if threshold is not None and not math.isfinite(threshold):
        raise TzkError(f"--threshold is expected to be a finite number; got {threshold}")
    if table is not None and not table.parent.is_dir():
        raise TzkError(f"{table} cannot be written: there is no folder {table.parent}")

    report = _report(
        folder,
        path,
        knowledge=knowledge,
        like=like,
        statistic=statistic,
        false_alarms=false_alarms,
        threshold=threshold,
        validation=validation,
        importance_samples=importance_samples,
        seed=seed,
    )
    if table is not None:
        _write(table, report["images"])
    output.say(json_text(report) if as_json else _text(report))
    for entry in report["unreadable"]:
        output.error(entry["reason"])
    if report["unreadable"]:
        click.get_current_context().exit(1)


def _report(
    folder: RunFolder,
    path: Path,
    *,
    knowledge: Sequence[str],
    like: str | None,
    statistic: str | None,
    false_alarms: float,
    threshold: float | None,
    validation: int,
    importance_samples: int | None,
    seed: int,
) -> dict[str, Any]:
    """What `--json` prints."""
    import tzk_core  # not needed to say what the command takes
    from tzk_core.config import load_run_config
    from tzk_core.evaluation.evidence import dequantised, evidence
    from tzk_core.evaluation.novelty import Novelty, usable
    from tzk_core.runs.calibration import calibration
    from tzk_core.runs.opened import usable_config
    from tzk_core.runs.tables import chosen_device

    config, notes = usable_config(folder.path) if threshold is None else (load_run_config(folder.config), [])
    for note in notes:
        output.warning(note)
    model = tzk_core.load(folder.path).to(chosen_device(config.device))
    read, levels = _read(path, config, model.shape, like=like, needs_data=threshold is None)
    for knowledge_type in model.opaque.values():
        output.warning(f"not scored: {knowledge_type.reason}")
    samples = importance_samples or config.evaluation.importance_samples
    names = tuple(dict.fromkeys(knowledge)) or tuple(name for name, _ in model.named_knowledge())
    for name in names:
        model.find(name)
    statistic = usable(statistic, names)
    scored = evidence(
        model, dequantised(read.T, levels, seed), names, importance_samples=samples, seed=seed, levels=levels
    )
    if threshold is None:
        calibrated = calibration(folder.path, config, importance_samples=samples, seed=seed, limit=validation)
        novelty = Novelty.from_validation(
            model, names, calibrated.inside(names), false_alarms=false_alarms, statistic=statistic
        )
    else:
        novelty = Novelty.from_threshold(model, names, threshold, statistic=statistic)
    return {
        "format": FORMAT,
        "run": str(folder.path),
        "knowledge": list(names),
        "importance_samples": samples,
        "seed": seed,
        **novelty.to_json(),
        "images": _images(read, scored, novelty.verdicts(scored), levels=levels),
        "unreadable": [{"file": str(file), "reason": reason} for file, reason in read.unreadable.items()],
    }


def _read(
    path: Path, config: Config, shape: tuple[int, ...], *, like: str | None, needs_data: bool
) -> tuple[Read, int | None]:
    """The images, read as the data sets of the run are, and their grey levels."""
    from tzk_core.data.protocol import Unread
    from tzk_core.data.reading import read_all
    from tzk_core.runs.tables import datasets_of, readers_of

    datasets = datasets_of(config) if needs_data else readers_of(config, shape)
    read = read_all(path, datasets, like)
    first = next(iter(datasets.values()))
    if isinstance(first, Unread) and read.T.is_floating_point():
        return read, None  # the data that would tell are gone: what has no grey levels is taken for real-valued
    return read, first.levels


def _images(read: Read, scored: Evidence, verdicts: Verdicts, *, levels: int | None) -> list[dict[str, Any]]:
    """One entry for each image, in their order; None for what is not finite."""
    from tzk_core.units import bits_per_dim  # imports torch

    dims = read.T[0].numel()
    bits = bits_per_dim(scored.log_prob.double(), dims, levels).tolist()
    best = scored.log_ratio.argmax(1).tolist() if scored.knowledge else [None] * len(scored)
    ratios, presences = scored.log_ratio.tolist(), scored.log_presence.exp().tolist()
    images = []
    for i, column in enumerate(best):
        none = bool(verdicts.none[i])
        entry = {
            "file": str(read.files[i]),
            "row": read.rows[i],
            "log_prob": _number(scored.log_prob[i].item()),
            "bits_per_dim": _number(bits[i]),
            "none": none,
            "knowledge": None if column is None or none else scored.knowledge[column],
            "best": None if column is None else scored.knowledge[column],
            "log_ratio": None if column is None else _number(ratios[i][column]),
            "presence": None if column is None else _number(presences[i][column]),
            "statistic": _number(verdicts.values[i].item()),
            "p_value": None if verdicts.p_value is None else verdicts.p_value[i].item(),
            "each": {
                name: {"log_ratio": _number(ratios[i][j]), "presence": _number(presences[i][j])}
                for j, name in enumerate(scored.knowledge)
            },
        }
        images.append(entry)
    return images


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _write(file: Path, images: list[dict[str, Any]]) -> None:
    """Write one line for each image, with the best knowledge type alone."""
    fields = [key for key in images[0] if key != "each"]
    try:
        with file.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, fields, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(images)
    except OSError as error:
        raise TzkError(f"{file} cannot be written: {error.strerror}") from None


def _text(report: dict[str, Any]) -> str:
    """A table for people, and below it what "none of them" means."""
    statistic, limit = report["statistic"], report["threshold"]
    header = ["file", "bits/dim", "log p(T)", "knowledge", "log ratio", "p(κ=1)", statistic["name"], "p-value"]
    cells = []
    for image in report["images"]:
        row = "" if image["row"] is None else f"[{image['row']}]"
        best = image["best"] or "-"
        none = "out of distribution" if image["best"] is None else f"none of them ({best})"
        cells.append(
            [
                image["file"] + row,
                _decimals(image["bits_per_dim"], 3),
                _decimals(image["log_prob"], 1),
                none if image["none"] else best,
                _decimals(image["log_ratio"], 1),
                _decimals(image["presence"], 3),
                _decimals(image["statistic"], 3),
                _decimals(image["p_value"], 4),
            ]
        )
    summary = f"None of them: {statistic['name']}, {statistic['meaning']}, below {limit['value']:.6g}"
    if limit["false_alarms"] is not None:
        counts = ", ".join(f"{output.count(number)} of {name}" for name, number in limit["validation"].items())
        summary += f", as {100 * limit['false_alarms']:g} % of the validation images are ({counts})"
    number = sum(image["none"] for image in report["images"])
    summary += f".\n{output.count(number)} of {output.count(len(report['images']), 'image')} are none of them."
    return output.columns(header, cells) + "\n\n" + summary


def _decimals(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
