"""`tzk run CONFIG`: train and evaluate a config, and leave a run folder."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tzk_core.cli import interrupts, output, ranks
from tzk_core.cli.follow import Work, follow
from tzk_core.errors import TzkError
from tzk_core.runs.folder import RunFolder, already_there, fresh_path
from tzk_core.runs.lineage import new_folder
from tzk_core.storage.places import LAST
from tzk_core.world import ALONE, Lost, World

if TYPE_CHECKING:
    from tzk_core.config import Config
    from tzk_core.runs.experiment import Experiment
    from tzk_core.runs.resume import Change
    from tzk_core.training.observers import Observer, Progress


@click.command(name="run")
@click.argument("config", type=click.Path(path_type=Path))
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--out", type=click.Path(path_type=Path), help="The run folder; default runs/NAME-YYYYMMDD-HHMMSS.")
@click.option("--resume", is_flag=True, help="Go on with the run in --out, or in CONFIG if that is a run folder.")
@click.option("--processes", type=click.IntRange(min=1), metavar="N", help="Train in so many processes here.")
@click.option("--observe", multiple=True, metavar="NAME", help="Watch with this observer too, as [[observers]] has it.")
@click.option("--dry-run", is_flag=True, help="Check everything, load the data, print the plan and stop.")
@output.amount_options
@click.pass_context
def command(
    ctx: click.Context,
    *,
    config: Path,
    overrides: tuple[str, ...],
    out: Path | None,
    resume: bool,
    processes: int | None,
    observe: tuple[str, ...],
    dry_run: bool,
    quiet: bool,
    verbose: bool,
) -> None:
    """Train a config, evaluate it on test data and leave a run folder.

    KEY=VALUE overrides one value, as in `training.steps=100` or `datasets.mnist.size=32`. An existing folder
    is never overwritten. Ctrl-C, SIGTERM and SIGHUP write a checkpoint, from which --resume goes on as if nothing
    had happened. It may go on with other learning rates, clip, minutes, patience, and more steps; run.json says which.

    --processes N is training.processes=N. Started by torchrun, it takes part in its processes, on one machine or more.
    """
    if processes is not None:
        overrides = (*overrides, f"training.processes={processes}")
    with ranks.taking_part() as world, ExitStack() as held, output.amount(quiet=quiet, verbose=verbose):
        resume = resume or ranks.goes_on(out)
        asked = _Asked(config, overrides, out=out, resume=resume, observe=observe, dry_run=dry_run)
        try:
            status = _new_or_resumed(asked, world, held) if world.first else follow(world)
        except KeyboardInterrupt as interrupt:
            status = interrupts.status(interrupt)
            output.result(
                f"\n{interrupts.worded(interrupt)} before training; nothing was lost"
                f"{'' if resume else ' and nothing is left'}"
            )
    ctx.exit(status)


@dataclass(frozen=True)
class _Asked:
    """The arguments of the command."""

    config: Path
    overrides: tuple[str, ...]
    _: KW_ONLY
    out: Path | None
    resume: bool
    observe: tuple[str, ...]
    dry_run: bool

    @property
    def words(self) -> list[str]:
        """The arguments of `tzk`."""
        words = ["run", str(self.config), *self.overrides]
        words += ["--out", str(self.out)] if self.out else []
        words += ["--resume"] if self.resume else []
        return [*words, *(word for name in self.observe for word in ("--observe", name))]

    @property
    def typed(self) -> str:
        """The command as it can be typed again."""
        return shlex.join(["tzk", *self.words])


def _new_or_resumed(asked: _Asked, world: World, held: ExitStack) -> int:
    """Run a config, or resume a run, and return the exit status.

    `held` keeps others from writing to the run.

    Of several processes this is the first, which tells the others what is to be done.
    """
    changed: tuple[Change, ...] = ()
    if asked.resume:
        path = _to_resume(asked.config, asked.out).path
        folder, checked, changed = _opened(asked, path)
        if folder.finished and not any(change.longer for change in changed):
            output.say(
                f"{folder.path} is finished: there is nothing to resume; its results are in {folder.table}. "
                "A larger training.steps, minutes or patience would go on"
            )
            world.of_first(None)
            if not asked.dry_run:
                _tidy(path)
            return 0
        if not asked.dry_run and not ranks.launches(checked.training.processes):
            _hold(path, held)
            folder, checked, changed = _opened(asked, path)  # another may have written it meanwhile
    else:
        folder, checked = _planned(asked)
    if ranks.launches(checked.training.processes) and not asked.dry_run:
        return ranks.launch(asked.words, checked.training.processes, folder.path, advice=_going_on(folder.path))
    return _run(folder, checked, asked, world=world, changed=changed, held=held)


def _tidy(path: Path) -> None:
    """Remove what a kill left half written in a finished run, such as a report."""
    from tzk_core.storage.atomic import is_temporary
    from tzk_core.storage.locks import writing  # filelock

    if any(is_temporary(file) for file in path.rglob("*")):
        with suppress(TzkError, OSError), writing(path):  # another may be writing, or the folder be for reading alone
            pass


def _hold(path: Path, held: ExitStack) -> None:
    from tzk_core.storage.locks import writing  # filelock

    held.enter_context(writing(path))


def _planned(asked: _Asked) -> tuple[RunFolder, Config]:
    """The folder that a new run will have, and its config."""
    config = asked.config
    from tzk_core.config import load_config  # pydantic, which the other commands do without

    if config.is_dir() and not (config / "config.toml").is_file():
        raise TzkError(f"{config} is a folder without a config.toml: expected the TOML file of a config, or a run")
    if config.is_dir():
        raise TzkError(
            f"{config} is a folder: to go on with the run in it, tzk run {config} --resume; for a new run "
            f"with the same config, tzk run {config / 'config.toml'}"
        )
    checked = load_config(config, asked.overrides, observe=asked.observe)
    path = ranks.launched() or asked.out or fresh_path(checked.name)
    if path.exists():
        raise TzkError(already_there(path))
    output.detail(f"config: {config}, with {', '.join(asked.overrides) or 'no overrides'}")
    return RunFolder(path), checked


def _to_resume(config: Path, out: Path | None) -> RunFolder:
    """The folder of the run to go on with."""
    if out is None and config.name == "config.toml" and RunFolder(config.parent).record.is_file():
        return RunFolder.open(config.parent)
    if out is None and not config.is_dir():
        raise TzkError(f"which run to --resume: tzk run RUN --resume, or tzk run {config} --resume --out RUN")
    return RunFolder.open(out or config)


def _opened(asked: _Asked, path: Path) -> tuple[RunFolder, Config, tuple[Change, ...]]:
    """The folder of the run to resume, its config, and what has changed in that.

    The last session's config is in run.json, so that edits of the folder's config.toml are noticed as well.
    """
    from tzk_core.config import config_from, load_config
    from tzk_core.runs.resume import changes  # as above

    folder = RunFolder.open(path)
    tables = folder.read_record().get("config")
    written = str(folder.record)
    stored = config_from(tables, written, finished=True) if tables else load_config(folder.config, finished=True)
    file = folder.config if asked.config.is_dir() else asked.config
    checked = load_config(file, asked.overrides, observe=asked.observe)
    return folder, checked, changes(stored, checked, folder.path)


def _run(
    folder: RunFolder,
    config: Config,
    asked: _Asked,
    *,
    world: World,
    changed: Sequence[Change],
    held: ExitStack,
) -> int:
    """Build, train, evaluate and draw; the exit status."""
    from tzk_core.cli.plan import plan  # these import pydantic, or torch
    from tzk_core.modes import flushing_denormals
    from tzk_core.runs.experiment import Experiment
    from tzk_core.runs.observing import observers_of
    from tzk_core.runs.record import add_seconds, begin_session, new_record, record_validation
    from tzk_core.training.guarded import outcome

    began = time.monotonic()
    observers = observers_of(config)
    experiment = Experiment(config, world=ALONE if asked.resume else world)
    described = experiment.describe()
    output.say(plan(config, described, folder.path))
    if asked.dry_run:
        world.of_first(None)
        return 0
    record = (folder.read_record() if asked.resume else {}) or new_record(config, described["device"], asked.typed)
    if asked.resume:
        _note_resume(folder, record, changed, typed=asked.typed)
    record.setdefault("command", asked.typed)  # a damaged record may lack it
    record |= {"config": config.to_tables(), "observations": described["observations"]}
    record_validation(record, config.training.validate_every, described["validation"])
    begin_session(record, asked.typed, processes=world.size)
    add_seconds(record, "setup", time.monotonic() - began)
    if asked.resume:
        _write_start(folder, config, record)
    else:  # whole or not at all, so that a kill leaves nothing or what can be resumed
        with new_folder(folder.path) as fresh:
            _write_start(fresh, config, record)
        _hold(folder.path, held)
    going_on = asked.resume and folder.has_checkpoint
    world.of_first(Work(config, going_on, whole=asked.resume))
    try:
        with _outcome(folder, record, config), outcome(observers), flushing_denormals():
            _train_and_report(experiment, folder, record, world=world, resume=going_on, observers=observers)
    except KeyboardInterrupt as interrupt:
        output.result(
            f"\n{interrupts.worded(interrupt)}; what was reached is in {folder.path}. To go on:\n"
            f"  {_resuming(folder.path)}"
        )
        if getattr(interrupt, "together", False):
            world.wait()
        return interrupts.status(interrupt)
    try:
        _say_end(experiment, folder, record)
    except KeyboardInterrupt as interrupt:
        output.result(f"\n{interrupts.worded(interrupt)}; the run in {folder.path} is complete, but for a report")
        return interrupts.status(interrupt)
    return 0


def _say_end(experiment: Experiment, folder: RunFolder, record: dict[str, Any]) -> None:
    """Write the reports, and say how good the run is and where they are."""
    from tzk_core.cli.ending import say_end
    from tzk_core.runs.record import add_seconds
    from tzk_core.runs.reporting import write_reports

    began = time.monotonic()
    if reports := write_reports(folder.path, experiment):
        add_seconds(record, "reports", time.monotonic() - began)
        folder.write_json(folder.record, record)
    seconds = ", ".join(f"{part.removesuffix('_seconds')} {value:.1f} s" for part, value in record["timings"].items())
    output.detail(f"time: {seconds}")
    say_end(folder, json.loads(folder.results.read_text(encoding="utf-8")), reports)


def _write_start(folder: RunFolder, config: Config, record: dict[str, Any]) -> None:
    folder.write(folder.config, config.to_toml())
    folder.write_json(folder.record, record)


def _note_resume(folder: RunFolder, record: dict[str, Any], changed: Sequence[Change], *, typed: str) -> None:
    """Report the step that the run resumes from and what has changed; record both."""
    from tzk_core.runs.record import now
    from tzk_core.runs.resume import described, entry
    from tzk_core.storage.stored import step_of

    step = step_of(folder.path / LAST)
    output.say(described(step, changed))
    record.setdefault("resumes", []).append(entry(step, changed, command=typed, date=now()))


@contextmanager
def _outcome(folder: RunFolder, record: dict[str, Any], config: Config) -> Iterator[None]:
    """Write into the record how the block ended.

    The error of a divergence gets the command that resumes the run.
    """
    from tzk_core.runs.record import record_divergence
    from tzk_core.training.soundness import Diverged  # torch

    try:
        yield
        record["status"] = "finished"
    except KeyboardInterrupt:
        record["status"] = "interrupted"
        raise
    except Diverged as error:
        record_divergence(record, error.step, error.reason, back=error.back, best=error.best)
        if error.back is None:
            raise
        lower = f"training.learning_rate={config.training.learning_rate / 10:g}"
        raise TzkError(f"{error}. To go on with a tenth of the rate:\n  {_resuming(folder.path, lower)}") from error
    except Lost as error:
        record["status"] = "failed"
        raise TzkError(f"{error}. {_going_on(folder.path)}") from error
    except BaseException:
        record["status"] = "failed"
        raise
    finally:
        folder.write_json(folder.record, record)


def _train_and_report(
    experiment: Experiment,
    folder: RunFolder,
    record: dict[str, Any],
    *,
    world: World,
    resume: bool,
    observers: Sequence[Observer],
) -> None:
    from tzk_core.cli import progress  # pictures need matplotlib
    from tzk_core.report import pictures, table
    from tzk_core.runs.observing import report_end
    from tzk_core.runs.record import record_compilation, timed

    with timed(record, "training"), progress.shown() as shown, interrupts.deferred() as check:

        def after_step(_: Progress) -> None:
            check(world.largest)

        watching = [*observers, *shown]
        try:
            experiment.train(folder.path, resume=resume, progress=after_step, observers=watching, world=world)
        except Lost:
            interrupts.ignore()  # of the launcher, which ends all
            raise
        finally:
            record_compilation(record, experiment.compiled)
        record |= {"trained_steps": experiment.last_step, "evaluated_step": experiment.step}
        check()
    with timed(record, "evaluation"):
        output.say("evaluating on test data")
        results = experiment.evaluate("test", world=world)
        folder.write_json(folder.results, results)
        folder.write(folder.table, table.markdown(results, record["command"]))
    for row in results["rows"]:
        if row["kind"] == "prior":
            output.say(f"  {row['dataset']}, {row['name']}: {row['bits_per_dim']:.3f} bits/dim")
    with timed(record, "pictures"):
        pictures.draw(experiment, folder.path, results)
        folder.write(folder.table, table.markdown(results, record["command"], pictures.pictures_in(folder.path)))
    report_end(observers, folder.path, results, step=experiment.last_step or 0, best_step=experiment.step or 0)


def _going_on(path: Path) -> str:
    return f"To go on from the last checkpoint:\n  {_resuming(path)}"


def _resuming(path: Path, *overrides: str) -> str:
    return shlex.join(["tzk", "run", str(path), "--resume", *overrides])
