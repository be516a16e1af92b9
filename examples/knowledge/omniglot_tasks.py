"""Omniglot in classes, divided as few-shot experiments have it, and the tasks that they draw."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tzk_plugin_omniglot.omniglot import DRAWERS, Omniglot

from tzk_core.errors import TzkError
from tzk_core.random_streams import numpy_stream

SIZE, TRAINED, VALIDATION = 28, 1200, 64
SPLITS = ("vinyals", "alphabets")


@dataclass(frozen=True)
class Characters:
    """Drawings by character, uint8 (characters, 20, 1, 28, 28), and the alphabet of each character."""

    images: Tensor
    alphabet: np.ndarray

    def of(self, rows: np.ndarray) -> Characters:
        return Characters(self.images[torch.from_numpy(rows)], self.alphabet[rows])

    def turned(self) -> Characters:
        """The same with every quarter turn of each character as a character of its own."""
        images = torch.cat([torch.rot90(self.images, turns, (-2, -1)) for turns in range(4)])
        return Characters(images, np.tile(self.alphabet, 4))


@dataclass(frozen=True)
class Division:
    """Characters to train on, to validate with, and to test on.

    No two of these share a character.
    """

    train: Characters
    validation: Characters
    test: Characters


def read(split: str) -> Characters:
    """The characters of the background ("train") or evaluation alphabets ("test")."""
    samples = Omniglot(size=SIZE, validation=0).split(split)
    names, first, counts = np.unique(samples.labels["character"], return_index=True, return_counts=True)
    if (counts != DRAWERS).any():
        raise TzkError(f"{names[counts != DRAWERS][0]} is expected to have {DRAWERS} drawings: the files are damaged")
    order = np.argsort(samples.labels["character"], kind="stable")
    images = samples.T[torch.from_numpy(order)].view(len(names), DRAWERS, 1, SIZE, SIZE)
    return Characters(images, samples.labels["alphabet"][first])


def division(split: str, *, seed: int) -> Division:
    """Divide the characters.

    Args:
        split: "vinyals", 1,200 characters to train on and 423 for the test, at random among all (Vinyals et al. 2016).
            "alphabets": the 964 of the background alphabets and the 659 of the evaluation alphabets.
        seed: of the choice; of those to train on, 64 are for validation.
    """
    background, evaluation = read("train"), read("test")
    source = numpy_stream(seed, "division", split)
    if split == "alphabets":
        order = source.permutation(len(background.images))
        return Division(background.of(order[VALIDATION:]), background.of(order[:VALIDATION]), evaluation)
    joined = Characters(
        torch.cat([background.images, evaluation.images]), np.concatenate([background.alphabet, evaluation.alphabet])
    )
    order = source.permutation(len(joined.images))
    return Division(
        joined.of(order[VALIDATION:TRAINED]), joined.of(order[:VALIDATION]), joined.of(np.sort(order[TRAINED:]))
    )
