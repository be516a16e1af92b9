"""Evidence and the statistics made of it: what `log_prob` and `posterior` say, one observation at a time."""

from __future__ import annotations

import math
import zlib
from dataclasses import replace

import pytest
import torch
from models import small
from torch import Tensor
from two_sided import exact, world
from tzk_plugin_outside.comparison import detections
from tzk_plugin_outside.complexity import code_length
from tzk_plugin_outside.detection import (
    NEED_DATA,
    NEED_KNOWLEDGE,
    ON_REQUEST,
    STATISTICS,
    Reference,
    statistics,
)
from tzk_plugin_outside.evidence import Evidence, dequantised, evidence
from tzk_plugin_outside.novelty import Novelty
from tzk_plugin_outside.roc import roc_area

from tzk_core.data.dequantise import dequantise
from tzk_core.errors import TzkError
from tzk_core.model import TzK

SAMPLES = 5
PLAIN = set(STATISTICS) - set(ON_REQUEST)


@pytest.fixture(scope="module")
def model() -> TzK:
    return small(("gaussian", "gaussian", "gaussian")).eval()


def observations(n: int = 7, seed: int = 3) -> Tensor:
    return torch.randn(n, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def made_up(log_prob: list[float], ratios: list[list[float]], names: tuple[str, ...] = ("k0", "k1")) -> Evidence:
    table = torch.tensor(ratios, dtype=torch.float64).view(len(log_prob), len(names))
    return Evidence(names, torch.tensor(log_prob, dtype=torch.float64), table, -table.exp())


def test_evidence_is_what_the_model_says_of_each_observation_alone(model: TzK) -> None:
    T = observations()
    found = evidence(model, T, importance_samples=SAMPLES, seed=4, chunk=3)
    assert found.knowledge == ("k0", "k1", "k2")
    torch.testing.assert_close(found.log_prob, model.log_prob(T))
    for i, name in enumerate(found.knowledge):
        alone = [model.log_prob(T[j : j + 1], name, importance_samples=SAMPLES, seed=4) for j in range(len(T))]
        torch.testing.assert_close(found.log_prob + found.log_ratio[:, i], torch.cat(alone))
        torch.testing.assert_close(found.log_presence[:, i].exp(), model.posterior(T)[name].presence)


def test_no_score_depends_on_what_else_is_scored(model: TzK) -> None:
    T = observations()
    whole = evidence(model, T, importance_samples=SAMPLES)
    some = evidence(model, T[[5, 2]], ["k2", "k0"], importance_samples=SAMPLES)
    torch.testing.assert_close(some.log_ratio, whole.take(torch.tensor([5, 2]), ["k2", "k0"]).log_ratio)
    joined = Evidence.joined([whole.take(torch.arange(3)), whole.take(torch.arange(7) > 2)])
    assert torch.equal(joined.log_ratio, whole.log_ratio) and torch.equal(joined.log_prob, whole.log_prob)


def test_the_noise_of_an_image_derives_from_it_and_the_seed() -> None:
    images = torch.arange(12, dtype=torch.uint8).view(3, 1, 2, 2) * 20
    noisy = dequantised(images, 256, seed=1)
    assert torch.equal((noisy * 256).floor(), images.float())
    assert torch.equal(dequantised(images[[2, 0]], 256, seed=1), noisy[[2, 0]])
    assert not torch.equal(dequantised(images, 256, seed=2), noisy)
    assert dequantised(noisy, 256) is noisy


def test_statistics_by_their_formulas(model: TzK) -> None:
    model.find("k1").describe_as(implies=("k0",))
    try:
        T = observations()
        found = evidence(model, T, importance_samples=SAMPLES, levels=None)
        reference = Reference.of(model, found.knowledge, {"one": found})
    finally:
        model.find("k1").describe_as(implies=())
    said = statistics(found, reference)
    given = torch.stack([found.log_prob + found.log_ratio[:, i] for i in range(3)], 1)
    torch.testing.assert_close(said["likelihood"], model.log_prob(T))
    torch.testing.assert_close(said["best"], given.max(1).values)
    torch.testing.assert_close(said["ratio"], given.max(1).values - found.log_prob)
    torch.testing.assert_close(said["presence"].exp(), found.log_presence.exp().max(1).values)
    shares = [model.find(name).log_prob_presence().present.exp() for name in ("k1", "k2")]  # k0 contains k1
    mixture = (shares[0] * given[:, 1].exp() + shares[1] * given[:, 2].exp()) / sum(shares)
    torch.testing.assert_close(said["mixture"], mixture.log().to(said["mixture"]))
    away = (found.log_prob - found.log_prob.mean()) / found.log_prob.std(correction=0)
    torch.testing.assert_close(said["typicality"], -away.abs())
    assert "complexity" not in said and list(said) == [name for name in STATISTICS if name in said]


def test_joint_typicality_does_not_depend_on_scales_and_correlations(model: TzK) -> None:
    """Mahalanobis distance is invariant under affine maps of the two features; its square is 2 on average."""
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randn(2, 50, generator=generator, dtype=torch.float64)
    plain = made_up(first.tolist(), [[each] for each in second.tolist()], ("k0",))
    mapped = made_up((3 * first + second - 900).tolist(), [[each] for each in (40 * second + 7).tolist()], ("k0",))
    values = [statistics(each, Reference.of(model, ["k0"], {"one": each}))["joint"] for each in (plain, mapped)]
    torch.testing.assert_close(values[0], values[1])
    assert values[0].square().mean().item() == pytest.approx(2)


def test_typicality_is_that_of_the_nearest_data_set(model: TzK) -> None:
    near, far = made_up([-1.0, 1.0], [[0.0], [0.0]], ("k0",)), made_up([96.0, 104.0], [[0.0], [0.0]], ("k0",))
    reference = Reference.of(model, ["k0"], {"near": near, "far": far})
    probes = made_up([0.0, 2.0, 108.0, 50.0], [[0.0]] * 4, ("k0",))
    assert statistics(probes, reference)["typicality"].tolist() == pytest.approx([0, -2, -2, -12.5])


def test_without_knowledge_there_is_likelihood_and_what_needs_none() -> None:
    model = small(()).eval()
    T = observations().sigmoid()
    found = evidence(model, T, levels=256)
    said = statistics(found, Reference.of(model, [], {"one": found}))
    assert set(said) == {"likelihood", "typicality", "complexity"} == PLAIN - set(NEED_KNOWLEDGE)
    assert Novelty.from_threshold(model, [], -3.0).statistic == "likelihood"
    with pytest.raises(TzkError, match="'best' is about knowledge, and this model has none"):
        Novelty.from_threshold(model, [], -3.0, statistic="best")


def test_the_length_of_an_image_is_what_zlib_makes_of_its_grey_levels() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.stack([torch.zeros(1, 16, 16), torch.randint(256, (1, 16, 16), generator=generator)]).to(torch.uint8)
    flat, noise = code_length(images, 256).tolist()
    assert noise == pytest.approx(8 * len(zlib.compress(images[1].numpy().tobytes(), 9)) * math.log(2))
    assert flat < noise / 10
    assert code_length(dequantise(images, generator), 256).tolist() == [flat, noise]


def test_complexity_is_added_to_the_likelihood() -> None:
    """log p(T) plus the length in nats: what is simple has to be the more likely to be as much in distribution."""
    model = small(()).eval()
    flat = torch.zeros(1, 1, 16, 16, dtype=torch.uint8)
    noise = torch.randint(256, flat.shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    lengths = code_length(torch.cat([flat, noise]), 256)
    alike = replace(made_up([-7.0, -7.0], [], ()), code_length=lengths)
    found = statistics(alike, Reference.of(model, [], {}))["complexity"]
    by_hand = [8 * len(zlib.compress(each.numpy().tobytes(), 9)) * math.log(2) - 7 for each in (flat, noise)]
    assert found.tolist() == pytest.approx(by_hand)
    assert found[1] > found[0] + 1000


@pytest.mark.parametrize("statistic", STATISTICS)
@pytest.mark.parametrize("share", [0.05, 0.2])
def test_the_threshold_calls_the_stated_share_of_validation_data_none(model: TzK, statistic: str, share: float) -> None:
    T = observations(90).sigmoid()
    found = evidence(model, T, importance_samples=SAMPLES, levels=256)
    found = replace(found, dose=-found.log_prob.double().abs())  # of some model of images
    validation = {"a": found.take(torch.arange(40)), "b": found.take(torch.arange(40, 90))}
    novelty = Novelty.from_validation(model, found.knowledge, validation, false_alarms=share, statistic=statistic)
    verdicts = novelty.verdicts(Evidence.joined([*validation.values()]))
    called = verdicts.none.double().mean().item()
    assert called <= share + 1e-9
    if statistic != "complexity":  # no ties
        assert called > share - 1 / 90
    assert novelty.counts == {"a": 40, "b": 50}
    assert verdicts.p_value is not None
    order = verdicts.values.argsort()
    assert verdicts.p_value[order][-1] == 1 and (verdicts.p_value[order].diff() >= 0).all()
    assert torch.equal(verdicts.none, verdicts.p_value * 91 - 1 <= math.floor(share * 90 + 1e-9))


def test_a_threshold_of_ones_own_needs_no_data(model: TzK) -> None:
    found = made_up([-5.0, -1.0, -1.0], [[0.0, 1.0], [0.5, 0.0], [math.nan, math.nan]])
    verdicts = Novelty.from_threshold(model, ["k0", "k1"], -0.5).verdicts(found)
    assert verdicts.values[:2].tolist() == [-4.0, -0.5]
    assert verdicts.none.tolist() == [True, False, True]  # what is no number is none of them
    assert verdicts.p_value is None
    for name in NEED_DATA:
        with pytest.raises(TzkError, match=f"'{name}' needs validation data"):
            Novelty.from_threshold(model, ["k0"], 0.0, statistic=name)
    with pytest.raises(TzkError, match="no statistic is called 'ratios'; did you mean 'ratio'"):
        Novelty.from_threshold(model, ["k0"], 0.0, statistic="ratios")
    with pytest.raises(TzkError, match="'complexity' needs grey levels"):
        Novelty.from_threshold(model, ["k0", "k1"], 0.0, statistic="complexity").verdicts(found)
    with pytest.raises(TzkError, match="'dose' is fitted to training images and not in this evidence"):
        Novelty.from_validation(model, ["k0", "k1"], {"a": found}, statistic="dose")


def test_detections_are_counted_at_the_threshold_of_validation_data(model: TzK) -> None:
    found = evidence(model, observations(300), importance_samples=SAMPLES)
    inside = found.take(torch.arange(100))
    outside = evidence(model, 3 * observations(80, 9), importance_samples=SAMPLES)
    validation = {"a": found.take(torch.arange(100, 300))}
    rows = detections(model, found.knowledge, validation, inside=inside, outside=outside, false_alarms=0.1)
    reference = Reference.of(model, found.knowledge, validation)
    said = [statistics(each, reference) for each in (inside, outside, validation["a"])]
    for row in rows:
        here, there, chosen_on = (each[row["statistic"]] for each in said)
        assert row["area"] == roc_area(here, there).area
        assert int((chosen_on < row["threshold"]).sum()) == 20
        assert row["detected"] == pytest.approx((there < row["threshold"]).double().mean().item())
        assert row["false_alarms"] == pytest.approx((here < row["threshold"]).double().mean().item())
    assert {row["statistic"] for row in rows} == PLAIN - {"complexity"}
    plain = next(row for row in rows if row["statistic"] == "likelihood")
    assert plain["area"] > 0.7  # three times as wide: most of it is unlikely


def test_what_cannot_be_scored_is_refused(model: TzK) -> None:
    for T, names, message in [
        (observations()[:, :2], None, r"T is expected as \(batch, 3\)"),
        (torch.full((2, 3), math.nan), None, "T holds nan or infinity, first in row 0"),
        (observations(), ["k4"], "no knowledge type 'k4'"),
    ]:
        with pytest.raises(TzkError, match=message):
            evidence(model, T, names)


def test_the_integral_over_C_is_the_sum_where_there_are_finitely_many() -> None:
    world_model, held = world()
    found = evidence(world_model, held.T, importance_samples=1)
    torch.testing.assert_close(found.log_ratio[:, 0] + found.log_prob, exact(held.T))
