"""The 20 one-shot runs of Lake, Salakhutdinov and Tenenbaum (2015).

`all_runs.zip` has to lie beside the data.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tzk_core.data.images import resize
from tzk_core.data.root import places
from tzk_plugin_omniglot.drawings import FOLDER


@dataclass(frozen=True)
class OneShotRun:
    """One run: a drawing of each character, and drawings to tell which they are of.

    name: as in the file. support: uint8, (ways, 1, size, size), ink bright. queries: (q, 1, size, size). answers: the
    way of each query, (q,).
    """

    name: str
    support: Tensor
    queries: Tensor
    answers: np.ndarray


def one_shot_runs(size: int) -> Iterator[OneShotRun]:
    """Read the runs in their order, resized as `Omniglot` does; none without the file."""
    files = [place / FOLDER / "all_runs.zip" for place in places()]
    path = next((file for file in files if file.exists()), None)
    if path is None:
        return
    with zipfile.ZipFile(path) as archive:
        names = {name[name.index("run") :] if "run" in name else name: name for name in archive.namelist()}
        names = {name.removeprefix("runs/"): where for name, where in names.items()}
        for run in sorted({name.split("/")[0] for name in names if name.startswith("run") and "/" in name}):
            lines = archive.read(names[f"{run}/class_labels.txt"]).decode().split()
            pairs = list(zip(lines[::2], lines[1::2], strict=True))
            classes = sorted({training for _, training in pairs})
            pictures = [archive.read(names[picture]) for picture in (*classes, *(item for item, _ in pairs))]
            images = _resized(pictures, size)
            answers = np.array([classes.index(training) for _, training in pairs])
            yield OneShotRun(run, images[: len(classes)], images[len(classes) :], answers)


def _resized(pictures: list[bytes], size: int) -> Tensor:
    ink = [255 * (np.asarray(Image.open(io.BytesIO(picture)).convert("L")) == 0) for picture in pictures]
    return resize(torch.from_numpy(np.stack(ink).astype(np.uint8))[:, None], size)
