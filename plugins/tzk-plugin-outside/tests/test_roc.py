"""The ROC curve: its area against brute force and a closed form, its standard error, thresholds at a rate of alarms."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from tzk_plugin_outside.roc import roc_area, threshold

from tzk_core.errors import TzkError


def values(n: int, seed: int, *, distinct: int | None = None, shift: float = 0.0) -> Tensor:
    """Normal, around `shift`; rounded to about `distinct` values, so that there are ties."""
    normal = shift + torch.randn(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return normal if distinct is None else (normal * distinct / 6).round()


SAMPLES = [
    (values(40, 0), values(30, 1)),
    (values(40, 2, distinct=4, shift=1.0), values(25, 3, distinct=4)),
    (values(7, 4, distinct=2), values(90, 5, distinct=2)),
    (torch.zeros(5), torch.zeros(3)),
    (torch.tensor([1.0, math.inf]), torch.tensor([-math.inf, 1.0])),
    (torch.tensor([2.0]), torch.tensor([1.0])),
]


@pytest.mark.parametrize("inside, outside", SAMPLES)
def test_the_area_is_the_share_of_pairs_in_order_with_ties_as_halves(inside: Tensor, outside: Tensor) -> None:
    pairs = [1.0 if a > b else 0.5 if a == b else 0.0 for a in inside.tolist() for b in outside.tolist()]
    assert roc_area(inside, outside).area == pytest.approx(sum(pairs) / len(pairs), abs=1e-12)
    assert roc_area(outside, inside).area == pytest.approx(1 - sum(pairs) / len(pairs), abs=1e-12)


@pytest.mark.parametrize("inside, outside", SAMPLES)
def test_the_area_is_that_under_the_curve(inside: Tensor, outside: Tensor) -> None:
    thresholds = [-math.inf, *torch.cat([inside, outside]).unique().tolist(), math.inf]
    alarms, detections = (
        torch.tensor([0.0, *((each <= t).double().mean().item() for t in thresholds)], dtype=torch.float64)
        for each in (inside, outside)
    )
    assert torch.trapezoid(detections, alarms).item() == pytest.approx(roc_area(inside, outside).area, abs=1e-12)


@pytest.mark.parametrize("d", [-0.5, 0.0, 1.0, 2.0])
def test_the_area_of_two_gaussians_a_distance_apart(d: float) -> None:
    """Φ(d / √2); quantiles at midpoints stand for the two densities."""
    grid = (torch.arange(4000, dtype=torch.float64) + 0.5) / 4000
    quantiles = torch.special.ndtri(grid)
    expected = 0.5 * (1 + math.erf(d / 2))
    assert roc_area(quantiles + d, quantiles).area == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("distinct", [None, 5])
def test_the_standard_error_is_how_far_areas_of_samples_lie_apart(distinct: int | None) -> None:
    areas = [
        roc_area(values(60, 2 * i, distinct=distinct, shift=0.8), values(40, 2 * i + 1, distinct=distinct))
        for i in range(2000)
    ]
    spread = torch.tensor([each.area for each in areas]).std().item()
    stated = torch.tensor([each.standard_error for each in areas]).square().mean().sqrt().item()
    assert stated == pytest.approx(spread, rel=0.06)  # the spread of 2,000 is known to 1.6 %


def test_the_standard_error_by_hand() -> None:
    """Inside 1 and 3 exceed 1/2 and 1 of the outside 0 and 2; these are exceeded by 1 and 1/2: variances of 1/8."""
    found = roc_area(torch.tensor([1.0, 3.0]), torch.tensor([0.0, 2.0]))
    assert (found.area, found.standard_error) == (0.75, pytest.approx(math.sqrt(1 / 8 / 2 + 1 / 8 / 2)))
    assert roc_area(torch.tensor([1.0]), torch.tensor([0.0, 2.0])).standard_error is None


def test_the_standard_error_of_samples_of_two_sizes_by_hand() -> None:
    """Inside 1, 3 and 5 exceed 1/2, 1 and 1 of the outside 0 and 2, a variance of 1/12; these are exceeded by 1 and
    2/3, a variance of 1/18. Each counts by the size of its own sample."""
    inside, outside = torch.tensor([1.0, 3.0, 5.0]), torch.tensor([0.0, 2.0])
    found, mirrored = roc_area(inside, outside), roc_area(-outside, -inside)
    assert found.area == pytest.approx(5 / 6) == pytest.approx(mirrored.area)
    expected = math.sqrt(1 / 12 / 3 + 1 / 18 / 2)
    assert found.standard_error == pytest.approx(expected) == pytest.approx(mirrored.standard_error)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.05, 0.07, 0.29, 0.5, 0.999])
@pytest.mark.parametrize("n", [1, 19, 20, 100, 1000])
def test_the_threshold_has_the_stated_share_below_it(share: float, n: int) -> None:
    inside = values(n, n)
    below = int((inside < threshold(inside, share)).sum())
    assert share * n - 1 < below <= share * n + 1e-6
    tied = inside.round()
    assert (tied < threshold(tied, share)).double().mean() <= share
    assert (inside < math.nextafter(threshold(inside, share), math.inf)).double().mean() > share  # none larger will do


def test_what_has_no_curve_is_refused() -> None:
    for inside, outside, message in [
        (torch.zeros(0), torch.zeros(2), "n at least 1; got (0,)"),
        (torch.zeros(2), torch.zeros(2, 1), "outside are expected as (n,)"),
        (torch.zeros(2), torch.tensor([0.0, math.nan]), "outside hold nan, first at 1"),
    ]:
        with pytest.raises(TzkError) as refused:
            roc_area(inside, outside)
        assert message in str(refused.value)
    for share in (-0.1, 1.0):
        with pytest.raises(TzkError, match="at least 0 and below 1"):
            threshold(torch.zeros(3), share)
