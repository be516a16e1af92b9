"""The class-incremental measurement: its rivals are what they are called, its figures add up."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from scripts import module_of, printed_by
from torch import Tensor

pytest.importorskip("tzk_plugin_omniglot")
FOLDER = Path(__file__).parents[3] / "examples" / "knowledge"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return module_of(FOLDER / "incremental.py")


@pytest.fixture
def classes() -> list[Tensor]:
    source = torch.Generator().manual_seed(0)
    return [
        3.0 * torch.eye(9)[number].view(1, 3, 3) + torch.randn(40, 1, 3, 3, generator=source) for number in range(3)
    ]


def test_streaming_lda_is_lda_and_its_order_is_of_no_matter(script: ModuleType, classes: list[Tensor]) -> None:
    """Against the log-densities of torch's Gaussians of one covariance."""
    learner, other = (script.StreamingLDA(lambda images: images.flatten(1), 0.0) for _ in range(2))
    for images in classes:
        learner.learn(images)
    for images in classes[::-1]:
        other.learn(images)
    x = torch.cat(classes)
    scatter = sum((c.flatten(1) - c.flatten(1).mean(0)).T @ (c.flatten(1) - c.flatten(1).mean(0)) for c in classes)
    normal = torch.distributions.MultivariateNormal
    expected = torch.stack([normal(c.flatten(1).mean(0), scatter / 120).log_prob(x.flatten(1)) for c in classes], 1)
    scores = learner.scores(x)
    torch.testing.assert_close(scores - scores[:, :1], expected - expected[:, :1], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(other.scores(x).flip(1), scores, rtol=1e-3, atol=1e-3)


def test_fourier_features_are_the_kernel(script: ModuleType) -> None:
    x = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    features = script.fourier(4, 40_000, width=0.1, seed=0)(x)
    torch.testing.assert_close(features @ features.T, (-0.1 * torch.cdist(x, x).square()).exp(), atol=0.03, rtol=0)


def test_accuracy_and_forgetting_are_those_of_a_learner_that_is_known(script: ModuleType) -> None:
    """It gives every image to the class learnt last: right on one of k classes after k, all older ones forgotten."""

    class Last:
        count = 0

        def learn(self, images: Tensor) -> None:
            self.count += 1

        def scores(self, images: Tensor) -> Tensor:
            return torch.arange(self.count).expand(len(images), self.count)

        def bytes(self) -> int:
            return 7

    row = script.learn_all(Last(), [torch.zeros(2, 1, 3, 3)] * 3, [torch.zeros(4, 1, 3, 3)] * 3)
    assert row["accuracy"] == pytest.approx([1, 1 / 2, 1 / 3])
    assert (row["forgetting"], row["bytes_per_class"]) == (1.0, 7)


def test_nearest_mean_and_autoencoders_learn(script: ModuleType) -> None:
    """Bright pixels in three places."""
    source = torch.Generator().manual_seed(0)
    images = [0.1 * torch.rand(60, 1, 3, 3, generator=source) for _ in range(3)]
    for number, each in enumerate(images):
        each[:, 0, number] += 0.8
    rivals = sys.modules["rivals"]
    for learner in (rivals.NearestMean(), rivals.AutoencoderPerClass(hidden=16, latents=2, epochs=40)):
        assert script.learn_all(learner, images, images)["accuracy_last"] > 0.9


def test_a_class_by_itself_keeps_its_column(script: ModuleType, classes: list[Tensor]) -> None:
    rivals = sys.modules["rivals"]
    learner = rivals.AutoencoderPerClass(hidden=8, latents=2, epochs=1)
    learner.learn(classes[0].sigmoid())
    x = classes[1].sigmoid()
    before = learner.scores(x)
    learner.learn(classes[1].sigmoid())
    assert torch.equal(learner.scores(x)[:, :1], before)
    learner._images = None  # computed again it is the same
    assert torch.equal(learner.scores(x)[:, :1], before)


def test_it_shows_its_usage() -> None:
    assert "--dreams" in printed_by(FOLDER / "incremental.py", "--help")
