"""Features in a flow are a transform; their training is that of the ratio, can be resumed, and learns."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from tzk_plugin_few_shot.distortions import augmented, mapped
from tzk_plugin_few_shot.episodes import GROUP, episode_loss, sample_classes, sample_images
from tzk_plugin_few_shot.feature_coupling import FeatureCoupling, carriers, seen
from tzk_plugin_few_shot.feature_network import FeatureNetwork
from tzk_plugin_few_shot.feature_training import FeatureTraining, Settings
from tzk_plugin_few_shot.predictive import log_ratio, predictive

from tzk_core.errors import TzkError
from tzk_core.testing import check_transform

SMALL = Settings(features=4, channels=2, steps=6, classes=6, drawings=3)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def characters(count: int = 8, drawings: int = 5, side: int = 8, noise: float = 0.05) -> Tensor:
    """Random patterns, each with drawings that differ by noise, uint8 (count, drawings, 1, side, side)."""
    pattern = torch.rand(count, 1, 1, side, side, generator=generator(1)).round()
    drawn = pattern + noise * torch.randn(count, drawings, 1, side, side, generator=generator(2))
    return (255 * drawn.clamp(0, 1)).to(torch.uint8)


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((1, 8, 8), {}),
        ((2, 8, 9), {"views": 3}),
        ((1, 17, 16), {"stride": 2}),
        ((1, 16, 19), {"stride": 2, "views": 2}),
        ((1, 8, 9), {"residual": True, "views": 2}),
    ],
)
def test_the_coupling_is_a_transform(shape: tuple[int, int, int], options: dict[str, int]) -> None:
    layer = FeatureCoupling(shape, features=5, channels=2, **options)
    layer.network.initialise(generator())
    check_transform(layer.double(), torch.rand(3, *shape, generator=generator(1), dtype=torch.float64))


def test_the_first_of_the_latent_are_the_features_of_what_is_seen() -> None:
    """Beside them little is left of the pixels that carry them, and the network does not see these."""
    layer, T = FeatureCoupling((1, 8, 8), features=5, channels=2, scale=1e-4), torch.rand(3, 1, 8, 8)
    layer.network.initialise(generator())
    mask = seen((1, 8, 8), 5)
    with torch.no_grad():
        expected = layer.network(T * mask)
        actual = [layer.train()(x)[0][:, :5] for x in (T, T * mask)]
    torch.testing.assert_close(actual[0], expected, rtol=0, atol=2e-4)
    assert torch.equal(actual[1], expected)


def test_the_carriers_are_the_corners() -> None:
    assert sorted(carriers((1, 5, 7), 4).tolist()) == [0, 6, 28, 34]
    assert int((seen((2, 5, 7), 9) == 0).sum()) == 9
    for shape, features in (((8,), 2), ((1, 4, 4), 16), ((1, 4, 4), 0)):
        with pytest.raises(TzkError, match="at least one and fewer than its pixels"):
            carriers(shape, features)


@pytest.mark.parametrize("scale", [0.0, -1.0, float("inf")])
def test_a_scale_that_cannot_be_inverted_is_refused(scale: float) -> None:
    with pytest.raises(TzkError, match="a number above 0"):
        FeatureCoupling((1, 8, 8), scale=scale)


@pytest.mark.parametrize(
    ("shape", "options"),
    [((1, 7, 8), {}), ((1, 15, 16), {"stride": 2}), ((1, 24, 24), {"stride": 3}), ((1, 8, 8), {"views": 0})],
)
def test_a_network_that_cannot_be_is_refused(shape: tuple[int, int, int], options: dict[str, int]) -> None:
    with pytest.raises(TzkError, match="sides of at least 8 times that"):
        FeatureNetwork(shape, 4, **options)


def test_the_loss_is_that_of_every_support_and_query() -> None:
    """An explicit loop over drawings, classes and queries."""
    x = torch.randn(3, 4, 5, generator=generator(), dtype=torch.float64)
    between = torch.linspace(0.2, 0.9, 5, dtype=torch.float64)
    ways, presence = [], []
    for one in range(4):
        for support, queries in (
            ([one], [i for i in range(4) if i != one]),
            ([i for i in range(4) if i != one], [one]),
        ):
            densities = [predictive(x[c, support].sum(0, keepdim=True), len(support), between) for c in range(3)]
            losses = []
            for own in range(3):
                for query in queries:
                    ratio = torch.cat([log_ratio(x[own, query][None], *density) for density in densities], 1)[0]
                    odds = ratio.exp() * (1 / 3) / (2 / 3)
                    p = odds / (1 + odds)
                    right = torch.stack([p[c] if c == own else 1 - p[c] for c in range(3)]).log().sum()
                    losses.append((-ratio.log_softmax(0)[own], -right))
            for values, means in zip(zip(*losses, strict=True), (ways, presence), strict=True):
                means.append(torch.stack(values).mean())
    loss = episode_loss(x, between)
    torch.testing.assert_close(loss.ways, torch.stack(ways).mean())
    torch.testing.assert_close(loss.presence, torch.stack(presence).mean())


def test_drawings_of_a_class_are_turned_alike() -> None:
    images = characters(noise=0.0)
    classes = sample_classes(8, generator(), classes=20)
    drawn = sample_images(images, classes, generator(), drawings=3, amount=0.0).view(20, 3, 1, 8, 8)
    known = [torch.rot90(images[row, 0], int(turns), (-2, -1)) / 255 for row, turns in zip(*classes, strict=True)]
    torch.testing.assert_close(drawn, torch.stack(known)[:, None].expand_as(drawn), rtol=0, atol=1e-5)
    assert len(set(zip(*(part.tolist() for part in classes), strict=True))) == 20


def test_episodes_within_alphabets_are_of_few_and_of_all_of_them() -> None:
    """Three alphabets of 30 characters make episodes of two; other episodes are of any, and as many as asked."""
    alphabets = torch.arange(90) % 3
    seen_alphabets: set[int] = set()
    for seed in range(10):
        rows, turns = sample_classes(90, generator(seed), classes=GROUP + 5, alphabets=alphabets, within=1.0)
        assert len(rows.unique()) == GROUP + 5
        own, counts = alphabets[rows].unique(return_counts=True)
        assert sorted(counts.tolist()) == [5, GROUP]
        assert all(len(turns[alphabets[rows] == name].unique()) == 1 for name in own)
        seen_alphabets |= set(own.tolist())
    assert seen_alphabets == {0, 1, 2}
    mixed = [sample_classes(90, generator(seed), classes=24, alphabets=alphabets, within=0.5) for seed in range(40)]
    within = sum(len(alphabets[classes.rows].unique()) == 2 for classes in mixed)
    assert 8 < within < 32


def test_views_are_small_moves_whose_features_are_averaged() -> None:
    """Of a single view it is the network itself; of three, the mean before the last layer."""
    one, three = (FeatureNetwork((1, 8, 8), 4, 2, views=views).eval() for views in (1, 3))
    one.initialise(generator())
    three.load_state_dict(one.state_dict())
    images = torch.rand(5, 1, 8, 8, generator=generator(1))
    assert one.views == 1 and three.views == 3
    with torch.no_grad():
        parts = [one(images), *(one(mapped(images, view.expand(5, 2, 3))) for view in three.maps)]
        torch.testing.assert_close(three(images), torch.stack(parts).mean(0))
        assert not torch.allclose(three(images), parts[0], atol=1e-3)


def test_images_are_moved_a_little_and_each_its_own_way() -> None:
    blob = functional.pad(torch.ones(1, 1, 4, 4), (12,) * 4).expand(50, -1, -1, -1)
    moved = augmented(blob, generator())
    assert not torch.equal(moved[0], moved[1])
    axis = torch.arange(28.0) - 13.5
    centres = (moved.sum(2) * axis).sum((1, 2)) / moved.sum((1, 2, 3))
    assert 0.5 < centres.std() < 1.5 and centres.abs().max() < 5
    torch.testing.assert_close(augmented(blob, generator(), amount=0.0), blob, rtol=0, atol=1e-5)


def test_a_training_goes_on_from_its_file_to_the_bit(tmp_path: Path) -> None:
    images, file = characters(), tmp_path / "features.pt"
    whole = FeatureTraining(images, SMALL).run()
    first = FeatureTraining(images, SMALL, file=file)
    for _ in range(3):
        first.take_step()
    first.save()
    second = FeatureTraining(images, SMALL, file=file)
    assert second.step == 3 and second.seconds == first.seconds > 0
    resumed = second.run()
    for key, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key]), key
    with pytest.raises(TzkError, match="is of a training with"):
        FeatureTraining(images, replace(SMALL, seed=1), file=file)


@pytest.mark.parametrize("bfloat16", [False, True])
def test_it_learns_to_tell_characters_apart_that_it_has_not_seen(bfloat16: bool) -> None:
    """8 patterns, from one and from four drawings of each, beside an untrained network."""
    images = characters(60, noise=0.3)
    settings = replace(SMALL, features=8, channels=4, steps=60, classes=20, moved=0.0, bfloat16=bfloat16)
    training = FeatureTraining(images[8:], settings)

    def loss() -> float:
        with torch.no_grad():
            features = training.features.eval()(images[:8].flatten(0, 1).float() / 255)
            return float(episode_loss(features.view(8, 5, -1), training.features.between).ways)

    for _ in range(5):  # the running moments of the last layer
        training.take_step()
    before = loss()
    training.run()
    assert loss() < 0.6 * before


@pytest.mark.parametrize(
    ("images", "settings", "message"),
    [
        (torch.zeros(4, 5, 1, 8, 9, dtype=torch.uint8), SMALL, "in uint8; got"),
        (torch.zeros(4, 5, 1, 8, 8), SMALL, "in uint8; got"),
        (characters(), replace(SMALL, drawings=6), "6 drawings"),
        (characters(), replace(SMALL, classes=33), "33 classes"),
    ],
)
def test_images_that_make_no_episodes_are_refused(images: Tensor, settings: Settings, message: str) -> None:
    with pytest.raises(TzkError, match=message):
        FeatureTraining(images, settings)


@pytest.mark.parametrize(
    ("alphabets", "message"), [(None, "got none"), (torch.zeros(3), "got 3"), (torch.zeros(30), "at most 20")]
)
def test_alphabets_that_make_no_episodes_are_refused(alphabets: Tensor | None, message: str) -> None:
    with pytest.raises(TzkError, match=message):
        FeatureTraining(characters(30), replace(SMALL, within=0.5, classes=21), alphabets=alphabets)


def test_a_training_within_alphabets_comes_to_one_at_a_time() -> None:
    """Of two alphabets one is of blank drawings: at last an episode is blank in all images or in none."""
    images = characters(40)
    images[20:] = 0
    settings = replace(SMALL, within=1.0, classes=20, steps=30)
    training = FeatureTraining(images, settings, alphabets=torch.arange(40) // 20)
    blank: list[float] = []
    training.features.network.register_forward_pre_hook(
        lambda network, inputs: blank.append(float((inputs[0].flatten(1).amax(1) == 0).float().mean()))
    )
    training.run()
    first, last = (sum(0 < share < 1 for share in part) for part in (blank[:10], blank[-10:]))
    assert first >= 5 and last <= 5
