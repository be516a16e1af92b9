"""`tzk score RUN FILE_OR_FOLDER`: likelihoods of images, and the knowledge that they show."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tzk_core.cli import output, ranks
from tzk_core.errors import TzkError
from tzk_core.runs.folder import RunFolder
from tzk_plugin_outside.options import importance_samples_option, validation_option

if TYPE_CHECKING:
    from tzk_core.config import Config
    from tzk_core.model import TzK
    from tzk_core.world import World
    from tzk_plugin_outside.reading import Read
    from tzk_plugin_outside.scores import Scored


@click.command(name="score")
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("path", metavar="FILE_OR_FOLDER", type=click.Path(path_type=Path))
@click.option("--knowledge", multiple=True, metavar="NAME", help="Of these knowledge types only; by default of all.")
@click.option("--like", metavar="DATASET", help="Read images as this data set of the run; needed where several differ.")
@click.option(
    "--statistic",
    metavar="NAME",
    help="What is compared with the threshold: best (the default), ratio, mixture, presence, joint, likelihood, "
    "typicality, complexity or dose, which is fitted to the run's training images; `tzk ood` says of each what it is.",
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
@ranks.processes_option
@click.pass_context
def command(
    ctx: click.Context,
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
    processes: int | None,
) -> None:
    """Score images: how likely each is, and which knowledge type it shows best, or none.

    FILE_OR_FOLDER is an image, a folder of images, which are looked for in its subfolders too, or an npz file. An npz
    file has an array T of shape (n, *shape): uint8 grey levels, or floating point in [0, 1] with its noise in it.
    Images are padded, resized or inverted as the data sets of the run do it. Grey levels get uniform noise that derives
    from --seed and the image alone, so that an image has one score whatever is scored beside it.

    An image is none of them if its statistic lies below a threshold. The threshold is chosen so that --false-alarms is
    the share of validation images with knowledge that do; the run folder keeps what that takes. With --threshold
    neither the run's data nor the plugins that read them are needed, but for images that only these can convert. Files
    of a folder that cannot be read are listed, and the exit status is then 1.

    With --processes, or started by torchrun, each process scores a share, and the first writes all, in the order of
    the images. Nothing is written before all are scored.
    """
    folder = RunFolder.open(run)
    if threshold is not None and not math.isfinite(threshold):
        raise TzkError(f"--threshold is expected to be a finite number; got {threshold}")
    if table is not None and not table.parent.is_dir():
        raise TzkError(f"{table} cannot be written: there is no folder {table.parent}")

    with ranks.taking_part() as world:
        ranks.launched_again(ctx, folder.path, advice="Nothing was written")
        scored = _scored(
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
            world=world,
        )
        if world.first:  # no other may fail meanwhile: a launcher ends all once one has
            _write(scored, table, as_json=as_json)
            ctx.exit(1 if scored.unreadable else 0)


def _write(scored: Scored, table: Path | None, *, as_json: bool) -> None:
    if table is not None:
        scored.write_csv(table)
    for part in scored.json_parts() if as_json else scored.text_parts():
        output.say(part, nl=False)
    output.say("")
    for reason in scored.unreadable.values():
        output.error(reason)


def _scored(
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
    world: World,
) -> Scored:
    """The scores of all that `path` holds, which is read and scored batch by batch.

    Processes take batches in turn. The first has the scores of all, and all know what cannot be read.
    """
    from tzk_plugin_outside.calibration import calibration  # not needed to say what the command takes
    from tzk_plugin_outside.dose_of_run import dose_of_run
    from tzk_plugin_outside.evidence import Evidence, dequantised, evidence
    from tzk_plugin_outside.novelty import Novelty, usable
    from tzk_plugin_outside.reading import readers_of, source_of
    from tzk_plugin_outside.scores import Scored

    config, model = _opened(folder, needs_data=threshold is None)
    source = source_of(path, readers_of(config, model.shape, folder.read_record().get("observations")), like)
    source = replace(source, files=world.of_first(source.files))  # a folder may change meanwhile
    samples = importance_samples or config.evaluation.importance_samples
    settings: dict[str, Any] = {"importance_samples": samples, "seed": seed}
    names = _names(model, knowledge)
    statistic, levels = usable(statistic, names), source.levels

    batches = _begun(source.batches(world))  # what cannot be read is refused before a threshold is chosen
    dose = None
    if statistic == "dose" and threshold is None:
        dose = dose_of_run(folder.path, config, model, limit=validation, world=world)

    def evidence_of(number: int) -> tuple[Read, Evidence | None]:
        read = next(batches)
        if not len(read.T):
            return read, None
        T = dequantised(read.T, levels, seed)
        return read.without_T(), evidence(model, T, names, levels=levels, first=read.first, dose=dose, **settings)

    if threshold is None:
        chosen_on = calibration(folder.path, config, limit=validation, dose=dose, world=world, **settings)
        inside = chosen_on.inside(names)
        novelty = Novelty.from_validation(model, names, inside, false_alarms=false_alarms, statistic=statistic)
    else:
        novelty = Novelty.from_threshold(model, names, threshold, statistic=statistic)
    scored = Scored(str(folder.path), novelty, dims=math.prod(model.shape), levels=levels, settings=settings)
    for read, found in world.in_turn(source.count, evidence_of):
        scored.unreadable |= read.unreadable
        if found is not None and world.first:
            scored.add(read, found)
    source.check_some(scored.unreadable)
    return scored


def _names(model: TzK, knowledge: Sequence[str]) -> tuple[str, ...]:
    """Those asked for, or all. Raises `TzkError` for one that the model has not."""
    names = tuple(dict.fromkeys(knowledge)) or tuple(name for name, _ in model.named_knowledge())
    for name in names:
        model.find(name)
    return names


def _begun(batches: Iterator[Read]) -> Iterator[Read]:
    """The same, of which the first is read."""
    return itertools.chain(list(itertools.islice(batches, 1)), batches)


def _opened(folder: RunFolder, *, needs_data: bool) -> tuple[Config, TzK]:
    """The config of the run, and its model on the device that this names.

    Without data, parts of it need not be installed.
    """
    import tzk_core
    from tzk_core.config import load_run_config
    from tzk_core.runs.opened import usable_config
    from tzk_core.runs.tables import chosen_device

    config, notes = usable_config(folder.path) if needs_data else (load_run_config(folder.config), [])
    for note in notes:
        output.warning(note)
    model = tzk_core.load(folder.path).to(chosen_device(config.device))
    for knowledge_type in model.opaque.values():
        output.warning(f"not scored: {knowledge_type.reason}")
    return config, model
