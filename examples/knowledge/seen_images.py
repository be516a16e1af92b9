"""What few_labels.py computes once and keeps in a folder.

It is the features of all images of MNIST, and their nearest neighbours.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from neighbours import Neighbours, nearest
from torch import Tensor
from tzk_plugin_features.features import Features
from tzk_plugin_features.knowledge import FeatureKnowledge

import tzk_core
from tzk_core.data.mnist import Mnist
from tzk_core.errors import TzkError
from tzk_core.random_streams import stream

LEVELS, SIZE, REFERENCE, NEIGHBOURS = 256, 32, 10_000, 7
SPLITS = ("train", "validation", "test")
MARGIN = 2
"""Of empty pixels around the 28×28 of MNIST."""


@dataclass(frozen=True)
class Images:
    """Images in [0, 1], (n, 1, side, side), and their digits, (n,)."""

    T: Tensor
    digits: Tensor


@dataclass(frozen=True)
class Seen:
    """What all learners share.

    images, y: of every split. asked: the split that figures are of.
    neighbours: among the training images, by space ("features", "pixels") and split.
    seconds: of the processor, for each.
    """

    images: Mapping[str, Images]
    features: Features
    y: Mapping[str, Tensor]
    neighbours: Mapping[str, Mapping[str, Neighbours]]
    asked: str
    seconds: Mapping[str, float]

    @property
    def train(self) -> Images:
        return self.images["train"]

    @property
    def shown(self) -> Images:
        """Those that figures are of."""
        return self.images[self.asked]


def images_of(split: str, most: int | None) -> Images:
    samples = Mnist(size=SIZE).split(split)
    digits = torch.tensor([int(label) for label in samples.labels["label"][:most]])
    return Images(samples.T[:most].float() / (LEVELS - 1), digits)


def see(
    images: Mapping[str, Images],
    arguments: Mapping[str, Any],
    *,
    asked: str,
    spaces: tuple[str, ...],
    folder: Path | None,
) -> Seen:
    """Features, fitted to training images without labels, and neighbours in the spaces.

    Args:
        arguments: of the knowledge type, which has the features.
        folder: where both are kept, and taken from if they are there.
    """
    shape = tuple(images["train"].T.shape[1:])
    knowledge = tzk_core.build_knowledge("features", shape, 0, name="reference", **arguments)
    assert isinstance(knowledge, FeatureKnowledge)
    features = knowledge.latent.seen
    state = kept(folder, "features", lambda: _features(features, images))
    features.load_state_dict({key[9:]: value for key, value in state.items() if key.startswith("features.")})
    values = {split: state[split] for split in SPLITS}
    if any(len(values[split]) != len(images[split].T) for split in SPLITS):
        raise TzkError(f"{folder} is of other images than these: choose another folder, or none")
    places = {
        "features": values,
        "pixels": {split: own.T[:, :, MARGIN:-MARGIN, MARGIN:-MARGIN].flatten(1) for split, own in images.items()},
    }
    seconds, found = {"features": float(state["seconds"])}, {}
    for space in spaces:
        table = kept(folder, f"{space}-{asked}", lambda x=places[space]: _neighbours(x["train"], x[asked]))
        seconds[f"neighbours in {space}"] = float(table["seconds"])
        found[space] = {
            "train": Neighbours(table["train rows"], table["train squares"]),
            asked: Neighbours(table["rows"], table["squares"]),
        }
    y = {split: features.whiten(own) for split, own in values.items()}
    return Seen(images, features, y, found, asked, seconds)


def kept(folder: Path | None, name: str, compute: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """The tensors of a file, computed and written if it is not there.

    `seconds` among them are of the processor, of the computation.
    """
    file = None if folder is None else folder / f"{name}.pt"
    if file is not None and file.exists():
        return torch.load(file, weights_only=True)
    started = time.process_time()
    tensors = compute()
    tensors["seconds"] = torch.tensor(time.process_time() - started)
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.save(tensors, file)
    return tensors


def _features(features: Features, images: Mapping[str, Images]) -> dict[str, Tensor]:
    train = images["train"].T
    rows = torch.randperm(len(train), generator=stream(0, "reference"))[:REFERENCE]
    features.fit(train[rows], stream(0, "features"))
    values = {split: torch.cat([features.map(part) for part in images[split].T.split(100)]) for split in SPLITS}
    return values | {f"features.{key}": value for key, value in features.state_dict().items()}


def _neighbours(train: Tensor, shown: Tensor) -> dict[str, Tensor]:
    among, of_shown = nearest(train, train, NEIGHBOURS, own=True), nearest(shown, train, NEIGHBOURS)
    tensors = {"train rows": among.rows, "train squares": among.squares}
    return tensors | {"rows": of_shown.rows, "squares": of_shown.squares}
