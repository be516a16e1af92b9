"""The model of trained features has them in its latent, and is saved with them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tzk_plugin_few_shot.exchangeable import shares_between
from tzk_plugin_few_shot.feature_averaging import averaged, discriminants
from tzk_plugin_few_shot.feature_coupling import seen
from tzk_plugin_few_shot.feature_model import CLASSES, model_of
from tzk_plugin_few_shot.feature_training import Features, FeatureTraining, Settings

import tzk_core

SHAPE = (1, 8, 8)


def trained(*, residual: bool = False) -> Features:
    images = torch.randint(256, (6, 4, *SHAPE), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    settings = Settings(features=5, channels=4, steps=3, classes=6, drawings=3, residual=residual)
    return FeatureTraining(images, settings, mask=seen(SHAPE, 5)).run()


@pytest.mark.parametrize("residual", [False, True])
def test_its_latent_starts_with_the_features(tmp_path: Path, residual: bool) -> None:
    """But for what the pixels that carry them add, which `scale` makes small; z is the same after saving."""
    features, T = trained(residual=residual), torch.rand(3, *SHAPE, generator=torch.Generator().manual_seed(1))
    model = model_of(features, SHAPE)
    tzk_core.save(model, tmp_path / "model")
    opened = tzk_core.load(tmp_path / "model")
    with torch.no_grad():
        expected = features(T * seen(SHAPE, 5))
        z, again = (m.flow.encode(T)[0] for m in (model, opened))
    torch.testing.assert_close(z[:, :5], expected, rtol=0, atol=0.06)
    assert torch.equal(again, z)
    assert torch.equal(opened.find(CLASSES).between, features.between.detach())


def test_discriminants_are_uncorrelated_between_and_within_classes() -> None:
    """Without a ridge, the covariance is the identity, and that within classes diagonal and rising."""
    generator = torch.Generator().manual_seed(0)
    mix, spread = (torch.randn(4, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    means, noise = (torch.randn(60, n, 4, generator=generator, dtype=torch.float64) for n in (1, 5))
    values = means @ mix + noise @ spread + 3
    made = (values @ discriminants(values, ridge=0.0)).view(60, 5, 4)
    torch.testing.assert_close(torch.cov(made.flatten(0, 1).T), torch.eye(4, dtype=torch.float64))
    centred = (made - made.mean(1, keepdim=True)).flatten(0, 1)
    within = centred.T @ centred / 240
    torch.testing.assert_close(within, within.diagonal().diag())
    assert (within.diagonal().diff() > 0).all()


def test_averaged_features_are_normalised_over_the_training_and_saved(tmp_path: Path) -> None:
    """Their b is that of the classes they are of, and the model has them."""
    features = trained()
    pattern = torch.randint(256, (10, 1, *SHAPE), generator=torch.Generator().manual_seed(2))
    noise = torch.randint(-60, 60, (10, 4, *SHAPE), generator=torch.Generator().manual_seed(3))
    images = (pattern + noise).clamp(0, 255).to(torch.uint8)
    before = {name: value.clone() for name, value in features.state_dict().items()}
    mean = averaged(features, images, 3, mask=seen(SHAPE, 5))
    assert mean.network.views == 3
    T = images.flatten(0, 1) / 255
    with torch.no_grad():
        values = mean(T * seen(SHAPE, 5))
    torch.testing.assert_close(values.mean(0), torch.zeros(5), rtol=0, atol=1e-4)
    torch.testing.assert_close(values.var(0), torch.ones(5), rtol=1e-2, atol=0)
    expected = shares_between(values, torch.arange(10).repeat_interleave(4))
    torch.testing.assert_close(mean.between.detach(), expected, rtol=1e-2, atol=1e-3)
    assert all(torch.equal(value, before[name]) for name, value in features.state_dict().items())
    model = model_of(mean, SHAPE)
    tzk_core.save(model, tmp_path / "model")
    with torch.no_grad():
        z, again = (m.flow.encode(T)[0] for m in (model, tzk_core.load(tmp_path / "model")))
    torch.testing.assert_close(z[:, :5], values, rtol=0, atol=0.06)
    assert torch.equal(again, z)
