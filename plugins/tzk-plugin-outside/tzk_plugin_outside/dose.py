"""The score `dose`: how usual the statistics of an image are.

Their densities are fitted to training images alone.
After Morningstar et al. (2021), "Density of states estimation for out-of-distribution detection".
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from tzk_plugin_features.features import PatchFeatures
from tzk_plugin_features.mixture import Components

from tzk_core.errors import TzkError
from tzk_core.model import TzK
from tzk_core.random_streams import stream
from tzk_plugin_outside.complexity import code_length
from tzk_plugin_outside.densities import Regression, StateDensity
from tzk_plugin_outside.patches import PatchDensity
from tzk_plugin_outside.states import state_names, states

LEAST, IMAGES = 50, 15_000
"""Training images at least, and at most."""

APART = 5
"""One in so many of them is for the regression of the features' log-density, whose density does not know them."""

STATES = 3000
"""Training images at most that the statistics are computed of."""

FITTED, COMPONENTS = 6000, 100
"""Images that the features are fitted to, and Gaussians of their density."""

EXPECTED, FEATURES = 0.5, 0.5
"""The share of what is expected of the features that is taken off, and the weight of their shortfall.

They are the best of a grid on corruptions of validation images, of MNIST and Omniglot (`docs/knowledge/strangers.md`).
"""

FALSE_ALARMS = 0.05
"""The quantile of validation images that sets the unit of a part."""


@dataclass(frozen=True)
class Parts:
    """What the score is made of, (n,) each, large for usual images.

    features: their log-density less a share of what is expected by the statistics.
    density: of the features, before that.
    table: the single statistics, (n, k).
    """

    states: Tensor
    features: Tensor
    density: Tensor
    table: Tensor


class Fitted(nn.Module):
    """Everything of `Dose` that is fitted to images: buffers alone.

    units: the median and the unit of `states` and of `features`, (2, 2).

    Args:
        shape: of images, (channels, height, width).
        statistics: of the model, how many there are.
    """

    log_weights: Tensor
    units: Tensor

    def __init__(self, shape: tuple[int, ...], statistics: int) -> None:
        super().__init__()
        count = statistics + len(PatchDensity.names) + 1
        self.features = PatchFeatures(shape, filters=48, patch=7, channels=12, grid=4)
        self.mixture = Components(COMPONENTS, self.features.dims)
        self.patches = PatchDensity(shape[0])
        self.states = StateDensity(count)
        self.of_model, self.without_model = StateDensity(statistics), StateDensity(count - statistics)
        self.expected = Regression(count)
        self.register_buffer("log_weights", torch.zeros(COMPONENTS, dtype=torch.float64))
        self.register_buffer("units", torch.ones(2, 2, dtype=torch.float64))

    def density(self, images: Tensor) -> Tensor:
        """The log-density of the features, (n,), of images, (n, *shape), but for a constant."""
        y = torch.cat([self.features(part) for part in images.split(500)])
        ratio = torch.cat([self.mixture(part) for part in y.split(500)])
        return (ratio + self.log_weights).logsumexp(1) - 0.5 * y.square().sum(1).double()


