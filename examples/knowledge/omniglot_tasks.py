"""Omniglot in classes, divided as few-shot experiments have it, and the tasks that they draw."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from tzk_plugin_omniglot.omniglot import DRAWERS, Omniglot

from tzk_core.errors import TzkError
from tzk_core.random_streams import numpy_stream

TRAINED, WAYS, QUERIES = 1200, 20, 15
SPLITS = ("alphabets", "vinyals")
ALPHABETS_TO_CHOOSE, CHARACTERS_TO_CHOOSE = 6, 200
"""What is held out of the training, for choices: alphabets of at least `WAYS` characters, or characters."""


@dataclass(frozen=True)
class Characters:
    """Drawings by character, uint8 (characters, 20, 1, size, size), and the alphabet of each character."""

    images: Tensor
    alphabet: np.ndarray

    def of(self, rows: np.ndarray) -> Characters:
        return Characters(self.images[torch.from_numpy(rows)], self.alphabet[rows])

    def turned(self) -> Characters:
        """The same with every quarter turn of each character as a character of its own."""
        images = torch.cat([torch.rot90(self.images, turns, (-2, -1)) for turns in range(4)])
        return Characters(images, np.tile(self.alphabet, 4))


class Division(NamedTuple):
    """Characters to train on, and others to test on."""

    train: Characters
    test: Characters


class Task(NamedTuple):
    """Positions of drawings among (characters, drawings): support, (ways, shots), and queries, (ways, q)."""

    characters: np.ndarray
    support: np.ndarray
    queries: np.ndarray


def read(split: str, size: int) -> Characters:
    """The characters of the background ("train") or evaluation alphabets ("test")."""
    samples = Omniglot(size=size, validation=0).split(split)
    names, first, counts = np.unique(samples.labels["character"], return_index=True, return_counts=True)
    if (counts != DRAWERS).any():
        raise TzkError(f"{names[counts != DRAWERS][0]} is expected to have {DRAWERS} drawings: the files are damaged")
    order = np.argsort(samples.labels["character"], kind="stable")
    images = samples.T[torch.from_numpy(order)].view(len(names), DRAWERS, 1, size, size)
    return Characters(images, samples.labels["alphabet"][first])


def division(split: str, *, seed: int, size: int = 28, choose: bool = False) -> Division:
    """Divide the characters.

    Args:
        split: "vinyals", 1,200 characters to train on and 423 for the test, at random among all (Vinyals et al. 2016).
            "alphabets": the 964 of the background alphabets and the 659 of the evaluation alphabets.
        seed: of the choice.
        size: of the images, in pixels.
        choose: Divide those to train on instead, for choices: whole alphabets are held out of "alphabets", 200
            characters of "vinyals".
    """
    source = numpy_stream(seed, "division", split)
    if split == "alphabets":
        background = read("train", size)
        return held_out_alphabets(background, source) if choose else Division(background, read("test", size))
    parts = read("train", size), read("test", size)
    joined = Characters(torch.cat([part.images for part in parts]), np.concatenate([part.alphabet for part in parts]))
    order = source.permutation(len(joined.images))
    train, test = order[:TRAINED], order[TRAINED:]
    if choose:
        train, test = train[CHARACTERS_TO_CHOOSE:], train[:CHARACTERS_TO_CHOOSE]
    return Division(joined.of(np.sort(train)), joined.of(np.sort(test)))


def held_out_alphabets(characters: Characters, source: np.random.Generator) -> Division:
    """Hold out `ALPHABETS_TO_CHOOSE` alphabets that runs can be drawn from."""
    names, sizes = np.unique(characters.alphabet, return_counts=True)
    chosen = source.permutation(names[sizes >= WAYS])[:ALPHABETS_TO_CHOOSE]
    held = np.isin(characters.alphabet, chosen)
    return Division(*(characters.of(np.flatnonzero(part)) for part in (~held, held)))


def tasks(count: int, characters: int, *, ways: int, shots: int, seed: int) -> Iterator[Task]:
    """Tasks of `ways` of the characters.

    A character has `shots` drawings and `QUERIES` others to be told.
    """
    source = numpy_stream(seed, "tasks", ways, shots)
    for _ in range(count):
        drawings = np.stack([source.permutation(DRAWERS)[: shots + QUERIES] for _ in range(ways)])
        yield Task(source.permutation(characters)[:ways], drawings[:, :shots], drawings[:, shots:])


def runs_alike(test: Characters, count: int, *, seed: int) -> Iterator[Task]:
    """Runs in the form of the 20.

    They are of 20 characters of one alphabet, one drawing by one drawer, one by another.
    """
    source = numpy_stream(seed, "runs")
    names, sizes = np.unique(test.alphabet, return_counts=True)
    alphabets = source.permutation(names[sizes >= WAYS])
    for number in range(count):
        rows = np.flatnonzero(test.alphabet == alphabets[number % len(alphabets)])
        drawers = np.tile(source.permutation(DRAWERS)[:2], (WAYS, 1))
        yield Task(source.permutation(rows)[:WAYS], drawers[:, :1], drawers[:, 1:])
