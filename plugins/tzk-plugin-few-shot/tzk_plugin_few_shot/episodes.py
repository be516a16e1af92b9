"""The loss of a few-shot episode, its classes and its images.

Classes are turned characters, and images slightly moved drawings of them.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from tzk_plugin_few_shot.distortions import augmented
from tzk_plugin_few_shot.predictive import log_ratio, predictive

GROUP = 20
"""The most characters of one alphabet in an episode."""


class Classes(NamedTuple):
    """Turned characters: their positions and numbers of quarter turns, (classes,) both."""

    rows: Tensor
    turns: Tensor


class Loss(NamedTuple):
    """Means over queries, in nats.

    ways: -log p(the own class given T), by Bayes over the classes of the episode.
    presence: -log p(κ given T), summed over the classes of the episode.
    """

    ways: Tensor
    presence: Tensor


def episode_loss(features: Tensor, between: Tensor) -> Loss:
    """The loss of an episode whose every drawing is once support and once query.

    With s drawings of each class, each of them in turn is the only support, and the others are queries. Then each is
    the query of all others. The prior p(κ=1) of a class is 1 over their number.

    Args:
        features: (classes, s, d), s at least 2.
        between: (d,), as in `predictive`.
    """
    drawings = features.shape[1]
    total = features.sum(1)
    losses = []
    for one in range(drawings):
        rest = torch.arange(drawings) != one
        alone = predictive(features[:, one], 1, between)
        losses.append(_loss(log_ratio(features[:, rest].flatten(0, 1), *alone), drawings - 1))
        others = predictive(total - features[:, one], drawings - 1, between)
        losses.append(_loss(log_ratio(features[:, one], *others), 1))
    return Loss(*(torch.stack(values).mean() for values in zip(*losses, strict=True)))


def _loss(ratio: Tensor, queries: int) -> Loss:
    """The loss of `queries` of each class in their order; ratio: (queries of all, classes)."""
    classes = ratio.shape[1]
    own = torch.arange(classes).repeat_interleave(queries)
    logits = ratio - math.log(classes - 1)
    present = functional.one_hot(own, classes).to(ratio)
    presence = functional.binary_cross_entropy_with_logits(logits, present, reduction="sum") / len(ratio)
    return Loss(functional.cross_entropy(ratio, own), presence)


def sample_classes(
    characters: int, generator: torch.Generator, *, classes: int, alphabets: Tensor | None = None, within: float = 0.0
) -> Classes:
    """Sample turned characters as classes.

    With probability `within` they are of few alphabets, up to `GROUP` characters of each, which are turned alike.

    Args:
        alphabets: of each character, integers (characters,), for `within` above 0.
    """
    if alphabets is None or float(torch.rand((), generator=generator)) >= within:
        chosen = torch.randperm(4 * characters, generator=generator)[:classes]
        return Classes(chosen // 4, chosen % 4)
    names = alphabets.unique()
    rows, turns = [], []
    for name in names[torch.randperm(len(names), generator=generator)]:
        own = (alphabets == name).nonzero().squeeze(1)
        rows.append(own[torch.randperm(len(own), generator=generator)[:GROUP]])
        turns.append(torch.randint(4, (1,), generator=generator).expand(len(rows[-1])))
    return Classes(torch.cat(rows)[:classes], torch.cat(turns)[:classes])


def sample_images(
    images: Tensor, classes: Classes, generator: torch.Generator, *, drawings: int, amount: float = 1.0
) -> Tensor:
    """Sample drawings of classes, each drawing slightly moved.

    Args:
        images: uint8, (characters, drawings of each, c, h, w), h = w.

    Returns:
        (classes · drawings, c, h, w) in [0, 1], drawings of one class in a row.
    """
    count = images.shape[1]
    chosen = torch.stack([torch.randperm(count, generator=generator)[:drawings] for _ in classes.rows])
    picked = images[classes.rows[:, None], chosen].float() / 255
    for quarter in range(1, 4):
        turned = classes.turns == quarter
        picked[turned] = torch.rot90(picked[turned], quarter, (-2, -1))
    return augmented(picked.flatten(0, 1), generator, amount=amount)
