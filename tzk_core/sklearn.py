"""A density estimator in the form of scikit-learn, for vectors; scikit-learn has to be installed.

from tzk_core.sklearn import TzKDensity
log_density = TzKDensity(steps=2000).fit(X).score_samples(X_test)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from tzk_core.build import build_flow
from tzk_core.errors import TzkError
from tzk_core.model import TzK
from tzk_core.training.fit import fit

try:
    from sklearn.base import BaseEstimator, DensityMixin
    from sklearn.utils.validation import check_is_fitted, check_random_state, validate_data
except ImportError as missing:
    raise TzkError(
        f"tzk_core.sklearn needs scikit-learn 1.6 or later ({missing}): pip install scikit-learn"
    ) from missing

COUPLINGS = tuple(
    layer
    for turn in range(4)
    for layer in (
        {"type": "lu-linear"},
        {
            "type": "masked-piecewise-rational-quadratic-autoregressive-transform",
            "hidden_features": 32,
            "num_bins": 8,
            "tails": "linear",
            "tail_bound": 4.0,
        },
    )
)
"""The flow of an estimator without layers of its own: rational-quadratic splines and linear maps in turn."""


class TzKDensity(DensityMixin, BaseEstimator):
    """A normalizing flow with `fit`, `score_samples`, `score` and `sample` on arrays, (n, features).

    Columns are standardised, and densities are those of the data as they come. Arguments are stored as they are;
    `model_`, a `TzK` over standardised columns, and `history_`, the log by column, are there after `fit`.

    Args:
        layers: tables of flow layers as `build_flow` takes them; None for rational-quadratic splines.
        steps: of training.
        batch_size: rows in a step, at most all.
        learning_rate: of training.
        settings: further ones of `tzk_core.fit`.
        random_state: a seed, a generator of numpy, or None.
    """

    def __init__(
        self,
        *,
        layers: Any = None,
        steps: int = 1000,
        batch_size: int = 256,
        learning_rate: float = 3e-3,
        settings: Mapping[str, Any] | None = None,
        random_state: Any = None,
    ) -> None:
        self.layers = layers
        self.steps = steps
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.settings = settings
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> Self:
        """Train on X, (n, features); y is ignored."""
        X = validate_data(self, X, dtype=np.float64, ensure_min_samples=2)
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        self.mean_, self.scale_ = X.mean(0), X.std(0)
        self.scale_ = np.where(self.scale_ > 0, self.scale_, 1.0)
        layers = COUPLINGS if self.layers is None else self.layers
        self.model_ = TzK(build_flow((X.shape[1],), layers=layers, seed=seed))
        settings: dict[str, Any] = {"steps": self.steps, "batch_size": self.batch_size}
        settings["learning_rate"] = self.learning_rate
        history = fit(self.model_, self._standardised(X), seed=seed, **settings, **(self.settings or {}))
        self.history_ = {column: history[column] for column in history.columns}
        return self

    def score_samples(self, X: Any) -> np.ndarray:
        """log p(x) of every row of X, (n,), in nats."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        with torch.no_grad():
            log_prob = self.model_.log_prob(self._standardised(X))
        return log_prob.double().numpy() - np.log(self.scale_).sum()

    def score(self, X: Any, y: Any = None) -> float:
        """The sum of log p(x) over the rows of X, as of scikit-learn's `KernelDensity`."""
        return float(self.score_samples(X).sum())

    def sample(self, n_samples: int = 1, random_state: Any = None) -> np.ndarray:
        """Sample, (n_samples, features).

        Args:
            random_state: as of the constructor.
        """
        check_is_fitted(self)
        seed = int(check_random_state(random_state).randint(2**31 - 1))
        return self.model_.sample(n_samples, seed=seed).double().numpy() * self.scale_ + self.mean_

    def _standardised(self, X: np.ndarray) -> Tensor:
        return torch.from_numpy((X - self.mean_) / self.scale_).to(torch.get_default_dtype())
