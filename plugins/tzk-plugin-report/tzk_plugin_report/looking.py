"""What a person's own data hold, as far as a config needs to know it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tzk_core.data.images import open_image, size_of
from tzk_core.data.listing import supplied_splits
from tzk_core.data.npz import CHARACTERISTICS, LABELS
from tzk_core.data.packed import UNREADABLE, read_arrays
from tzk_core.errors import TzkError
from tzk_core.names import column_problem
from tzk_core.plugins import Dataset, registry

LOOKED_AT = 500
"""Images of a folder whose size and colour are looked at, spread evenly."""

MOST_CLASSES = 100
"""Values of a label column that become knowledge types."""

SAMPLES_OF_A_CLASS = 10
"""Samples that a value has in the mean, of a column that is more than a name of every sample."""

LARGEST_SIDE = 32
"""The side of images that a first model is of; larger ones are resized."""

TABLES = (".csv", ".tsv", ".csv.gz", ".tsv.gz", ".parquet", ".feather", ".arrow")


@dataclass(frozen=True)
class Looked:
    """What there is at a path.

    Attributes:
        type: of the data set, as a config names it.
        path: of it.
        samples: how many there are, in training at least.
        shape: of one observation, as the data set will have it.
        arguments: of the data set, beside its path.
        classes: numbers of samples by value, by label column that knowledge can be made of.
        characteristics: columns that C can observe.
        remarks: what was seen, and what was chosen for it.
    """

    type: str
    path: Path
    samples: int
    shape: tuple[int, ...]
    arguments: dict[str, object] = field(default_factory=dict)
    classes: dict[str, Counter[str]] = field(default_factory=dict)
    characteristics: tuple[str, ...] = ()
    remarks: Sequence[str] = ()


def look(path: Path) -> Looked:
    """Look at a folder of images, a table or an npz file.

    Raises:
        TzkError: for anything else, and for what cannot be read.
    """
    if not path.exists():
        raise TzkError(f"there is no {path}: expected a folder of images, a table (csv, ...) or an npz file")
    if path.is_dir() and (path / "train.npz").is_file():
        return _npz(path, path / "train.npz")
    if path.is_dir():
        return _folder(path)
    if path.suffix.lower() == ".npz":
        return _npz(path, path)
    if path.name.lower().endswith(TABLES):
        return _table(path)
    raise TzkError(
        f"{path} is expected to be a folder of images, a table ({' '.join(TABLES)}) or an npz file with an array T"
    )


def _folder(path: Path) -> Looked:
    supplied = supplied_splits(path, splits=None)
    base, images = supplied["train"]
    if not images:
        raise TzkError(f"no images below {path}: expected image files, perhaps in a subfolder for each label")
    some = images[:: max(1, len(images) // LOOKED_AT)][:LOOKED_AT]
    sizes = Counter(size_of(file, "init") for file in some)
    (width, height), _ = sizes.most_common(1)[0]
    modes = Counter(_is_coloured(file) for file in some)
    colour = "rgb" if modes[True] > modes[False] else "grey"
    labels = Counter("/".join(file.relative_to(base).parts[:-1]) for file in images)
    remarks = [
        f"{len(images):,} images, most of them {width} x {height} pixels, {'coloured' if colour == 'rgb' else 'grey'}"
    ]
    one_size = len(sizes) == 1 and width == height and width <= 2 * LARGEST_SIDE and width % 4 == 0
    side = width if one_size else LARGEST_SIDE
    if not one_size:
        remarks.append(
            f"resized to {side} x {side}, whatever their proportions; a first model trains faster on small ones"
        )
    arguments: dict[str, object] = {"size": side, "colour": colour}
    classes = {"label": labels} if "" not in labels else {}
    shape = (3 if colour == "rgb" else 1, side, side)
    return Looked("folder", path, len(images), shape, arguments, classes=_usable(classes), remarks=remarks)


def _is_coloured(file: Path) -> bool:
    """Whether the pixels of an image differ between channels."""
    with open_image(file, "init") as image:
        if image.mode in ("1", "L", "LA", "I", "I;16"):
            return False
        small = np.asarray(image.convert("RGB").resize((16, 16)), dtype=np.int16)
    return bool((small.max(-1) - small.min(-1)).max() > 16)


def _npz(path: Path, file: Path) -> Looked:
    try:
        arrays = read_arrays(file)
    except UNREADABLE as error:
        raise TzkError(f"{file} cannot be read: {error}") from error
    if "T" not in arrays:
        held = ", ".join(arrays) or "nothing"
        raise TzkError(
            f"{file}: expected an array T of observations, and perhaps {LABELS}NAME and {CHARACTERISTICS}NAME; "
            f"it has {held}"
        )
    T = arrays["T"]
    named = {
        name.removeprefix(LABELS): Counter(map(str, a.tolist()))
        for name, a in arrays.items()
        if name.startswith(LABELS)
    }
    observed = tuple(name.removeprefix(CHARACTERISTICS) for name in arrays if name.startswith(CHARACTERISTICS))
    kind = "grey levels" if T.dtype == np.uint8 else "real numbers"
    remarks = [f"{len(T):,} observations of shape {T.shape[1:]}, {kind}"]
    return Looked(
        "npz", path, len(T), tuple(T.shape[1:]), classes=_usable(named), characteristics=observed, remarks=remarks
    )


def _table(path: Path) -> Looked:
    registry().find(Dataset, "table")  # raises, and says what to install
    from tzk_plugin_tables.columns import numeric  # pandas, in a plugin that need not be there
    from tzk_plugin_tables.reading import read_frame

    frame = read_frame(path, separator="", text=())
    numbers = list(numeric(frame))
    texts = {
        name: Counter(str(value) for value in frame[name].dropna().tolist())
        for name in frame.columns
        if name not in numbers and not column_problem(name)
    }
    few = [name for name in numbers if frame[name].nunique() < min(20, math.isqrt(max(len(frame), 1)) + 2)]
    remarks = [f"{len(frame):,} rows, {len(numbers)} columns of numbers, {len(texts)} of text"]
    if few:
        remarks.append(
            f"left out of T, since few values have no density: {', '.join(few)}; list them under labels or "
            "characteristics"
        )
    T = [name for name in numbers if name not in few]
    if not T:
        raise TzkError(f"{path}: expected columns of many different numbers, which a density can be of; there is none")
    classes = _usable(texts)
    arguments: dict[str, object] = {"columns": T}
    if classes:
        arguments["labels"] = list(classes)
    return Looked("table", path, len(frame), (len(T),), arguments, classes=classes, remarks=remarks)


def _usable(columns: dict[str, Counter[str]]) -> dict[str, Counter[str]]:
    """Label columns with a few values, which become knowledge types."""
    kept = {}
    for name, counts in columns.items():
        values = Counter({value: count for value, count in counts.items() if value})
        most = min(MOST_CLASSES, values.total() // SAMPLES_OF_A_CLASS)
        if 2 <= len(values) <= most and not column_problem(name):
            kept[name] = values
    return kept
