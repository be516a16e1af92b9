"""The model of trained features has them in its latent, and is saved with them."""

from __future__ import annotations

from pathlib import Path

import torch
from tzk_plugin_few_shot.feature_coupling import seen
from tzk_plugin_few_shot.feature_model import CLASSES, averaged, model_of
from tzk_plugin_few_shot.feature_training import Features, FeatureTraining, Settings

import tzk_core

SHAPE = (1, 8, 8)


def trained() -> Features:
    images = torch.randint(256, (6, 4, *SHAPE), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    settings = Settings(features=5, channels=2, steps=3, classes=6, drawings=3)
    return FeatureTraining(images, settings, mask=seen(SHAPE, 5)).run()


def test_its_latent_starts_with_the_features(tmp_path: Path) -> None:
    """But for what the pixels that carry them add, which `scale` makes small; z is the same after saving."""
    features, T = trained(), torch.rand(3, *SHAPE, generator=torch.Generator().manual_seed(1))
    model = model_of(features, SHAPE)
    tzk_core.save(model, tmp_path / "model")
    opened = tzk_core.load(tmp_path / "model")
    with torch.no_grad():
        expected = features(T * seen(SHAPE, 5))
        z, again = (m.flow.encode(T)[0] for m in (model, opened))
    torch.testing.assert_close(z[:, :5], expected, rtol=0, atol=0.06)
    assert torch.equal(again, z)
    assert torch.equal(opened.find(CLASSES).between, features.between.detach())


def test_averaged_features_are_normalised_over_the_training_and_saved(tmp_path: Path) -> None:
    features = trained()
    images = torch.randint(256, (40, *SHAPE), generator=torch.Generator().manual_seed(2)).to(torch.uint8)
    before = {name: value.clone() for name, value in features.state_dict().items()}
    mean = averaged(features, images, 3, mask=seen(SHAPE, 5))
    T = images / 255
    with torch.no_grad():
        values = mean(T * seen(SHAPE, 5))
    torch.testing.assert_close(values.mean(0), torch.zeros(5), rtol=0, atol=1e-5)
    torch.testing.assert_close(values.var(0), torch.ones(5), rtol=1e-2, atol=0)
    assert all(torch.equal(value, before[name]) for name, value in features.state_dict().items())
    model = model_of(mean, SHAPE)
    tzk_core.save(model, tmp_path / "model")
    with torch.no_grad():
        z, again = (m.flow.encode(T)[0] for m in (model, tzk_core.load(tmp_path / "model")))
    torch.testing.assert_close(z[:, :5], values, rtol=0, atol=0.06)
    assert torch.equal(again, z)
