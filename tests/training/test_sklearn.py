"""The estimator in the form of scikit-learn: its own checks, known densities, and the model inside."""

from __future__ import annotations

import builtins
import importlib
import sys
from typing import Any

import numpy as np
import pytest
import torch

from tzk_core import TzkError

pytest.importorskip("sklearn", minversion="1.6", reason="scikit-learn is not installed")

from scipy import stats
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import estimator_checks_generator

from tzk_core.sklearn import TzKDensity

LINEAR = [{"type": "lu-linear"}]
"""With a standard Gaussian base it is any Gaussian."""

MEAN, COVARIANCE = np.array([3.0, -200.0]), np.array([[4.0, 15.0], [15.0, 100.0]])


def gaussian(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).multivariate_normal(MEAN, COVARIANCE, n)


@pytest.fixture(scope="module")
def fitted() -> TzKDensity:
    return TzKDensity(layers=LINEAR, steps=300, learning_rate=2e-2, random_state=0).fit(gaussian(2000))


def small(**more: Any) -> TzKDensity:
    return TzKDensity(layers=LINEAR, steps=3, random_state=0, **more)


@pytest.mark.parametrize(
    ("estimator", "check"),
    [pytest.param(*pair, id=pair[1].func.__name__) for pair in estimator_checks_generator(small())],
)
def test_scikit_learn_takes_it_for_an_estimator(estimator: Any, check: Any) -> None:
    check(estimator)


def test_a_gaussian_is_learned_in_the_units_of_the_data(fitted: TzKDensity) -> None:
    X = gaussian(500, seed=1)
    expected = stats.multivariate_normal(MEAN, COVARIANCE).logpdf(X)
    np.testing.assert_allclose(fitted.score_samples(X).mean(), expected.mean(), atol=0.05)
    np.testing.assert_allclose(fitted.score_samples(X), expected, atol=0.4)
    assert fitted.score(X) == pytest.approx(fitted.score_samples(X).sum())
    samples = fitted.sample(20_000, random_state=1)
    np.testing.assert_allclose(samples.mean(0), MEAN, atol=0.6)
    np.testing.assert_allclose(np.cov(samples.T), COVARIANCE, rtol=0.15)


def test_the_density_is_that_of_the_model_inside(fitted: TzKDensity) -> None:
    X = gaussian(5, seed=2)
    inside = torch.from_numpy((X - fitted.mean_) / fitted.scale_).float()
    log_prob = fitted.model_.log_prob(inside).detach().double().numpy() - np.log(fitted.scale_).sum()
    np.testing.assert_allclose(fitted.score_samples(X), log_prob, rtol=1e-6)
    assert fitted.history_["step"][-1] == 300


def test_the_seed_decides() -> None:
    X = gaussian(50)
    first, again, other = small().fit(X), small().fit(X), small().set_params(random_state=1).fit(X)
    np.testing.assert_array_equal(first.score_samples(X), again.score_samples(X))
    assert not np.array_equal(first.score_samples(X), other.score_samples(X))
    np.testing.assert_array_equal(first.sample(3, 7), again.sample(3, 7))
    assert not np.array_equal(first.sample(3, 7), first.sample(3, 8))


def test_it_takes_part_in_pipelines_and_searches() -> None:
    X = gaussian(60)
    pipeline = make_pipeline(StandardScaler(), small()).fit(X)
    assert pipeline.score_samples(X).shape == (60,)
    search = GridSearchCV(small(), {"learning_rate": [1e-4, 1e-1]}, cv=2).fit(X)
    assert search.best_params_["learning_rate"] == 1e-1
    assert clone(small(settings={"weight_decay": 0.0})).settings == {"weight_decay": 0.0}


def test_the_flow_without_layers_is_one_of_splines() -> None:
    X = np.random.default_rng(0).uniform(size=(64, 3))
    assert np.isfinite(TzKDensity(steps=2, random_state=0).fit(X).score_samples(X)).all()


def test_without_scikit_learn_it_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name.startswith("sklearn"):
            raise ImportError("No module named 'sklearn'")
        return real(name, *rest, **more)

    monkeypatch.delitem(sys.modules, "tzk_core.sklearn")
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(TzkError, match="needs scikit-learn 1.6 or later .*: pip install scikit-learn"):
        importlib.import_module("tzk_core.sklearn")
