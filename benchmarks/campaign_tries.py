"""What the campaign tries: kills, damage, hostile files, mutated configs and races, on one small run."""

from __future__ import annotations

import json
import random
import shutil
import sys
import threading
from collections.abc import Callable, Generator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

import tzk_core
from tzk_core import TzK, TzkError, build_flow, build_knowledge
from tzk_core.cli import main as program
from tzk_core.config import config_from, load_config
from tzk_core.runs.folder import RunFolder
from tzk_core.runs.lineage import settled
from tzk_core.storage.checkpoint import load_trainer, save_checkpoint
from tzk_core.storage.knowledge_files import import_knowledge
from tzk_core.storage.knowledge_format import KnowledgeFile, parse_export
from tzk_core.storage.stored import read_stored
from tzk_core.training.metrics import keep_until

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from kills import Killed, killing  # noqa: E402

TABLES: dict[str, Any] = {
    "name": "small",
    "flow": {"layers": [{"type": "affine"}]},
    "datasets": [{"name": "moons", "type": "two-moons", "train": 60, "validation": 20, "test": 20}],
    "knowledge": [{"name": "moons", "type": "gaussian", "hidden": 4, "present": {"dataset": "moons"}}],
    "training": {"steps": 6, "batch_size": 8, "log_every": 2, "checkpoint_every": 2, "validate_every": 3}
    | {"initialisation": 16},
    "evaluation": {"importance_samples": 2},
}
LONGER = "run {} --resume training.steps=8"
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
VALUES: list[Any] = [None, True, -1, 0, 7, 1.5, 10**9, 10**30, float("nan"), "", "x", "gaussian", [], [1], {}, {"x": 1}]


Try = tuple[str, Callable[[], str]]
"""What is tried, and the function that tries it: it gives what failed, or "", and may raise `TzkError`."""


def tzk(*words: object) -> int:
    """A command within this process; its exit status. Raises what is no sentence."""
    result = CliRunner().invoke(program, [str(word) for word in words])
    if result.exit_code not in (0, 2):
        raise result.exception or RuntimeError(result.output)
    return result.exit_code


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


T = torch.linspace(-1, 1, 8).view(4, 2)


def figures(folder: Path) -> dict[str, Any]:
    """All that a model says of some observations."""
    model = tzk_core.load(folder)
    with torch.no_grad():
        scores: dict[str, Any] = {name: model.log_prob(T, name).tolist() for name in model.knowledge}
    implies = {name: knowledge.implies for name, knowledge in model.named_knowledge()}
    return {"": model.log_prob(T).tolist(), "implies": implies, **scores}


def weights(run: Path) -> dict[str, bytes]:
    """The files of a model, without those of its training, which hold the time that it took."""
    files = contents(run / "checkpoint")
    return {name: content for name, content in files.items() if name.endswith(".safetensors")}


