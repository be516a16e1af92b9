"""The loss of a few-shot episode, and its images: rotated classes, slightly moved drawings."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from tzk_plugin_few_shot.predictive import log_ratio, predictive


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


def augmented(images: Tensor, generator: torch.Generator, *, amount: float = 1.0) -> Tensor:
    """Images under small random affine maps: rotation, scale, shear and shift of each.

    Args:
        images: (n, c, h, w) in [0, 1], 0 the ground.
        amount: 0 leaves them as they are. At 1 deviations are 6 degrees, 8 % and 1 pixel in 28.
    """
    n = len(images)
    random = amount * torch.randn(n, 6, generator=generator)
    angle, stretch = 0.1 * random[:, 0], 0.08 * random[:, 1:3]
    shear, shift = 0.08 * random[:, 3], 0.07 * random[:, 4:]
    cos, sin = angle.cos(), angle.sin()
    rows = torch.stack([cos * (1 + stretch[:, 0]), -sin + shear, shift[:, 0]], 1)
    columns = torch.stack([sin, cos * (1 + stretch[:, 1]), shift[:, 1]], 1)
    grid = functional.affine_grid(torch.stack([rows, columns], 1), list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, align_corners=False)


def sample_episode(
    images: Tensor, generator: torch.Generator, *, classes: int, drawings: int, amount: float = 1.0
) -> Tensor:
    """Sample the images of an episode.

    Each class is turned by a random multiple of 90 degrees.

    Args:
        images: uint8, (characters, drawings of each, c, h, w), h = w.

    Returns:
        (classes · drawings, c, h, w) in [0, 1], drawings of one class in a row.
    """
    chosen = torch.randperm(4 * len(images), generator=generator)[:classes]
    rows = torch.stack([torch.randperm(images.shape[1], generator=generator)[:drawings] for _ in range(classes)])
    picked = images[(chosen // 4)[:, None], rows].float() / 255
    for turns in range(1, 4):
        turned = chosen % 4 == turns
        picked[turned] = torch.rot90(picked[turned], turns, (-2, -1))
    return augmented(picked.flatten(0, 1), generator, amount=amount)
