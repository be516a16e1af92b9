"""A first config for a person's own data.

There is a comment at everything that was chosen.
"""

from __future__ import annotations

import math
import os
import re
from pathlib import Path

from tzk_core.plugins import FlowRecipe, registry
from tzk_plugin_report.looking import Looked

FEW = 50
"""Training samples of a class, below which a comment says that they are few."""

OFTEN = 10
"""Samples of the rarest value of a column that is told apart in evaluation."""

SPLINES = "rq-nsf-coupling"


def config_of(looked: Looked, file: Path) -> str:
    """The text of a config for what was looked at.

    Args:
        file: where it will stand, to which the path of the data is relative.
    """
    name = re.sub(r"[^a-z0-9]+", "-", looked.path.resolve().name.split(".")[0].lower()).strip("-") or "mine"
    dataset = name if re.match(r"[a-z]", name) else f"data-{name}"
    plugins = _plugins(looked)
    parts = [
        f"# A first config for {looked.path.name}, as far as it was looked at:\n"
        + "".join(f"# - {remark}\n" for remark in looked.remarks)
        + "#\n"
        f"#   tzk check {file.name}        says whether all of it is right\n"
        f"#   tzk run {file.name}          trains, evaluates, and writes a report\n"
        "# `tzk describe training` shows all keys of a table, `tzk describe` what there is to name.",
        f"name = {_text(name)}\nseed = 0                         # same seed, same run"
        + (f"\nplugins = {_list(plugins)}" if plugins else ""),
        _flow(looked),
        _dataset(looked, dataset, file),
        *_knowledge(looked, dataset),
        _training(looked),
        _evaluation(looked),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _plugins(looked: Looked) -> list[str]:
    wanted = ["tzk-plugin-tables"] if looked.type == "table" else []
    return [*wanted, *(["tzk-plugin-baselines"] if _splines(looked) else [])]


def _splines(looked: Looked) -> bool:
    """Whether to take spline couplings.

    They are for vectors, and where the plugin that has them is installed.
    """
    there = any(part.name == SPLINES for part in registry().all(FlowRecipe))
    return len(looked.shape) != 3 and math.prod(looked.shape) > 1 and there


def _flow(looked: Looked) -> str:
    if _splines(looked):
        return (
            "[flow]                           # the invertible map between data and a Gaussian z\n"
            f"recipe = {_text(SPLINES)}       # spline couplings (Durkan 2019), strong on vectors\n"
            "steps = 3                        # more steps: a stronger and slower flow\nhidden = 32"
        )
    tile = _tile(looked.shape)
    steps = "4" if tile else "6" if len(looked.shape) != 3 else "1"
    lines = [
        "[flow]                           # the invertible map between data and a Gaussian z",
        'recipe = "paper"                 # tiled convolutions and SymLog; `tzk describe` lists others',
        f"steps = {steps}                        # more steps: a stronger and slower flow",
    ]
    if tile:
        lines.append(f"tile = {tile}                         # each matrix sees tiles of {tile} x {tile} pixels")
    elif len(looked.shape) == 3:
        lines.append(
            "tile = 1                         # sides that are odd cannot be cut; give the data set another size"
        )
    return "\n".join(lines)


def _tile(shape: tuple[int, ...]) -> int:
    """The largest tile that cuts every second pixel of an image.

    It has at most 8 pixels; 0 where none does.
    """
    if len(shape) != 3 or shape[1] % 2 or shape[2] % 2:
        return 0
    sides = math.gcd(shape[1], shape[2]) // 2
    return max(tile for tile in range(1, 9) if sides % tile == 0)


def _commented(line: str, comment: str) -> str:
    """A line with its comment, in the column of the others where there is room."""
    return f"{line:<32} # {comment}"


def _dataset(looked: Looked, name: str, file: Path) -> str:
    path = os.path.relpath(looked.path.resolve(), file.resolve().parent)
    lines = [
        "[[datasets]]",
        f"name = {_text(name)}",
        f"type = {_text(looked.type)}",
        _commented(f"path = {_text(Path(path).as_posix())}", "relative to this file"),
    ]
    comments = {
        "size": "the side of the images in pixels",
        "colour": '"grey" or "rgb"',
        "columns": "what T is made of",
        "labels": "text, of which knowledge is made",
    }
    for key, value in looked.arguments.items():
        shown = _list(value) if isinstance(value, list) else _text(value) if isinstance(value, str) else str(value)
        lines.append(_commented(f"{key} = {shown}", comments[key]))
    tenth = max(1, looked.samples // 10)
    lines += [
        _commented(f"# validation = {tenth}", "samples to choose the best step by; a tenth unless this is set"),
        _commented(f"# test = {tenth}", "samples that training never sees; a tenth unless this is set"),
    ]
    return "\n".join(lines)


def _knowledge(looked: Looked, dataset: str) -> list[str]:
    """A table for every label column.

    Without one, knowledge is of the data set as a whole.
    """
    observed = _list(list(looked.characteristics)) if looked.characteristics else ""
    if not looked.classes:
        return [
            "# Knowledge is what may be given beside T. Without labels it is all of the data set, with two numbers C\n"
            "# that it finds by itself; with labels, a table such as\n"
            '#   present = { dataset = "...", label = "each" }   makes a knowledge type of every value.\n'
            + _knowledge_table("all", f"{{ dataset = {_text(dataset)} }}", observed)
        ]
    tables = []
    for column, counts in looked.classes.items():
        least = min(counts, key=lambda value: counts[value])
        few = f"\n# Few samples: {least!r} has {counts[least]}." if counts[least] < FEW else ""
        head = f"# One knowledge type for each of the {len(counts)} values of {column}, and numbers C beside it.{few}\n"
        present = f'{{ dataset = {_text(dataset)}, {_key(column)} = "each" }}'
        tables.append(head + _knowledge_table(f"{column}-{{{column}}}", present, observed, exclusive=True))
    return tables


def _knowledge_table(name: str, present: str, observed: str, *, exclusive: bool = False) -> str:
    lines = [
        "[[knowledge]]",
        f"name = {_text(name)}",
        'type = "gaussian"                # p(z given C); "flow" is stronger and needs more samples',
        f"present = {present}",
    ]
    if exclusive:
        lines.append("exclusive = true                 # a sample has one of these values and no other")
    if observed:
        lines.append(f"observed = {observed}    # C is these columns; leave it out, and C is found")
    else:
        lines.append("characteristics = 2              # numbers C, which the report shows as a plane")
    return "\n".join(lines)


def _training(looked: Looked) -> str:
    batch = max(1, min(256, looked.samples // 4))
    return (
        "[training]\n"
        "steps = 1500                     # of one batch; more if validation is falling still at the end\n"
        f"batch_size = {batch}\n"
        "learning_rate = 2e-3\n"
        "warmup = 50                      # steps in which the rate grows to that\n"
        "validate_every = 100             # the best of these is the model that is used\n"
        "patience = 10                    # validations without a better one, after which training ends\n"
        "# minutes = 30                   # ends training after that long, whatever the steps"
    )


def _evaluation(looked: Looked) -> str:
    lines = ["[evaluation]", "importance_samples = 32          # of C, for every log p(T given knowledge)"]
    # training has to see every value that the test split has, which of rare ones is not sure
    often = [column for column, counts in looked.classes.items() if min(counts.values()) >= OFTEN]
    if often:
        lines.append("\n[evaluation.partitions]          # what is told apart: the report says how often rightly")
        lines += [f"{_text(f'mixture of {column}')} = {_list([f'{column}-*'])}" for column in often]
    return "\n".join(lines)


def _text(value: str) -> str:
    """A TOML string."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in escaped) + '"'


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _text(name)


def _list(values: object) -> str:
    assert isinstance(values, list)
    return "[" + ", ".join(_text(str(value)) for value in values) + "]"