class World:
    """A run that was trained once, and what the tries start from."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config, self.spec = folder / "small.toml", folder / "added.toml"
        self.config.write_text(config_from(TABLES).to_toml())
        self.spec.write_text(ADDED)
        self.run = folder / "run"
        assert tzk("run", self.config, "--out", self.run) == 0
        self.files, self.figures = contents(self.run), figures(self.run)
        assert tzk(*LONGER.format(self.copy("longer")).split()) == 0
        self.longer = weights(folder / "longer")
        (self.export,) = tzk_core.export_knowledge(self.run, "moons", folder / "export")

    def copy(self, name: str) -> Path:
        place = self.folder / name
        shutil.rmtree(place, ignore_errors=True)
        return Path(shutil.copytree(self.run, place))


# kills


def kills(world: World, source: random.Random) -> Generator[Try, None, None]:
    """At each operation on files of each command, and again at random ones."""
    ends: dict[str, int] = {}
    moment = 0
    while True:
        for command in COMMANDS:
            at = moment if moment <= ends.get(command, moment) else source.randrange(ends[command] + 1)
            yield f"{command} killed at {at}", lambda command=command, at=at: _killed(world, command, at, ends=ends)
        moment += 1


COMMANDS = ("run", "resume", "add", "import", "remove", "export", "pack")


def _killed(world: World, command: str, moment: int, *, ends: dict[str, int]) -> str:
    run, out = world.copy("victim"), world.folder / "out"
    shutil.rmtree(out, ignore_errors=True)
    words = {
        "run": ("run", world.config, "--out", out),
        "resume": LONGER.format(run).split(),
        "add": ("add", run, world.spec, "--out", out),
        "import": ("knowledge", "import", run, world.export, "--as", "new"),
        "remove": ("knowledge", "remove", run, "moons"),
        "export": ("knowledge", "export", run, "moons", "-o", out),
        "pack": ("pack", run, out, "--limit", "0"),
    }[command]
    with pytest.MonkeyPatch.context() as patched:
        killing(patched, moment)
        try:
            if tzk(*words) != 0:
                return LOST
            ends[command] = moment
        except Killed:
            pass
    return _checked(world, command, run=run, out=out)


def _checked(world: World, command: str, *, run: Path, out: Path) -> str:
    """What a kill destroyed; "" if nothing."""
    if command == "run":
        again = ("run", out, "--resume") if out.exists() else ("run", world.config, "--out", out)
        return "" if tzk(*again) == 0 and weights(out) == weights(world.run) else LOST
    if command == "resume":
        return "" if tzk(*LONGER.format(run).split()) == 0 and weights(run) == world.longer else LOST
    if command in ("import", "remove"):
        names, folder = set(tzk_core.load(run).knowledge), RunFolder(run)
        done = names != {"moons"}
        lineage = settled(folder.read_record().get("lineage", []), folder)
        return "" if [value["action"] for value in lineage] == ([command] if done else []) else LOST
    if contents(run) != world.files:
        return LOST
    if command == "export":
        whole = not out.exists() or all(import_name(file) == "moons" for file in out.glob("*.safetensors"))
        return "" if whole else LOST
    return "" if not out.exists() or tzk_core.load(out).knowledge else LOST


def import_name(path: Path) -> str:
    return parse_export(path.read_bytes(), path).name


# damage


def damage(world: World, source: random.Random) -> Generator[Try, None, None]:
    """Each file of a run, damaged in each way at each class of place."""
    while True:
        for name, content in world.files.items():
            if not name.endswith((".png", "results.md", "results.json")):  # which no command reads
                for way in WAYS:
                    damaged = WAYS[way](content, source)
                    yield f"{name}, {way}", lambda name=name, damaged=damaged: _damaged(world, name, damaged)


def _place(content: bytes, source: random.Random) -> int:
    return source.choice([0, 7, 8, len(content) // 2, len(content) - 1, source.randrange(max(1, len(content)))])


def _with(content: bytes, place: int, other: int) -> bytes:
    return content[:place] + bytes([other]) + content[place + 1 :]


def _letter(content: bytes, source: random.Random) -> bytes:
    """A digit for a digit, a letter for a letter: what stays readable."""
    places = [i for i, value in enumerate(content) if chr(value).isalnum() and value < 128] or [0]
    place = source.choice(places)
    return _with(content, place, ord(source.choice("0123456789" if chr(content[place]).isdigit() else "abcxyz")))


WAYS: dict[str, Callable[[bytes, random.Random], bytes | None]] = {
    "a bit": lambda content, source: _with(content, at := _place(content, source), content[at] ^ 2 ** (at % 8)),
    "a letter": _letter,
    "cut": lambda content, source: content[: _place(content, source)],
    "longer": lambda content, source: content + source.randbytes(source.choice([1, 100])),
    "zeros": lambda content, source: content[: (at := _place(content, source))] + bytes(len(content) - at),
    "empty": lambda content, source: b"",
    "missing": lambda content, source: None,
}


def _damaged(world: World, name: str, content: bytes | None) -> str:
    run = world.copy("victim")
    if content is None:
        (run / name).unlink()
    else:
        (run / name).write_bytes(content)
    if name.startswith(("checkpoint", "best")):
        if name.endswith("trainer.pt"):
            load_trainer(run / Path(name).parts[0])
        return "" if figures(run / Path(name).parts[0]) == figures(world.run / Path(name).parts[0]) else SILENT
    reader = {"run.json": lambda: RunFolder(run).read_record(), "config.toml": lambda: load_config(run / name)}
    reader.get(name, lambda: keep_until(run / "metrics.csv", 4))()
    return ""


# hostile files and configs


def hostile(world: World, source: random.Random) -> Generator[Try, None, None]:
    """Exports that were sealed after they were altered."""
    sound = parse_export(world.export.read_bytes(), world.export)
    while True:
        entry = json.loads(json.dumps(sound.entry))
        _mutate(entry, source)
        name = source.choice(["new", "new", "..", "a/b", "x" * 300, "con", "-rf", ""])
        trial = partial(_imported, world, sound, name=name, entry=entry)
        yield f"{name!r} {json.dumps(entry)[:300]}", trial


def _imported(world: World, sound: KnowledgeFile, *, name: str, entry: Any) -> str:
    run, file = world.copy("victim"), world.folder / "hostile.safetensors"
    try:
        file.write_bytes(KnowledgeFile(name, entry, sound.content).sealed())
    except (KeyError, TypeError):
        return ""  # this cannot even be written
    before = contents(run)
    try:
        import_knowledge(run, file)
    except TzkError:
        if contents(run) != before:
            return LOST
        raise
    return "" if figures(run)["moons"] == world.figures["moons"] else SILENT


def configs(world: World, source: random.Random) -> Generator[Try, None, None]:
    """Configs with values, tables and letters altered."""
    text = config_from(TABLES).to_toml()
    while True:
        tables = json.loads(json.dumps(TABLES))
        for _ in range(source.randint(1, 3)):
            _mutate(tables, source)
        yield json.dumps(tables)[:300], lambda tables=tables: str(config_from(tables))[:0]
        altered = WAYS[source.choice(["a bit", "a letter", "cut", "longer", "zeros"])](text.encode(), source)
        path = world.folder / "altered.toml"
        yield f"text {altered!r}"[:300], lambda path=path, altered=altered or b"": _config_of(path, altered)


def _config_of(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    load_config(path)
    return ""


def _mutate(value: Any, source: random.Random) -> None:
    """Alters one thing anywhere in nested tables and lists."""
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    if not keys:
        return
    key = source.choice(keys)
    if isinstance(value[key], dict | list) and value[key] and source.random() < 0.7:
        _mutate(value[key], source)
    elif source.random() < 0.2:
        del value[key]
    else:
        value[key] = source.choice(VALUES)


# races


def races(world: World, source: random.Random) -> Generator[Try, None, None]:
    """A writer that replaces a checkpoint all the time, and readers; each try is one turn of a reader."""
    models = []
    for seed in (0, 1):
        model = TzK(build_flow((2,), layers=[{"type": "lu-linear", "identity_init": False}], seed=seed))
        model.add("a", build_knowledge("gaussian", (2,), seed, hidden=2, layers=2))
        models.append(model)
    place, stop, failed = world.folder / "race" / "checkpoint", threading.Event(), []
    save_checkpoint(models[0], place, {"step": 0})

    def write() -> None:
        step = 0
        while not stop.is_set():
            step += 1
            try:
                save_checkpoint(models[step % 2], place, {"step": step})
            except Exception as error:
                failed.append(error)

    def read() -> str:
        if failed:
            raise failed.pop()
        stored = read_stored(place, trainer=True)
        same = stored.trainer()["step"] == stored.step
        return "" if same and tzk_core.load(place.parent).knowledge else LOST

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    try:
        while True:
            yield "a turn", read
    finally:
        stop.set()
        writer.join()
