"""`tzk add RUN SPEC`: add knowledge to a trained model, as a new run folder."""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tzk_core.cli import interrupts, output, ranks
from tzk_core.errors import TzkError
from tzk_core.runs.folder import RunFolder, already_there, fresh_path
from tzk_core.runs.lineage import extended, new_folder
from tzk_core.storage.places import checkpoint_in

if TYPE_CHECKING:
    from tzk_core.config import AdditionSpec, Base
    from tzk_core.runs.addition import AdditionRun
    from tzk_core.training.observers import Progress
    from tzk_core.world import World


@click.command(name="add")
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("spec", type=click.Path(path_type=Path))
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--out", type=click.Path(path_type=Path), help="The new run folder; default runs/NAME-YYYYMMDD-HHMMSS.")
@click.option("--observe", multiple=True, metavar="NAME", help="Watch with this observer too, as [[observers]] has it.")
@output.amount_options
@click.pass_context
def command(
    ctx: click.Context,
    *,
    run: Path,
    spec: Path,
    overrides: tuple[str, ...],
    out: Path | None,
    observe: tuple[str, ...],
    quiet: bool,
    verbose: bool,
) -> None:
    """Add the knowledge types of SPEC to the trained model of RUN.

    The result is a new run folder; RUN stays as it is. SPEC has [[datasets]], [[knowledge]], [training] and
    [evaluation] as a config has; data sets and knowledge of RUN may be named in it. Only what is new is trained. At the
    end everything older is compared, before and after, bit for bit, and a difference is an error. What fails, or is
    interrupted, leaves nothing.
    """
    parent = RunFolder.open(run)
    if not parent.has_model:
        raise TzkError(f"{run} holds no trained model: expected a checkpoint in it, as `tzk run` leaves one")
    words = ["add", str(run), str(spec), *overrides, *(["--out", str(out)] if out else [])]
    words += [word for name in observe for word in ("--observe", name)]
    with ranks.taking_part() as world, output.amount(quiet=quiet, verbose=verbose):
        base, addition = _read(parent, spec, overrides, observe=observe)
        path = ranks.launched() or out or fresh_path(addition.name)
        if world.first and path.exists():
            raise TzkError(already_there(path))
        as_it_was = f"{run} is as it was, and nothing else is left"
        if ranks.launches(addition.training.processes):
            ctx.exit(ranks.launch(words, addition.training.processes, path, advice=as_it_was))
        try:
            if world.first:
                _add(parent, base, addition, path=path, typed=shlex.join(["tzk", *words]), world=world)
            else:
                _follow(parent, base, addition, world=world)
        except KeyboardInterrupt as interrupt:
            output.say(f"\n{interrupts.worded(interrupt)}; {as_it_was}")
            if getattr(interrupt, "together", False):
                world.wait()  # a launcher ends all soon after one
            ctx.exit(interrupts.status(interrupt))


def _read(
    parent: RunFolder, spec: Path, overrides: Sequence[str], *, observe: Sequence[str]
) -> tuple[Base, AdditionSpec]:
    from tzk_core.config import Base, load_addition, load_run_config  # these import pydantic, or torch
    from tzk_core.storage.stored import manifest_of

    names = tuple(manifest_of(checkpoint_in(parent.path))["knowledge"])
    base = Base(load_run_config(parent.config), names)
    return base, load_addition(spec, base, overrides, observe=observe)


def _follow(parent: RunFolder, base: Base, addition: AdditionSpec, *, world: World) -> None:
    """Train and evaluate with the first of several processes."""
    from tzk_core.modes import flushing_denormals  # these import torch
    from tzk_core.runs.addition import AdditionRun

    adding = AdditionRun(addition, base, checkpoint_in(parent.path))
    with flushing_denormals():
        with interrupts.deferred() as check:
            adding.train(progress=lambda progress: check(world.largest), world=world)
        adding.experiment.evaluation.take_part("test", world)


