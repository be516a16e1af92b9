"""Kills by SIGKILL in the place of every operation on files, and within every write.

They are of every command that writes.
"""

from __future__ import annotations

import os
import random
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from campaign_world import (
    LONGER,
    LOST,
    TOGETHER,
    Ending,
    Tries,
    World,
    contents,
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
from tzk_core.runs.folder import RunFolder
from tzk_core.runs.lineage import settled
from tzk_core.storage.atomic import is_temporary
from tzk_core.storage.knowledge_format import parse_export

OPERATIONS = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link", "os.symlink")
"""Audit events of operations that change what is on the disk; opening to write and fsync are added to them."""


class Kill:
    """An audit hook that kills this process in the place of an operation.

    It is the `moment`-th operation on files below a folder.

    torn: where the operation before it opened a file to write, half of what was written since is taken back, as if the
    kill had come within the write.
    """

    def __init__(self, moment: int | None, *, torn: bool, folder: Path) -> None:
        self.moment, self.torn, self.folder = moment, torn, str(folder)
        self.count = 0
        self.writing: tuple[str, int] | None = None
        self._idle = False

    def begin(self) -> None:
        """From now on, in this process, until its end."""
        os.fsync = lambda handle: self.pass_by("os.fsync", None)  # a kill loses nothing of what is not waited for
        sys.addaudithook(self)

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self._idle:
            return
        if event == "open":
            path, _, flags = arguments
            if isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR) and self._is_inside(path):
                self.pass_by(event, os.fspath(path))
        elif event in OPERATIONS and (self._is_inside(arguments[0]) or arguments[-1] not in (-1, None)):
            self.pass_by(event, None)

    def pass_by(self, event: str, opened: str | bytes | None) -> None:
        """Count an operation, or die in its place."""
        self._idle = True
        if self.count == self.moment:
            if self.torn and self.writing is not None and os.path.isfile(self.writing[0]):
                path, before = self.writing
                os.truncate(path, before + max(0, os.path.getsize(path) - before) // 2)
            os.kill(os.getpid(), signal.SIGKILL)
        self.count += 1
        opened = os.fsdecode(opened) if opened is not None else None
        self.writing = (opened, os.path.getsize(opened) if os.path.exists(opened) else 0) if opened else None
        self._idle = False

    def _is_inside(self, path: object) -> bool:
        return isinstance(path, str | bytes | os.PathLike) and os.fsdecode(os.fspath(path)).startswith(self.folder)


@dataclass(frozen=True)
class Place:
    """Where a command works: the run that it may change, and what it may make."""

    world: World
    run: Path
    out: Path

    def make(self) -> None:
        """Put a fresh copy of the run there, and nothing else."""
        self.world.clear(self.out.name)
        self.world.copy(self.run.name)


Words = Callable[[Place], tuple[object, ...]]
"""A command as it is typed."""


@dataclass(frozen=True)
class Command:
    """A command that writes.

    words: as they are typed. check: what a kill of it destroyed, or "".
    """

    words: Words
    check: Callable[[Place], str]


@dataclass(frozen=True)
class Moment:
    """A kill of a command.

    again: of a second one, of what puts things right after the first.
    """

    name: str
    at: int
    torn: bool
    again: int | None = None

    def __str__(self) -> str:
        once = f"{self.name} killed {'within the write before' if self.torn else 'at'} operation {self.at}"
        return once if self.again is None else f"{once}, and once more at {self.again}"


def kills(world: World, source: random.Random) -> Tries:
    """Kills at each operation of each command, before it and within it.

    Then again, what puts it right is killed as well.
    """
    moments = _moments(world, source)
    while True:
        killed = []
        for number, moment in enumerate(islice(moments, TOGETHER)):
            place = _place(world, moment.name, number)
            failed = _strike(moment, place)
            if failed:
                yield str(moment), failed
            else:
                killed.append((str(moment), partial(COMMANDS[moment.name].check, place)))
        for what, ending in in_children(killed):  # a refusal is a loss: whatever puts things right has to
            yield what, Ending(LOST, ending.message) if ending.refused else ending


def _moments(world: World, source: random.Random) -> Iterator[Moment]:
    counts = {name: int(_killed(name, None, torn=False, place=_place(world, name)).message) for name in COMMANDS}
    moments = [Moment(name, at, torn) for name in COMMANDS for at in range(counts[name]) for torn in (False, True)]
    source.shuffle(moments)
    yield from moments
    while True:
        moment = source.choice(moments)
        yield replace(moment, again=source.randrange(counts[moment.name]))


def _place(world: World, name: str, number: int = 0) -> Place:
    suffix = ".npz" if COMMANDS[name].words is _sample else ""
    return Place(world, world.folder / f"victim{number}", world.folder / f"out{number}{suffix}")


def _strike(moment: Moment, place: Place) -> Ending | None:
    """Kill a command, and perhaps what puts things right after it.

    Returns:
        None, or how it ended otherwise.
    """
    ending = _killed(moment.name, moment.at, torn=moment.torn, place=place)
    if ending.refused or not ending.message.endswith("SIGKILL"):
        return Ending(ending.fault or LOST, ending.message)
    if moment.again is not None:
        hook = Kill(moment.again, torn=moment.torn, folder=place.world.folder)
        finish(*start(lambda: _under(hook, lambda: COMMANDS[moment.name].check(place))))
    return None


def _killed(name: str, at: int | None, *, torn: bool, place: Place) -> Ending:
    """Run a command in a child until a kill.

    With `at` None it runs to its end, and the message counts its operations.
    """
    place.make()
    hook = Kill(at, torn=torn, folder=place.world.folder)
    return finish(*start(lambda: _under(hook, lambda: tzk(*COMMANDS[name].words(place)) or "")))[-1]


def _under(hook: Kill, work: Callable[[], str]) -> Ending:
    hook.begin()
    ending = ended(work)
    hook._idle = True
    return ending if ending.fault or ending.refused else Ending(message=str(hook.count))


def _unfinished(folder: Path) -> str:
    """LOST where something temporary is left in a folder that a command was through with."""
    return LOST if any(is_temporary(path) for path in folder.rglob("*")) else ""


def _is_like(run: Path, whole: Path) -> str:
    """LOST where a run differs by a letter from one without a kill."""
    same = weights(run) == weights(whole) and log_of(run) == log_of(whole) and RunFolder(run).finished
    same = same and (run / "results.json").read_bytes() == (whole / "results.json").read_bytes()
    return _unfinished(run) if same else LOST


def _after_run(place: Place) -> str:
    again = (place.out, "--resume") if place.out.exists() else (place.world.config, "--out", place.out)
    tzk("run", *again)
    return _is_like(place.out, place.world.run)


def _after_resume(place: Place) -> str:
    tzk("run", place.run, "--resume", LONGER)
    return _is_like(place.run, place.world.longer)


def _after_change(action: str, names: set[str], place: Place, *, words: Words) -> str:
    """Check the lineage, all other knowledge, and that the command can be given again."""
    folder = RunFolder(place.run)
    present = set(tzk_core.load(place.run).knowledge)
    lineage = settled(folder.read_record().get("lineage", []), folder)
    if present not in ({"moons"}, names) or [each["action"] for each in lineage] != [action] * (present == names):
        return LOST
    if present != names:
        tzk(*words(place))
    after = figures(place.run)
    kept = names & {"moons"}
    same = after[""] == place.world.figures[""] and set(after["densities"]) == names
    same = same and all(after["densities"][name] == place.world.figures["densities"][name] for name in kept)
    return "" if same else LOST


def _after_copy(words: Words, names: set[str], place: Place) -> str:
    """Check the original and the new folder.

    The original is what it was, and the new folder is whole or not there.
    """
    if contents(place.run) != place.world.files:
        return LOST
    if not place.out.exists():
        tzk(*words(place))
    elif words is _add:  # whole, and perhaps killed while its report was written: what the next writer clears away
        tzk("run", place.out, "--resume")
    return "" if set(tzk_core.load(place.out).knowledge) == names and not _unfinished(place.out) else LOST


def _after_export(place: Place) -> str:
    files = [file for file in place.out.glob("*") if not is_temporary(file)] if place.out.exists() else []
    if contents(place.run) != place.world.files:
        return LOST
    whole = all(parse_export(file.read_bytes(), file).name == "moons" for file in files)
    if not files:
        tzk(*_export(place))
        whole = len(list(place.out.glob("*"))) == 1
    return "" if whole else LOST


def _after_sample(place: Place) -> str:
    if not place.out.exists():
        tzk(*_sample(place))
    with np.load(place.out) as arrays:
        return "" if all(np.isfinite(arrays[name]).all() for name in arrays.files) else LOST


def _run(place: Place) -> tuple[object, ...]:
    return ("run", place.world.config, "--out", place.out)


def _resume(place: Place) -> tuple[object, ...]:
    return ("run", place.run, "--resume", LONGER)


def _add(place: Place) -> tuple[object, ...]:
    return ("add", place.run, place.world.spec, "--out", place.out)


def _import(place: Place) -> tuple[object, ...]:
    return ("knowledge", "import", place.run, place.world.export, "--as", "new")


def _remove(place: Place) -> tuple[object, ...]:
    return ("knowledge", "remove", place.run, "moons")


def _export(place: Place) -> tuple[object, ...]:
    return ("knowledge", "export", place.run, "moons", "-o", place.out)


def _pack(place: Place) -> tuple[object, ...]:
    return ("pack", place.run, place.out, "--limit", "4")


def _sample(place: Place) -> tuple[object, ...]:
    return ("sample", place.run, "-n", "4", "-o", place.out)


COMMANDS = {
    "run": Command(_run, _after_run),
    "resume": Command(_resume, _after_resume),
    "add": Command(_add, partial(_after_copy, _add, {"moons", "upper"})),
    "import": Command(_import, partial(_after_change, "import", {"moons", "new"}, words=_import)),
    "remove": Command(_remove, partial(_after_change, "remove", set(), words=_remove)),
    "export": Command(_export, _after_export),
    "pack": Command(_pack, partial(_after_copy, _pack, {"moons"})),
    "sample": Command(_sample, _after_sample),
}
