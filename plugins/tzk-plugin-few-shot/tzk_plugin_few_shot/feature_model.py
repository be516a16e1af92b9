"""A model from trained features.

It is a shared flow that has them, and what their classes have in common.
"""

from __future__ import annotations

import copy
from typing import cast

import torch
from torch import Tensor

from tzk_core.build import build_flow, build_knowledge
from tzk_core.model import TzK
from tzk_plugin_few_shot.exchangeable import ClassesKnowledge
from tzk_plugin_few_shot.feature_network import view_maps
from tzk_plugin_few_shot.feature_training import Features

CLASSES = "classes"
"""The name of the knowledge that new classes start from."""


@torch.no_grad()
def model_of(features: Features, shape: tuple[int, int, int]) -> TzK:
    """The model whose latent starts with these features of images of `shape`.

    It has one knowledge type, `CLASSES`. A class is added with `implies = ["classes"]` and `start = "classes"`.
    """
    number = len(features.raw_between)
    channels = features.network.convolutions[0].out_channels
    stride = features.network.convolutions[0].stride[0]
    layer = {"features": number, "channels": channels, "stride": stride, "views": features.network.views}
    flow = build_flow(shape, layers=[{"type": "feature-coupling", **layer}])
    (coupling,) = flow.transform._transforms
    coupling.network.load_state_dict(features.network.state_dict())
    model = TzK(flow)
    made = build_knowledge("exchangeable-classes", model.latent_shape, name=CLASSES, features=number)
    classes = cast("ClassesKnowledge", made)
    classes.between.copy_(features.between)
    model.add(CLASSES, classes)
    return model


@torch.no_grad()
def averaged(
    features: Features, images: Tensor, views: int, *, mask: Tensor | None = None, batch_size: int = 500
) -> Features:
    """The features as means over `views` of an image, normalised anew; the given ones are left as they are.

    Args:
        images: uint8 (n, c, h, w), of the training; over them features get mean 0 and variance 1.
        mask: as in `FeatureTraining`.
    """
    made = copy.deepcopy(features).eval()
    network = made.network
    network.maps = view_maps(views).to(network.maps)
    parts = (part / 255 if mask is None else part / 255 * mask for part in images.split(batch_size))
    raw = torch.cat([network.raw(part) for part in parts])
    for moment, value in (("running_mean", raw.mean(0)), ("running_var", raw.var(0))):
        getattr(network.normalisation, moment).copy_(value)
    return made
