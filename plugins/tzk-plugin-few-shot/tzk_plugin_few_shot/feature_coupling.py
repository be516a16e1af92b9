"""A flow layer that puts features of an image into the latent.

The features are of any network. It is an additive coupling.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tzk_core.errors import TzkError
from tzk_core.transforms.layer import Layer
from tzk_plugin_few_shot.feature_network import FeatureNetwork


def carriers(shape: tuple[int, ...], features: int) -> Tensor:
    """Positions in the flattened image of the pixels that carry features, (features,).

    They are those farthest from its centre.

    Raises:
        TzkError: unless the shape is (channels, height, width) and has more pixels than features.
    """
    if len(shape) != 3 or not 0 < features < math.prod(shape):
        raise TzkError(
            f"features are expected of (channels, height, width), at least one and fewer than its pixels; got {shape} "
            f"and {features} features"
        )
    rows, columns = (torch.arange(side, dtype=torch.float64) - (side - 1) / 2 for side in shape[1:])
    distance = (rows[:, None].square() + columns.square()).expand(shape)
    return distance.flatten().argsort(descending=True, stable=True)[:features]


def seen(shape: tuple[int, ...], features: int) -> Tensor:
    """The mask of the pixels that the network sees, `shape`.

    It is 0 where features go, 1 elsewhere.
    """
    mask = torch.ones(math.prod(shape))
    mask[carriers(shape, features)] = 0
    return mask.view(shape)


class FeatureCoupling(Layer):
    """z = (s x_a + φ(x_b), x_b), whose first entries are features φ.

    They are of nearly all of an image.

    An additive coupling (Dinh et al. 2015): whatever the network, it is invertible, and log|det| is log s for every
    feature. x_a are the `carriers`, pixels at the corners, which hardly ever have ink; the network sees them as 0. A
    small s leaves little of them beside the features, whose variance is 1. z is a vector.

    The network is always in evaluation mode, so that the layer is a function of single images.

    shape: (channels, height, width), sides of at least 8 · stride.
    features: how many. channels, stride: of the network's first convolution. views: of an image, which features are
        the mean over. residual: if it has residual blocks. scale: s.
    """

    others: Tensor
    carriers: Tensor

    def __init__(
        self,
        shape: tuple[int, ...],
        features: int = 64,
        *,
        channels: int = 32,
        stride: int = 1,
        views: int = 1,
        residual: bool = False,
        scale: float = 0.05,
    ) -> None:
        super().__init__()
        if not 0 < scale < math.inf:
            raise TzkError(f"the scale of the pixels under the features is expected as a number above 0; got {scale}")
        first, mask = carriers(shape, features), seen(shape, features)
        self.shape, self.output_shape = tuple(shape), (mask.numel(),)
        self.log_scale = math.log(scale)
        self.register_buffer("carriers", first, persistent=False)
        self.register_buffer("others", mask.flatten().nonzero().squeeze(1), persistent=False)
        image = (shape[0], shape[1], shape[2])
        self.network = FeatureNetwork(image, features, channels, stride=stride, views=views, residual=residual)
        self.eval()

    def train(self, mode: bool = True) -> FeatureCoupling:  # noqa: FBT001, FBT002  torch's signature
        super().train(mode)
        self.network.eval()
        return self

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        flat = inputs.flatten(1)
        rest = flat[:, self.others]
        carried = math.exp(self.log_scale) * flat[:, self.carriers] + self._features(rest)
        return torch.cat([carried, rest], 1), self._logabsdet(inputs)

    def inverse(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        carried, rest = inputs.split([len(self.carriers), len(self.others)], 1)
        flat = inputs.new_zeros(inputs.shape)
        flat = flat.index_copy(1, self.others, rest)
        flat = flat.index_copy(1, self.carriers, (carried - self._features(rest)) * math.exp(-self.log_scale))
        return flat.view(-1, *self.shape), -self._logabsdet(inputs)

    def _features(self, rest: Tensor) -> Tensor:
        blank = rest.new_zeros(len(rest), math.prod(self.shape))
        return self.network(blank.index_copy(1, self.others, rest).view(-1, *self.shape))

    def _logabsdet(self, inputs: Tensor) -> Tensor:
        return inputs.new_full((len(inputs),), len(self.carriers) * self.log_scale)
