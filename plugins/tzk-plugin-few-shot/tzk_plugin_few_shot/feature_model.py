"""A model from trained features.

It is a shared flow that has them, and what their classes have in common.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import nn

from tzk_core.build import build_flow, build_knowledge
from tzk_core.model import TzK
from tzk_plugin_few_shot.exchangeable import ClassesKnowledge
from tzk_plugin_few_shot.feature_training import Features

CLASSES = "classes"
"""The name of the knowledge that new classes start from."""


@torch.no_grad()
def model_of(features: Features, shape: tuple[int, int, int]) -> TzK:
    """The model whose latent starts with these features of images of `shape`.

    It has one knowledge type, `CLASSES`. A class is added with `implies = ["classes"]` and `start = "classes"`.
    """
    number = len(features.raw_between)
    network = features.network
    first = cast("nn.Conv2d", network.convolutions[0])
    layer = {"features": number, "channels": first.out_channels, "stride": first.stride[0]}
    layer |= {"views": network.views, "residual": network.residual}
    flow = build_flow(shape, layers=[{"type": "feature-coupling", **layer}])
    (coupling,) = flow.transform._transforms
    coupling.network.load_state_dict(network.state_dict())
    model = TzK(flow)
    made = build_knowledge("exchangeable-classes", model.latent_shape, name=CLASSES, features=number)
    classes = cast("ClassesKnowledge", made)
    classes.between.copy_(features.between)
    model.add(CLASSES, classes)
    return model
