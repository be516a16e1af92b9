"""The score `dose`: how usual the statistics of an image are.

Their densities are fitted to training images alone.
After Morningstar et al. (2021), "Density of states estimation for out-of-distribution detection".
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from tzk_plugin_features.features import PatchFeatures
from tzk_plugin_features.mixture import Components

from tzk_core.errors import TzkError
from tzk_core.model import TzK
from tzk_core.random_streams import stream
from tzk_plugin_outside.complexity import code_length
from tzk_plugin_outside.patches import PatchDensity
from tzk_plugin_outside.states import state_names, states

STATES, IMAGES = 3000, 12_000
"""Training images at most: for the statistics, and for the density of features."""

FITTED, COMPONENTS = 6000, 100
"""Images that the features are fitted to, and Gaussians of their density."""

RIDGE = 0.02
"""The share of the identity in the correlation of the statistics."""

FALSE_ALARMS = 0.05
"""The quantile of validation images that sets the unit of a part."""


@dataclass(frozen=True)
class Gaussian:
    """A Gaussian of statistics, (k,), with a correlation shrunk towards the identity."""

    mean: Tensor
    scale: Tensor
    precision: Tensor

    @classmethod
    def of(cls, values: Tensor) -> Gaussian:
        """Fit to values, (n, k)."""
        mean, scale = values.mean(0), values.std(0).clamp_min(1e-9)
        whole = ((values - mean) / scale).T @ ((values - mean) / scale) / len(values)
        identity = torch.eye(len(mean), dtype=values.dtype)
        return cls(mean, scale, torch.linalg.inv((1 - RIDGE) * whole + RIDGE * identity))

    def typicality(self, values: Tensor) -> Tensor:
        """Minus the squared Mahalanobis distance, (n,)."""
        away = (values - self.mean) / self.scale
        return -((away @ self.precision) * away).sum(1)


@dataclass(frozen=True)
class Parts:
    """What the score is made of, (n,) each, large for usual images.

    table: the single statistics, (n, k).
    """

    states: Tensor
    features: Tensor
    table: Tensor


class Dose:
    """How usual an image is, by densities of its statistics and features.

    Two parts are compared with validation images. One is the typicality of the statistics `names` under a Gaussian. The
    other is the log-density of the features of `tzk-plugin-features` under a mixture of Gaussians. The shortfall of
    a part is how far it lies below its median there, in units of the distance from the median to the 5 % quantile. The
    score is minus the sum of both shortfalls. Nothing is fitted to anything from outside.

    Args:
        train, validation: images, (n, *shape), dequantised, in the scale of the model. The first ones of `train` are
            used: shuffle them.
        levels: of grey.
    """

    def __init__(self, model: TzK, train: Tensor, validation: Tensor, *, levels: int, seed: int = 0) -> None:
        if len(model.shape) != 3:
            raise TzkError(f"dose expects a model of images, (channels, height, width); this one's are {model.shape}")
        self.model, self.levels = model, levels
        source = stream(seed, "dose")
        self.features = PatchFeatures(model.shape, filters=48, patch=7, channels=12, grid=4)
        self.features.fit(train[:FITTED], source)
        self.mixture = Components(COMPONENTS, self.features.dims)
        y = torch.cat([self.features(part) for part in train[:IMAGES].split(500)])
        self.log_weights = self.mixture.fit(y, shrinkage=0.2, trust=20.0, generator=source).log()
        self.patches = PatchDensity(train[: STATES // 2], source)
        table, count = self._table(train[:STATES]), len(state_names(model))
        self.gaussian = Gaussian.of(table)
        self.sources = {
            "model alone": (slice(count), Gaussian.of(table[:, :count])),
            "patches and length alone": (slice(count, None), Gaussian.of(table[:, count:])),
        }
        own = self.parts(validation)
        self.units = {name: _unit(values) for name, values in (("states", own.states), ("features", own.features))}
        self.validation = self.combined(own)

    @property
    def names(self) -> tuple[str, ...]:
        """The single statistics: of the model, of patches, and the length of a lossless code."""
        return (*state_names(self.model), *PatchDensity.names, "length")

    def parts(self, T: Tensor) -> Parts:
        """The `Parts` of images, (n, *shape)."""
        table = self._table(T)
        y = torch.cat([self.features(part) for part in T.split(500)])
        ratio = torch.cat([self.mixture(part) for part in y.split(500)])
        density = (ratio + self.log_weights).logsumexp(1) - 0.5 * y.square().sum(1)
        return Parts(self.gaussian.typicality(table), density.double(), table)

    def combined(self, parts: Parts) -> Tensor:
        """The score, (n,), at most 0; what is not a number is the least usual."""
        shortfalls = []
        for name, values in (("states", parts.states), ("features", parts.features)):
            median, unit = self.units[name]
            shortfalls.append(((median - values) / unit).nan_to_num(nan=torch.inf).clamp_min(0))
        return -torch.stack(shortfalls).sum(0)

    def score(self, T: Tensor) -> Tensor:
        """`combined` of the parts of images, (n, *shape)."""
        return self.combined(self.parts(T))

    def statistics(self, T: Tensor) -> dict[str, Tensor]:
        """By name, (n,) each, large for usual images: everything there is.

        That is the score, its parts, log p(T), the two sources, and statistics alone.

        `sources` are the statistics of the model, and those of patches with the length, which need no model. Alone a
        statistic is minus its distance from its mean, in standard deviations; `likelihood` is log p(T) itself.
        """
        parts = self.parts(T)
        alone = -((parts.table - self.gaussian.mean) / self.gaussian.scale).abs()
        single = {name: alone[:, column] for column, name in enumerate(self.names)}
        apart = {
            name: gaussian.typicality(parts.table[:, columns]) for name, (columns, gaussian) in self.sources.items()
        }
        scores = {"dose": self.combined(parts), "states": parts.states, "features": parts.features}
        return scores | {"likelihood": parts.table[:, 0]} | apart | single

    def _table(self, T: Tensor) -> Tensor:
        length = code_length(T, self.levels)
        return torch.cat([states(self.model, T), self.patches.statistics(T).double(), length[:, None]], 1)


def _unit(values: Tensor) -> tuple[float, float]:
    """The median, and its distance from the quantile `FALSE_ALARMS`."""
    median, low = values.median().item(), values.quantile(FALSE_ALARMS).item()
    return median, max(median - low, 1e-9)