class Dose:
    """How usual an image is, by densities of its statistics and features.

    There are two parts. One is the log-density of the statistics `names`. The other is that of the features of
    `tzk-plugin-features`, less half of what a linear regression on the statistics expects of it. Without that, simple
    images have usual features, whatever they show. Both densities are mixtures of Gaussians.

    The shortfall of a part is how far it lies below its median on validation images, in units of the distance from the
    median to the 5 % quantile. The score is minus the weighted sum of both shortfalls. Nothing is fitted to anything
    from outside.

    Args:
        fitted: as `fit` makes it, or as it was stored.
        levels: of grey.
    """

    def __init__(self, model: TzK, fitted: Fitted, *, levels: int) -> None:
        self.model, self.fitted, self.levels = model, fitted, levels

    @classmethod
    def unfitted(cls, model: TzK, *, levels: int) -> Dose:
        """What `fit` begins with, and what is stored is read into.

        Raises:
            TzkError: unless the model is one of images, which are large enough.
        """
        if len(model.shape) != 3:
            raise TzkError(f"dose expects a model of images, (channels, height, width); this one's are {model.shape}")
        return cls(model, Fitted(model.shape, len(state_names(model))), levels=levels)

    @classmethod
    @torch.no_grad()
    def fit(cls, model: TzK, train: Tensor, validation: Tensor, *, levels: int, seed: int = 0) -> Dose:
        """Fit the densities to training images, and the units of both parts to validation images.

        Args:
            train, validation: images, (n, *shape), dequantised, in the scale of the model. The first ones of `train`
                are used: shuffle them.

        Raises:
            TzkError: unless the model is one of images, which have some contrast, and there are at least `LEAST`.
        """
        if len(train) < LEAST:
            raise TzkError(f"dose is fitted to at least {LEAST} training images; got {len(train)}")
        dose, source = cls.unfitted(model, levels=levels), stream(seed, "dose")
        fitted, apart = dose.fitted, min(len(train), IMAGES) // APART
        others = train[apart:IMAGES]
        fitted.features.fit(others[:FITTED], source)
        y = torch.cat([fitted.features(part) for part in others.split(500)])
        fitted.log_weights = fitted.mixture.fit(y, shrinkage=0.2, trust=20.0, generator=source).log()
        fitted.patches.fit(others[: STATES // 2], source)
        table, count = dose.table(train[:STATES]), len(state_names(model))
        fitted.states.fit(table, source)
        fitted.of_model.fit(table[:, :count], source)
        fitted.without_model.fit(table[:, count:], source)
        apart = min(apart, STATES)
        fitted.expected.fit(table[:apart], fitted.density(train[:apart]))
        own = dose.parts(validation)
        fitted.units = torch.tensor([unit_of(own.states), unit_of(own.features)], dtype=torch.float64)
        return dose

    @property
    def names(self) -> tuple[str, ...]:
        """The single statistics: of the model, of patches, and the length of a lossless code."""
        return (*state_names(self.model), *PatchDensity.names, "length")

    @torch.no_grad()
    def parts(self, T: Tensor) -> Parts:
        """The `Parts` of images, (n, *shape)."""
        table, density = self.table(T), self.fitted.density(T)
        features = density - EXPECTED * self.fitted.expected(table)
        return Parts(self.fitted.states(table), features, density, table)

    def combined(self, parts: Parts) -> Tensor:
        """The score, (n,), at most 0; what is not a number is the least usual."""
        values = torch.stack([parts.states, parts.features], 1)
        shortfalls = ((self.fitted.units[:, 0] - values) / self.fitted.units[:, 1]).nan_to_num(nan=torch.inf)
        return -(shortfalls.clamp_min(0) @ torch.tensor([1.0, FEATURES], dtype=torch.float64))

    def score(self, T: Tensor) -> Tensor:
        """`combined` of the parts of images, (n, *shape)."""
        return self.combined(self.parts(T))

    def statistics(self, T: Tensor) -> dict[str, Tensor]:
        """By name, (n,) each, large for usual images: everything there is.

        That is the score, its parts, the density of the features and log p(T). The statistics of the model follow, and
        those of patches with the length, which need no model, each by a density of its own. Then come statistics
        alone: minus the distance from the mean, in standard deviations.
        """
        fitted, parts = self.fitted, self.parts(T)
        single = dict(zip(self.names, -fitted.states.standardised(parts.table).abs().T.contiguous(), strict=True))
        count = len(state_names(self.model))
        return {
            "dose": self.combined(parts),
            "states": parts.states,
            "features": parts.features,
            "features' density": parts.density,
            "likelihood": parts.table[:, 0],
            "model alone": fitted.of_model(parts.table[:, :count]),
            "patches and length alone": fitted.without_model(parts.table[:, count:]),
        } | single

    def table(self, T: Tensor) -> Tensor:
        """The single statistics, (n, len(names)), of images, (n, *shape)."""
        patches = self.fitted.patches.statistics(T).double()
        return torch.cat([states(self.model, T), patches, code_length(T, self.levels)[:, None]], 1)


def unit_of(values: Tensor) -> tuple[float, float]:
    """The median, and its distance from the quantile `FALSE_ALARMS`."""
    median, low = values.median().item(), values.quantile(FALSE_ALARMS).item()
    return median, max(median - low, 1e-9)
