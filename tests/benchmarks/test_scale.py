"""What `benchmarks/scale.py` simulates is what the formulas and the code of training say."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import placement  # noqa: E402
import scale  # noqa: E402
import scale_limits  # noqa: E402
import scale_measure  # noqa: E402
from absences import absence_weights  # noqa: E402
from scripts import printed_by  # noqa: E402

from tzk_core.random_streams import stream  # noqa: E402

SMALL = scale.Setting(
    types=40,
    ranks=4,
    batch=32,
    zipf=1.0,
    latent=5,
    negatives=3,
    absent_at=0,
    bandwidth=1e9,
    latency=1e-5,
    speed=1.0,
)
MEASURED = json.loads(scale.MEASURED.read_text(encoding="utf-8"))


@pytest.mark.parametrize("exponent", [0.0, 0.7, 1.0, 1.3])
def test_types_are_as_frequent_as_harmonic_sums_say(exponent: float) -> None:
    """Type k has the share k^-s / H, and a batch Σ 1 - (1 - share)^batch types in the mean."""
    setting = replace(SMALL, types=300, batch=500, zipf=exponent)
    harmonic = sum(k**-exponent for k in range(1, 301))
    shares = placement.popularity(300, exponent)
    batches = [scale.sampled(setting, shares, np.random.default_rng((1, step))) for step in range(80)]
    draws = 500 * 80
    for k in (1, 2, 30):
        expected = k**-exponent / harmonic
        found = sum(int((batch.shows == k - 1).sum()) for batch in batches) / draws
        assert abs(found - expected) < 4.5 * math.sqrt(expected * (1 - expected) / draws)
    kinds = [len(set(batch.shows.tolist())) for batch in batches]
    expected = sum(1 - (1 - k**-exponent / harmonic) ** 500 for k in range(1, 301))
    assert abs(np.mean(kinds) - expected) < 4.5 * math.sqrt(expected / 80)  # the variance is below the mean


def mean_of_largest(balls: int, bins: int) -> float:
    """E max of multinomial counts: P(max <= m) = balls! / bins^balls [x^balls] (Σ_{j <= m} x^j / j!)^bins."""
    total = 0.0
    for most in range(balls + 1):
        base = np.array([1 / math.factorial(j) if j <= most else 0.0 for j in range(balls + 1)])
        power = np.array([1.0])
        for _ in range(bins):
            power = np.convolve(power, base)[: balls + 1]
        total += 1 - math.factorial(balls) / bins**balls * power[balls]
    return total


def test_uniform_popularity_loads_owners_as_balls_in_bins() -> None:
    setting = replace(SMALL, types=20_000, ranks=8, batch=48, zipf=0.0)
    shares, owners = placement.popularity(20_000, 0.0), placement.hashed(20_000, 8)
    largest = [
        scale.load_of(setting, scale.sampled(setting, shares, np.random.default_rng(step)), owners).present.max()
        for step in range(600)
    ]
    error = float(np.std(largest)) / math.sqrt(len(largest))
    assert abs(np.mean(largest) - mean_of_largest(48, 8)) < 4 * error + 0.05  # and 20,000 names are not quite even


def test_the_rows_that_owners_need_are_those_that_absences_of_the_code_have_weights_at() -> None:
    """Counted type by type and sample by sample from the weights of `sampled_absences`."""
    shares, owners = placement.popularity(40, 1.0), placement.hashed(40, 4)
    shows = torch.from_numpy(scale.sampled(SMALL, shares, np.random.default_rng(5)).shows)
    presence = torch.zeros(40, 32)
    presence[shows, torch.arange(32)] = 1
    weights = absence_weights(presence, 3, stream(3, "absences"))
    seen, told = presence.any(1), weights != 0
    absent = torch.nonzero(told.all(1)).squeeze(1)
    samples = torch.nonzero(told[seen].any(0)).squeeze(1)
    assert len(absent) == len(samples) == 3
    batch = scale.Batch(shows.numpy(), samples.numpy(), absent.numpy(), np.arange(32))
    load = scale.load_of(SMALL, batch, owners)
    for rank in range(4):
        own = torch.from_numpy(owners == rank)
        needed = ((presence[own] != 0) | (weights[own] != 0)).any(0)
        here = torch.arange(32) // 8 == rank
        assert load.rows[rank] == needed.sum() and load.arriving[rank] == (needed & ~here).sum()
        assert load.present[rank] == presence[own].sum()
        assert load.kinds[rank] == ((presence[own] != 0) | (weights[own] != 0)).any(1).sum()
    assert load.arriving.sum() == load.leaving.sum()


def test_what_every_rank_has_moves_no_row_and_is_evaluated_in_the_shard() -> None:
    shares = placement.popularity(40, 1.0)
    everywhere = placement.replicated(placement.hashed(40, 4), shares, 40)
    load = scale.load_of(SMALL, scale.sampled(SMALL, shares, np.random.default_rng(2)), everywhere)
    assert load.arriving.sum() == load.leaving.sum() == 0
    assert load.present.tolist() == load.rows.tolist() == [8] * 4


def test_present_samples_are_evaluated_once_wherever_they_go() -> None:
    shares = placement.popularity(40, 1.0)
    for owners in scale.placements(SMALL, shares, hot=5, seed=0).values():
        load = scale.load_of(SMALL, scale.sampled(SMALL, shares, np.random.default_rng(4)), owners)
        assert load.present.sum() == 32 and load.rows.max() <= 32


@pytest.mark.parametrize("ranks", [2, 3, 7])
def test_bytes_of_a_ring_are_those_of_its_messages(ranks: int) -> None:
    """A ring played out: pieces are summed around it, then passed around, and all have the sum."""
    pieces = np.random.default_rng(0).integers(0, 9, (ranks, ranks, 4))  # rank, piece, numbers
    held, sent = pieces.copy(), np.zeros(ranks, int)
    for is_sum in (True, False):
        for turn in range(ranks - 1):
            before = held.copy()
            for rank in range(ranks):
                piece = (rank - turn + (0 if is_sum else 1)) % ranks
                to = (rank + 1) % ranks
                held[to, piece] = before[rank, piece] + (before[to, piece] if is_sum else 0)
                sent[rank] += 4
    assert (held == pieces.sum(0)).all()
    assert sent.tolist() == [pytest.approx(scale.ring_bytes(ranks, ranks * 4))] * ranks


def test_greedy_owners_keep_grahams_bound_and_two_choices_the_logarithm() -> None:
    shares = placement.popularity(5000, 1.0)
    loads = np.bincount(placement.greedy(shares, 16), weights=shares, minlength=16)
    least = max(1 / 16, shares[0], shares[15] + shares[16])
    assert loads.max() <= (4 / 3 - 1 / 48) * least
    even = np.full(2000, 1 / 2000)
    counts = np.bincount(placement.two_choices(even, 100, np.random.default_rng(0)), minlength=100)
    assert counts.max() - 20 <= math.log(math.log(100)) / math.log(2) + 2  # Berenbrink et al. 2000
    assert counts.max() < np.bincount(placement.hashed(2000, 100), minlength=100).max()


def test_the_number_of_owners_of_absent_types_is_that_of_boxes_with_a_ball() -> None:
    setting = replace(SMALL, types=4000, ranks=16, batch=64, negatives=16, zipf=0.0)
    shares, owners = placement.popularity(4000, 0.0), placement.hashed(4000, 16)
    whole = []
    for step in range(400):
        load = scale.load_of(setting, scale.sampled(setting, shares, np.random.default_rng(step)), owners)
        whole.append(int((load.rows == 64).sum()))
    expected = 16 * (1 - (1 - 1 / 16) ** 16)
    assert abs(np.mean(whole) - expected) < 4 * np.std(whole) / math.sqrt(400) + 0.03


def test_seconds_follow_from_bandwidth_latency_and_the_slowest_rank() -> None:
    load = scale.Load(*(np.array(row) for row in ([1, 3], [4, 0], [2, 1], [5, 3], [5, 3], [3, 5])))
    setting = replace(SMALL, ranks=2, batch=8, bandwidth=100.0, latency=0.5, speed=2.0)
    figures = dict.fromkeys(MEASURED, 0.0) | {"parameters": 10, "flow_parameters": 25, "flow_seconds_of_sample": 1.0}
    figures |= {"seconds_of_type": 1.0, "seconds_of_row_present": 10.0, "seconds_of_row_absent": 100.0}
    parts = scale.parts_of(setting, load, figures, kinds=3, hot=5)
    assert parts["seconds"]["flow"] == 2.0
    assert parts["seconds"]["knowledge"] == (2 + 10 + 400) / 2
    assert parts["seconds"]["knowledge_if_even"] == (412 + 31) / 4
    assert parts["seconds"]["z_routed_twice"] == 2 * (0.5 + 5 * 24 / 100)
    assert parts["bytes"] == {
        "z_routed_twice": 2 * 8 * 24,
        "flow_gradients": 2 * 100,
        "hot_gradients": 2 * 200,
        "log": 2 * 8 * (12 + 16),
    }
    assert parts["seconds"]["flow_gradients"] == 2 * 0.5 + 1 and parts["seconds"]["hot_gradients"] == 2


def test_what_breaks_first_is_in_front() -> None:
    limits = {"memory": 100.0, "patience": 10.0, "step_patience": 1.0}
    grown = [
        scale_limits.Growth("memory", "", 4.0),
        scale_limits.Growth("a step", "", 1.0, 0.1, of_step=True),
        scale_limits.Growth("waiting", "", 0.0, 2.0),
    ]
    ended = scale_limits.ended(grown, 50, limits)
    assert [(row["name"], row["ends_at_types"]) for row in ended] == [("waiting", 5), ("a step", 10), ("memory", 25)]
    assert ended[2]["bytes"] == 200


def test_the_program_prints_what_the_results_have() -> None:
    words = ["--types", "500", "--ranks", "4", "--batch", "64", "--steps", "2"]
    report = json.loads(printed_by(BENCHMARKS / "scale.py", "--json", *words))
    kept = json.loads((BENCHMARKS / "results" / "scale.json").read_text(encoding="utf-8"))
    assert report.keys() == kept.keys() and report["owners"].keys() == kept["owners"].keys()
    assert "ends at types" in printed_by(BENCHMARKS / "scale.py", *words)


def test_nonnegative_least_squares_finds_coefficients_and_leaves_out_negative_ones() -> None:
    table = np.random.default_rng(0).random((9, 3))
    assert np.allclose(scale_measure.nonnegative(table, table @ [1.0, 0.0, 2.0]), [1, 0, 2])
    assert scale_measure.nonnegative(table, table @ [1.0, -0.5, 2.0])[1] == 0


def test_evaluations_of_a_step_are_those_of_its_absences() -> None:
    """Of 128 types, 8 in a batch of 32: all 8 at `negatives` samples, and as many others at all 32."""
    presence = torch.zeros(scale_measure.REGISTERED, 32)
    presence[torch.arange(32) % 8, torch.arange(32)] = 1
    weights = absence_weights(presence, 16, stream(0, "absences"))
    types, present, absent = scale_measure.evaluations(8, 4, 16)
    assert types == int(((presence != 0) | (weights != 0)).any(1).sum()) and present == presence.sum()
    seen = presence.any(1)
    expected = [int((weights[which] != 0).any(1).sum() * (weights[which] != 0).any(0).sum()) for which in (seen, ~seen)]
    assert absent == sum(expected) == 8 * 16 + 16 * 32
