"""Mutated configs, and damaged images and arrays."""

from __future__ import annotations

import io
import json
import random
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from campaign_damage import CLASSES, WAYS, altered, mutate
from campaign_world import TABLES, Tries, Works, World, in_children, tzk
from PIL import Image
from tzk_plugin_outside.reading import read_all

from tzk_core.config import config_from, load_config
from tzk_core.data.folder import Folder
from tzk_core.data.npz import Npz, open_observations

KEYS: dict[str, list[Any]] = {
    "flow": [{"recipe": "paper", "steps": 1}, {"layers": [{"type": "symlog"}]}, {"layers": [{"type": "logit"}]}],
    "datasets": [[{"name": "moons", "type": "npz", "path": "none.npz"}], [{"name": "moons", "type": "spirals"}]],
    "evaluation": [{"importance_samples": 3, "partitions": {"all": ["moons"]}}],
    "objective": [{"slack": 1.0}, {"negatives": 2}, {"hidden_share": 0.5}, {"prior": "paper"}],
    "seed": [1],
    "device": ["cpu", "auto"],
    "dtype": ["float32", "float64"],
}
"""What configs may hold beside what the small one has, so that it is altered as well."""

OVERRIDDEN = (
    *(
        "seed",
        "name",
        "dtype",
        "flow",
        "flow.layers",
        "flow.layers.0.type",
        "flow.base",
        "flow.tile",
        "datasets",
        "x.y",
    ),
    *(
        "datasets.moons",
        "datasets.moons.train",
        "datasets.moons.type",
        "datasets." + "9" * 5000 + ".train",
        "datasets.1.x",
    ),
    *(
        "knowledge.moons.hidden",
        "knowledge.moons.present",
        "knowledge.moons.name",
        "knowledge.0.type",
        "a." * 2000 + "b",
    ),
    *(
        "training",
        "training.steps",
        "training.batch_size",
        "training.learning_rate",
        "training.clip",
        "",
        ".",
        "training.",
    ),
    *(
        "evaluation.importance_samples",
        "evaluation.partitions.all",
        "objective.slack",
        "objective.prior",
        "plugins",
        "κ",
    ),
)
TEXTS = (
    *(
        "",
        "0",
        "-1",
        "1",
        "3",
        "1e9",
        "1e400",
        "nan",
        "-inf",
        "9" * 5000,
        "0x" + "f" * 5000,
        "[" * 3000,
        "{a=" * 3000,
        "true",
    ),
    *(
        "x",
        '"x"',
        "'",
        '"""',
        "[]",
        "[1]",
        "{}",
        "{dataset='moons'}",
        "gaussian",
        "1979-05-27",
        "07:32:00",
        "1\n[x]",
        "κ",
        "#",
    ),
    *("\x00", "\ufeff1", "\u202e", "x" * 5000, "1_000", "+0", "two-moons", '["moons"]', "[{}]", "10000000000000", "=1"),
)
"""What overrides name, and the values that they give."""

SHORT = ("training.steps=1", "training.initialisation=16")
TRAINED = 8
"""One in so many configs that are right is trained for a step as well, the others planned."""


def configs(world: World, source: random.Random) -> Tries:
    """Configs with values, tables and letters altered.

    What is accepted is planned, or trained for a step.
    """
    return in_children(_configs(world, source))


def _configs(world: World, source: random.Random) -> Works:
    text = world.config.read_bytes()
    path = world.folder / "altered.toml"
    ways = [(where, how) for where in CLASSES for how in WAYS]
    while True:
        tables = json.loads(json.dumps(TABLES))
        for key in source.sample(sorted(KEYS), source.randrange(3)):
            tables[key] = json.loads(json.dumps(source.choice(KEYS[key])))
        for _ in range(source.randint(1, 3)):
            mutate(tables, source)
        train = source.randrange(TRAINED) == 0
        yield json.dumps(tables)[:400], partial(_used, path, tables, train=train)
        override = f"{source.choice(OVERRIDDEN)}={source.choice(TEXTS)}"
        yield f"override {override:.400}", partial(_overridden, world.config, override, train=train)
        where, how = source.choice(ways)
        content = altered(text, source, where, how=how)
        if content is not None:
            yield f"text {content!r}"[:400], partial(_used, path, content, train=train)