def _add(parent: RunFolder, base: Base, addition: AdditionSpec, *, path: Path, typed: str, world: World) -> None:
    """Train, evaluate, draw and compare, in a folder that is named when complete."""
    from tzk_core.cli import before_after, progress
    from tzk_core.cli.ending import say_end
    from tzk_core.config.merging import merged
    from tzk_core.modes import flushing_denormals
    from tzk_core.report import pictures, table
    from tzk_core.runs.addition import AdditionRun  # as above; pictures need matplotlib
    from tzk_core.runs.observing import observers_of, report_end
    from tzk_core.runs.record import begin_session, new_record, timed
    from tzk_core.runs.reporting import has_reports, write_reports
    from tzk_core.storage.knowledge_files import extend_checkpoint
    from tzk_core.storage.manifest import read_manifest
    from tzk_core.training.guarded import outcome

    began = time.monotonic()
    adding = AdditionRun(addition, base, checkpoint_in(parent.path))
    observers = observers_of(addition)
    output.say(_plan(adding, parent, path))
    with flushing_denormals(), outcome(observers), new_folder(path) as folder:
        config = merged(base.config, addition)
        record = new_record(config, str(adding.experiment.device), typed)
        record["seed"] = addition.seed
        begin_session(record, typed, processes=world.size)
        record["timings"]["setup_seconds"] = round(time.monotonic() - began, 3)
        with timed(record, "training"), progress.shown(progress.gains) as shown, interrupts.deferred() as check:

            def after_step(_: Progress) -> None:
                check(world.largest)

            adding.train(folder.path, after_step, observers=[*observers, *shown], world=world)
        new = {name: adding.model.find(name) for name in adding.names}
        extend_checkpoint(checkpoint_in(parent.path), folder.path / "checkpoint", new)
        folder.write(folder.config, config.to_toml())
        folder.write(folder.path / "addition.toml", addition.to_toml())
        with timed(record, "evaluation"):
            output.say("evaluating on test data")
            results = adding.evaluate(world)
            folder.write_json(folder.results, results)
            folder.write(folder.table, table.markdown(results, typed))
        output.say(_reached(results))
        with timed(record, "pictures"):
            pictures.draw(adding.experiment, folder.path, results)
            folder.write(folder.table, table.markdown(results, typed, pictures.pictures_in(folder.path)))
        with timed(record, "comparison"):
            compared = before_after.compare(parent.path, folder.path, adding.probes(), seed=addition.seed)
            folder.write_json(folder.path / "before-after.json", compared.to_json())
        core = read_manifest(folder.path / "checkpoint")["core"]["hash"]
        record["lineage"] = extended(parent, "add", adding.names, core=core, command=typed)
        record["status"] = "finished"
        folder.write_json(folder.record, record)
    report_end(observers, path, results, step=addition.training.steps, best_step=addition.training.steps)
    output.say(f"before and after, from {parent.path} and {path}:\n{compared.text()}")
    whole = adding.whole(path) if has_reports() else None
    say_end(RunFolder(path), results, write_reports(path, whole))


def _plan(adding: AdditionRun, parent: RunFolder, path: Path) -> str:
    """The plan: what is frozen, what is trained and on what."""
    model, training = adding.model, adding.addition.training
    described = adding.experiment.describe()
    sizes = dict(described["parameters"])
    flow = sizes.pop("flow")
    older = sum(p.numel() for _, knowledge in model.named_knowledge() for p in knowledge.parameters())
    rows = [("device", described["device"])]
    rows += [
        ("data", f"{name}: {', '.join(f'{output.count(n)} {split}' for split, n in splits.items())}")
        for name, splits in described["data"].items()
    ]
    rows.append(("frozen", f"shared flow: {output.count(flow, 'parameter')}"))
    rows.append(
        ("frozen", f"{output.count(len(model.knowledge), 'knowledge type')}: {output.count(older, 'parameter')}")
    )
    if model.opaque:
        carried = output.count(len(model.opaque), "knowledge type")
        rows.append(("carried over", f"{carried} that cannot be used here: {', '.join(model.opaque)}"))
    shown = list(sizes.items())[:SHOWN]
    rows += [("trained", f"{name}: {output.count(size, 'parameter')}") for name, size in shown]
    if len(sizes) > SHOWN:
        rest = list(sizes.values())[SHOWN:]
        others = output.count(len(rest), "more knowledge type")
        rows.append(("trained", f"{others}: {output.count(sum(rest), 'parameter')}"))
    if training.own_samples:
        rows.append(("told from", f"{output.count(training.own_samples)} samples of the model's own"))
    cap = f", at most {training.minutes:g} minutes" if training.minutes else ""
    rows.append(("training", f"{output.count(training.steps, 'step')} of {training.batch_size}{cap}"))
    rows.append(("run folder", str(path)))
    rows += [("note", note) for note in described["notes"]]
    return f"{adding.addition.name}, added to {parent.path}\n{output.fields(rows)}"


SHOWN = 6
"""The plan lists at most so many new knowledge types, and counts the others."""


def _reached(results: dict[str, Any]) -> str:
    """Likelihoods of the new knowledge, with gap to the prior and inconsistency, in nats."""
    gaps = {entry["name"]: entry["gap_nats"] for entry in results["knowledge"]}
    rows = [
        (
            row["dataset"],
            row["name"],
            f"{row['bits_per_dim']:.3f}",
            "" if row["kind"] == "prior" else _nats(gaps.get(row["knowledge"])),
            _nats(row["inconsistency_nats"]),
        )
        for row in results["rows"]
        if row["kind"] in ("prior", "knowledge")
    ]
    return output.columns(("DATA SET", "MODEL", "BITS/DIM", "NATS OVER PRIOR", "INCONSISTENCY"), rows)


def _nats(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"
