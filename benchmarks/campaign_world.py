"""The start of the campaign's tries: one small run, and forked children.

The children share nothing with each other.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import shutil
import signal
import traceback
from collections.abc import Callable, Generator, Iterable
from dataclasses import asdict, dataclass
from functools import cache, partial
from itertools import islice
from pathlib import Path
from typing import Any

import matplotlib
import torch
from click.testing import CliRunner
from matplotlib.figure import Figure
from tzk_plugin_report.plots import figure

import tzk_core
from tzk_core import TzkError
from tzk_core.cli import main as program
from tzk_core.config import config_from
from tzk_core.storage.checkpoint import load_checkpoint
from tzk_core.storage.tensors import of as state_of
from tzk_core.training.metrics import read_rows

TABLES: dict[str, Any] = {
    "name": "small",
    "flow": {"layers": [{"type": "affine"}, {"type": "symlog"}]},
    "datasets": [{"name": "moons", "type": "two-moons", "train": 60, "validation": 20, "test": 20}],
    "knowledge": [{"name": "moons", "type": "gaussian", "hidden": 4, "present": {"dataset": "moons"}}],
    "training": {"steps": 4, "batch_size": 8, "log_every": 1, "checkpoint_every": 2, "validate_every": 2}
    | {"initialisation": 16},
    "evaluation": {"importance_samples": 2},
}
LONGER = "training.steps=6"
ADDED = """name = "added"
[[knowledge]]
name = "upper"
type = "gaussian"
hidden = 4
present = { dataset = "moons" }
[training]
steps = 2
batch_size = 8
[evaluation]
importance_samples = 2
"""
LOST, TRACEBACK, SILENT = "lost", "traceback", "silent"
TOGETHER = 25
"""So many tries share a forked child, which costs as much as some of them."""

PATIENCE, WAITING = 60, 900
"""Seconds of computing, and of time on the clock, after which a try is taken to hang: a busy machine is no fault."""

MEMORY = 2**34
"""Bytes of addresses that a child may take beyond what it starts with: a size in a file is not believed."""

T = torch.linspace(-1, 1, 8).view(4, 2)


@dataclass(frozen=True)
class Ending:
    """The ending of a try.

    fault: what failed, or "". message: what it said. refused: whether a sentence refused it.
    """

    fault: str = ""
    message: str = ""
    refused: bool = False


Tries = Generator[tuple[str, Ending], None, None]
"""What was tried, and how it ended."""

Works = Iterable[tuple[str, Callable[[], str]]]
"""What is tried, and the function that tries it, which returns what failed, or "", and may raise."""


def ended(work: Callable[[], str]) -> Ending:
    """How work ends that returns what failed, or "", and may raise."""
    try:
        return Ending(work())
    except TzkError as error:
        return Ending(message=str(error), refused=True)
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        return Ending(TRACEBACK, f"{error!r:.200} in {Path(frame.filename).name}:{frame.lineno}")


def be_patient() -> None:
    """Let this process be ended if it takes longer than that from now on."""
    signal.setitimer(signal.ITIMER_PROF, PATIENCE)
    signal.alarm(WAITING)


def start(*works: Callable[[], Ending]) -> tuple[int, int]:
    """A forked child that works.

    Returns:
        Its process number, and a pipe on which its endings come, one a line.
    """
    reading, writing = os.pipe()
    gc.freeze()  # or the child's first collection copies all of the parent's memory
    child = os.fork()
    if child:
        os.close(writing)
        return child, reading
    try:
        os.close(reading)
        addresses = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (addresses, addresses))
        with os.fdopen(writing, "w") as pipe:
            for work in works:
                be_patient()
                print(json.dumps(asdict(work())), file=pipe, flush=True)
    finally:
        os._exit(0)


def finish(child: int, reading: int) -> list[Ending]:
    """The endings that came from a child.

    Where a signal ended it, the last one says so, and is a fault.
    """
    with os.fdopen(reading) as pipe:
        endings = [Ending(**json.loads(line)) for line in pipe if line.endswith("\n")]
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        endings.append(Ending(TRACEBACK, f"ended by {signal.Signals(os.WTERMSIG(status)).name}"))
    return endings


def in_child(work: Callable[[], str]) -> Ending:
    """How work ends in a forked child, which nothing else sees."""
    return finish(*start(lambda: ended(work)))[-1]


def in_children(works: Works) -> Tries:
    """How works end in forked children.

    Each child takes `TOGETHER` of them, or those until a signal ends it.
    """
    works = iter(works)
    while group := list(islice(works, TOGETHER)):
        while group:
            endings = finish(*start(*(partial(ended, work) for _, work in group)))
            if not endings:
                raise RuntimeError("a child ended without a word")
            yield from zip((what for what, _ in group), endings, strict=False)
            group = group[len(endings) :]


def tzk(*words: object) -> None:
    """A command within this process. Raises `TzkError` for its sentence, and whatever else it raises."""
    result = CliRunner().invoke(program, [str(word) for word in words])
    said = (result.output.strip().splitlines() or [""])[-1]
    if result.exit_code == 2:
        raise TzkError(said)
    if result.exit_code:
        raise RuntimeError(f"exit status {result.exit_code}: {said}") from result.exception


def hurry() -> None:
    """Save the time of pictures, of seeding accelerators and of waiting for disks.

    From now on, pictures are small and empty, no accelerator is seeded, and no disk is waited for.

    That is most of a small run's time. All files are written as ever, and what is not waited for is lost when the power
    fails, not by a kill.
    """
    Figure.draw = lambda self, renderer: None  # type: ignore[method-assign, assignment]
    figure.figure = cache(figure.figure)
    matplotlib.rcParams["figure.dpi"] = matplotlib.rcParams["savefig.dpi"] = 10
    os.fsync = lambda handle: None
    if not torch.cuda.is_available():
        for accelerator in (torch.cuda, torch.xpu, torch.mtia):
            accelerator.manual_seed_all = lambda seed: None  # it keeps the stack of each call, for a first use


def contents(folder: Path) -> dict[str, bytes]:
    """The files of a folder."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def figures(folder: Path, *, whole: bool = False) -> dict[str, Any]:
    """The figures of a model on some observations, and what it is made of.

    whole: of this very checkpoint.
    """
    model = load_checkpoint(folder) if whole else tzk_core.load(folder)
    with torch.no_grad():
        densities = {name: model.log_prob(T, name).tolist() for name in model.knowledge}
        parts = {name: (repr(kind.part), list(kind.implies)) for name, kind in model.named_knowledge()}
        state = {name: tensor.tolist() for name, tensor in state_of(model).items()}
        return {"": model.log_prob(T).tolist(), "parts": parts, "state": state, "densities": densities}