def _used(path: Path, content: Any, *, train: bool) -> str:
    """Check a config, and, if it is accepted, plan it or train it."""
    if isinstance(content, bytes):
        path.write_bytes(content)
        load_config(path)
    else:
        path.write_text(config_from(content).to_toml(), encoding="utf-8")
    shutil.rmtree(path.with_suffix(""), ignore_errors=True)
    words = SHORT if train else ("--dry-run",)
    tzk("run", path, "--out", path.with_suffix(""), *words)
    return ""


def _overridden(config: Path, override: str, *, train: bool) -> str:
    out = config.with_name("overridden")
    shutil.rmtree(out, ignore_errors=True)
    tzk("run", config, override, "--out", out, *(SHORT if train else ("--dry-run",)))
    return ""


def inputs(world: World, source: random.Random) -> Tries:
    """Damaged images of each format, a folder of them and npz files.

    They are damaged in each way at each class of bytes.
    """
    return in_children(_inputs(world, source))


def _inputs(world: World, source: random.Random) -> Works:
    folder = world.folder / "inputs"
    (folder / "images").mkdir(parents=True, exist_ok=True)
    files = _images(source) | _arrays()
    (folder / "images" / "sound.png").write_bytes(files["L.png"])
    while True:
        tries = [(name, where, how) for name in files for where in CLASSES for how in WAYS]
        source.shuffle(tries)
        for name, where, how in tries:
            content = altered(files[name], source, where, how=how)
            if content is not None:
                yield f"{name}, {where}, {how}", partial(_read, folder, name, content=content)


def _images(source: random.Random) -> dict[str, bytes]:
    """A small image of each format and mode, by name."""
    pixels = np.frombuffer(source.randbytes(8 * 8 * 4), np.uint8).reshape(8, 8, 4)
    found = {}
    for suffix in ("bmp", "gif", "jpeg", "pgm", "png", "ppm", "tiff", "webp"):
        for mode in ("L", "RGB", "RGBA", "P", "1", "I;16"):
            file = io.BytesIO()
            name = {"jpeg": "JPEG", "pgm": "PPM", "ppm": "PPM", "tiff": "TIFF"}.get(suffix, suffix.upper())
            try:
                if mode == "I;16":
                    image = Image.fromarray(pixels[..., 0].astype(np.uint16))
                else:
                    image = Image.fromarray(pixels, "RGBA").convert(mode)
                image.save(file, name)
            except (OSError, KeyError, ValueError):  # this format has no such mode
                continue
            found[f"{mode.replace(';', '')}.{suffix}"] = file.getvalue()
    return found


def _arrays() -> dict[str, bytes]:
    """npz files, by name."""
    points = np.random.default_rng(0).normal(size=(30, 2)).astype(np.float32)
    arrays = {"T": points, "labels.sort": np.array(["a", "b", "c"] * 10), "characteristics.mass": np.arange(30.0)}
    found = {}
    for name, write in (("plain", np.savez), ("packed", np.savez_compressed)):
        for form, T in (("points", points), ("grey", np.zeros((30, 1, 8, 8), np.uint8))):
            file = io.BytesIO()
            write(file, **(arrays | {"T": T}))
            found[f"{form}-{name}.npz"] = file.getvalue()
    return found


def _read(folder: Path, name: str, *, content: bytes) -> str:
    file = folder / name if name.endswith(".npz") else folder / "images" / name
    file.write_bytes(content)
    try:
        if name.endswith(".npz"):
            for _ in open_observations(file, (2,), None).parts(10):
                pass
            Npz(file).split("train")
        else:
            images = Folder(folder / "images", size=8, test=0, validation=0)
            read_all(file, {"images": images})
            images.split("train")
    finally:
        file.unlink()
    return ""
