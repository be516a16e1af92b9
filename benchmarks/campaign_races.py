"""Races: replacing a run, reading it, and two writers at once.

Each is in processes of its own.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from campaign_kills import OPERATIONS
from campaign_world import (
    LONGER,
    LOST,
    SILENT,
    Ending,
    Tries,
    Works,
    World,
    be_patient,
    ended,
    figures,
    finish,
    in_children,
    start,
    tzk,
    weights,
)
from campaign_world import log as log_of

import tzk_core
from tzk_core import TzK, build_flow, build_knowledge
from tzk_core.storage.checkpoint import save_checkpoint
from tzk_core.storage.stored import read_stored

TURNS = 100
"""So many turns of readers have one writer."""

LATEST = 0.002
"""Seconds that a process waits at most at an operation on a file, so that others come in between, on one core too."""


def races(world: World, source: random.Random) -> Tries:
    """One try is one turn of a reader, or two writers at once."""
    models, race, run = _models(world), world.folder / "race", world.folder / "race-run"
    whole = ("a model while it is replaced", partial(_whole, race))
    reading = (("eval", run), ("knowledge", "list", run), ("sample", run, "-n", "4"))
    commands = [(f"{words[0]} while knowledge is imported and removed", _command(words)) for words in reading]
    while True:
        with _writing(partial(_replace, race / "checkpoint", models)) as writer:
            yield from _turns(writer, [whole] * TURNS)
        world.copy(run.name)
        with _writing(partial(_change, world, run)) as writer:
            yield from _turns(writer, commands * (TURNS // 10))
        yield "two that resume one run", _two(world)


def _models(world: World) -> list[TzK]:
    """Two models to tell apart; the first is on the disk."""
    models = []
    for seed in (0, 1):
        model = TzK(build_flow((2,), layers=[{"type": "lu-linear", "identity_init": False}], seed=seed))
        model.add("a", build_knowledge("gaussian", (2,), seed, hidden=2, layers=2))
        models.append(model)
    save_checkpoint(models[0], world.folder / "race" / "checkpoint", {"step": 0})
    return models


@contextmanager
def _writing(work: Callable[[], str]) -> Iterator[Callable[[], Ending | None]]:
    """Within the block a child writes.

    The function yielded gives its ending once it has one.
    """
    child, pipe = start(partial(ended, partial(_hesitant, work)))
    endings: list[Ending] = []

    def ending() -> Ending | None:
        if not endings and os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            endings.extend(finish(child, pipe))
        return endings[-1] if endings else None

    try:
        yield ending
    finally:
        if not ending():
            os.kill(child, signal.SIGKILL)
            finish(child, pipe)


def _hesitant(work: Callable[[], str]) -> str:
    """Work that waits a little at operations on files."""
    source = random.Random(os.getpid())

    def wait(event: str, arguments: tuple[Any, ...]) -> None:
        if event in OPERATIONS or event == "open":
            time.sleep(source.choice([0, 0, 0, LATEST * source.random()]))

    sys.addaudithook(wait)
    return work()


def _replace(place: Path, models: list[TzK]) -> str:
    for step in count(1):
        be_patient()  # it goes on for as long as it is read
        save_checkpoint(models[step % 2], place, {"step": step})
    return ""


def _change(world: World, run: Path) -> str:
    while True:
        be_patient()
        tzk("knowledge", "import", run, world.export, "--as", "new")
        tzk("knowledge", "remove", run, "new")


def _turns(writer: Callable[[], Ending | None], works: Works) -> Tries:
    """Turns of readers, which are never refused, beside a writer that goes on."""
    for what, ending in in_children(works):
        stopped = writer()
        if stopped is not None:
            yield what, Ending(LOST, f"the writer ended: {stopped.message}")
            return
        yield what, Ending(LOST, ending.message) if ending.refused else ending


def _whole(folder: Path) -> str:
    stored = read_stored(folder / "checkpoint", trainer=True)
    same = stored.trainer()["step"] == stored.step
    return "" if same and tzk_core.load(folder).knowledge else SILENT


def _command(words: tuple[object, ...]) -> Callable[[], str]:
    if words[0] == "sample":
        words = (*words, "-o", f"{words[1]}-{os.getpid()}.npz")
    return lambda: tzk(*words) or ""


def _two(world: World) -> Ending:
    """Two processes resume one run.

    One does; the other one is refused, or comes when nothing is left to do.
    """
    run = world.copy("victim")

    def resume() -> str:
        tzk("run", run, "--resume", LONGER)
        return ""

    children = [start(partial(ended, partial(_hesitant, resume))) for _ in range(2)]
    for ending in [finish(*child)[-1] for child in children]:
        if ending.fault:
            return ending
        if ending.refused and "another command is writing" not in ending.message:
            return Ending(LOST, ending.message)
    same = weights(run) == weights(world.longer) and log_of(run) == log_of(world.longer)
    return Ending("" if same and figures(run) == figures(world.longer) else LOST)