def weights(run: Path) -> dict[str, bytes]:
    """The files of the last model, without those of its training.

    The latter hold the time that it took.
    """
    files = contents(run / "checkpoint")
    return {name: content for name, content in files.items() if name.endswith(".safetensors")}


def log(run: Path) -> list[list[str]]:
    """metrics.csv without the time that it took."""
    header, rows, _ = read_rows(run / "metrics.csv")
    return [[text for name, text in zip(header, row, strict=True) if name != "seconds"] for row in rows]


class World:
    """A run that was trained once, and what the tries start from."""

    def __init__(self, folder: Path) -> None:
        hurry()
        self.folder = folder
        self.config, self.spec = folder / "small.toml", folder / "added.toml"
        self.config.write_text(config_from(TABLES).to_toml())
        self.spec.write_text(ADDED)
        self.run = folder / "run"
        tzk("run", self.config, "--out", self.run)
        self.files, self.figures = contents(self.run), figures(self.run)
        self.longer = self.copy("longer")
        tzk("run", self.longer, "--resume", LONGER)
        renamed = self.copy("renamed")
        (self.export,) = tzk_core.export_knowledge(self.run, "moons", folder / "export")
        tzk_core.import_knowledge(renamed, self.export, "new")
        self.renamed = figures(renamed)["densities"]["new"]  # the noise of an integral over C derives from the name
        self.packed = folder / "packed"
        tzk("pack", self.run, self.packed, "--limit", "4")

    def copy(self, name: str, source: Path | None = None) -> Path:
        """A fresh copy of the run."""
        return Path(shutil.copytree(source or self.run, self.clear(name)))

    def clear(self, name: str) -> Path:
        """A path in the folder of the world at which there is nothing."""
        place = self.folder / name
        for path in self.folder.iterdir():
            if path == place or path.name.startswith(f".{name}."):  # what a kill left
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        return place
