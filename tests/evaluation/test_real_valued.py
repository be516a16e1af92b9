"""Real-valued data have nats of a density and a Gaussian beside them; no unit of theirs is called after images."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from models import NO_TABLES, held_out
from scipy.stats import multivariate_normal
from torch import Tensor

from tzk_core.build import build_flow, build_knowledge
from tzk_core.evaluation.baseline import gaussian_log_prob
from tzk_core.evaluation.results import evaluate
from tzk_core.model import TzK
from tzk_core.report.table import markdown


def columns(count: int, seed: int = 0) -> Tensor:
    """Correlated columns in units from 1e-5 to 1e5, (count, 3)."""
    z = torch.randn(count, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    mixing = torch.tensor([[1.0, 0.0, 0.0], [0.8, 0.6, 0.0], [-0.5, 0.3, 0.4]], dtype=torch.float64)
    scale = torch.tensor([1e5, 1.0, 1e-5], dtype=torch.float64)
    return (z @ mixing.T + 3) * scale


def test_the_gaussian_is_that_of_the_moments() -> None:
    train, test = columns(500), columns(200, 1)
    found = gaussian_log_prob(train, test)
    assert found is not None
    unit = np.array([1e5, 1.0, 1e-5])  # scipy's own pseudo-inverse takes the small column for nothing
    x, y = train.numpy() / unit, test.numpy() / unit
    expected = multivariate_normal(x.mean(0), np.cov(x.T, bias=True)).logpdf(y) - np.log(unit).sum()
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-8)


def test_its_mean_is_the_negative_entropy_of_the_gaussian_that_the_data_are_of() -> None:
    found = gaussian_log_prob(columns(20_000), columns(20_000, 1))
    assert found is not None
    log_det = math.log(0.6 * 0.4)  # of the mixing, whose units multiply to 1
    entropy = 1.5 * (1 + math.log(2 * math.pi)) + log_det
    assert found.mean().item() == pytest.approx(-entropy, abs=4 * found.std().item() / math.sqrt(20_000))


def test_there_is_none_without_a_full_covariance_and_missing_rows_have_no_part() -> None:
    train = columns(50)
    assert gaussian_log_prob(train[:3], train) is None
    assert gaussian_log_prob(torch.cat([train, train.sum(1, keepdim=True)], 1), torch.ones(1, 4)) is None
    holed = torch.cat([train, torch.full((5, 3), torch.nan, dtype=torch.float64)])
    assert torch.equal(gaussian_log_prob(holed, train), gaussian_log_prob(train, train))  # type: ignore[arg-type]
    one = gaussian_log_prob(train[:, :1], train[:, :1])
    normal = torch.distributions.Normal(train[:, 0].mean(), train[:, 0].std(unbiased=False))
    torch.testing.assert_close(one, normal.log_prob(train[:, 0]))


def test_results_and_their_text_are_of_samples_in_nats() -> None:
    train, test = columns(300).float(), columns(64, 1).float()
    model = TzK(build_flow((3,), steps=1))
    model.flow.initialise(train)
    model.add("all", build_knowledge("gaussian", (3,), name="all", hidden=4))
    split = held_out(test, torch.ones(64, 1), ["all"], original_dims=3)
    results = evaluate(model, [split], {"toy": train}, importance_samples=4, **NO_TABLES)
    rows = {row["name"]: row for row in results["rows"]}
    with torch.no_grad():
        nats = model.log_prob(test).double().mean().item()
    assert rows["prior"]["log_prob_nats"] == pytest.approx(nats, abs=1e-4)
    assert rows["prior"]["bits_per_dim"] == pytest.approx(-nats / 3 / math.log(2), abs=1e-4)
    assert all(row["bits_per_pixel"] is None for row in rows.values())
    baseline = gaussian_log_prob(train, test)
    assert baseline is not None
    assert rows["full-covariance Gaussian"]["log_prob_nats"] == pytest.approx(baseline.mean().item())
    text = markdown(results, "tzk run x")
    header = next(line for line in text.splitlines() if line.startswith("| model"))
    assert [cell.strip() for cell in header.split("|")[3:6]] == ["log p, nats", "±", "bits/dim"]
    assert "samples" in header and "pixel" not in text and "image" not in text
    line = next(line for line in text.splitlines() if line.startswith("| prior"))
    error = rows["prior"]["standard_error"] * math.log(2)
    assert [cell.strip() for cell in line.split("|")[3:5]] == [f"{nats:.3f}", f"{error:.3f}"]


def test_grey_levels_keep_their_units() -> None:
    T = (torch.randint(0, 256, (20, 1, 2, 2), generator=torch.Generator().manual_seed(0)) + 0.5) / 256
    model = TzK(build_flow((1, 2, 2), tile=1, steps=1))
    results = evaluate(
        model,
        [held_out(T, levels=256, original_dims=4)],
        {"toy": (T * 256).floor().to(torch.uint8)},
        importance_samples=1,
        **NO_TABLES,
    )
    assert {row["log_prob_nats"] for row in results["rows"]} == {None}
    text = markdown(results, "tzk run x")
    assert "bits/pixel" in text and "images" in text and "nats, " not in text
