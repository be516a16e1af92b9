"""Trained features as means over views of an image.

They are in the directions that tell classes apart.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from tzk_plugin_few_shot.exchangeable import shares_between
from tzk_plugin_few_shot.feature_network import view_maps
from tzk_plugin_few_shot.feature_training import Features

RIDGE = 0.1
"""What is added to the variance of every feature within classes, as a share of the mean of these variances."""


def discriminants(values: Tensor, *, ridge: float = RIDGE) -> Tensor:
    """The directions in which classes differ most, for how much their samples differ.

    They are columns, (d, d), best first. In them features are uncorrelated both between and within classes, as
    `predictive` has it, but for the ridge (Fisher 1936; PLDA, Ioffe 2006).

    Args:
        values: (classes, samples, d), at least two of both.
    """
    values = values.double()
    classes, samples, d = values.shape
    centred = (values - values.mean(1, keepdim=True)).flatten(0, 1)
    within = centred.T @ centred / (classes * (samples - 1))
    total = torch.cov(values.flatten(0, 1).T)
    added = ridge * within.diagonal().mean() * torch.eye(d, dtype=values.dtype)
    root = torch.linalg.inv(torch.linalg.cholesky(total + added))
    _, turn = torch.linalg.eigh(root @ (within + added) @ root.T)
    return root.T @ turn


@torch.no_grad()
def averaged(features: Features, images: Tensor, views: int, *, mask: Tensor | None = None) -> Features:
    """The features as means over `views` of an image.

    The given ones are left as they are. A mean varies less within classes than features of one view, which were
    trained. So their `discriminants` are taken, moments over the images are 0 and 1, and b is estimated, all in closed
    form.

    Args:
        images: uint8 (classes, drawings, c, h, w) of the training.
        mask: as in `FeatureTraining`.
    """
    made = copy.deepcopy(features).eval()
    network = made.network
    network.maps = view_maps(views).to(network.maps)
    parts = (part / 255 if mask is None else part / 255 * mask for part in images.flatten(0, 1).split(100))
    raw = torch.cat([network.raw(part) for part in parts])
    directions = discriminants(raw.view(*images.shape[:2], -1)).to(raw)
    network.linear.weight.copy_(directions.T @ network.linear.weight)
    values = raw @ directions
    moments = {"running_mean": values.mean(0), "running_var": values.var(0)}
    network.normalisation.load_state_dict({**network.normalisation.state_dict(), **moments})
    classes = torch.arange(len(images)).repeat_interleave(images.shape[1])
    normalised = (values - values.mean(0)) / values.std(0)
    made.raw_between.copy_(shares_between(normalised, classes).logit())
    return made
