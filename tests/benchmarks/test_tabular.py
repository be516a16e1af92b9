"""What `benchmarks/tabular.py` compares is comparable: the same rows, and densities that integrate to one."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

pytest.importorskip("sklearn", reason="its tables are those that are compared")
pytest.importorskip("tzk_plugin_baselines", reason="it has the recipes")
tabular = pytest.importorskip("tabular")
flows = pytest.importorskip("tabular_flows")

TINY = tabular.Training(steps=4, learning_rate=1e-3, every=2)
SIZES = flows.Sizes(steps=2, hidden=6)
GRID = torch.linspace(-12, 12, 241)


@pytest.mark.parametrize("table", tabular.TABLES)
def test_a_seed_splits_all_rows_and_every_column_has_a_density(table: str) -> None:
    data, again, other = tabular.splits(table, 0), tabular.splits(table, 0), tabular.splits(table, 1)
    assert sum(map(len, data)) == len(tabular.columns(table))
    assert all(torch.equal(a, b) for a, b in zip(data, again, strict=True)) and not torch.equal(data.test, other.test)
    values = torch.cat(data).numpy()
    assert min(np.unique(column).size for column in values.T) > 0.9 * len(values)  # single precision joins a few


def test_noise_is_below_the_resolution_of_a_column() -> None:
    values = np.array([[1.0, 0.1], [1.5, 0.3], [3.0, 0.2]])
    assert np.allclose(tabular.resolution(values), [0.5, 0.1])


@pytest.mark.parametrize("architecture", flows.ARCHITECTURES)
@pytest.mark.parametrize("library", flows.RIVALS)
def test_a_rival_is_a_density_in_the_plane(library: str, architecture: str) -> None:
    if library != "nflows":
        pytest.importorskip(library)
    torch.manual_seed(0)
    module, log_prob = flows.rival(library, architecture, dims=2, sizes=SIZES)
    module.eval()
    with torch.no_grad():
        density = log_prob(torch.cartesian_prod(GRID, GRID)).exp()
    assert float(density.sum() * (GRID[1] - GRID[0]) ** 2) == pytest.approx(1, abs=0.02)


def test_a_rival_of_an_odd_number_of_columns_trains_and_is_in_the_unit_of_the_data() -> None:
    """Scaling a column by 1,000 takes log 1,000 from the density, whatever the training."""
    data = tabular.splits("wine", 0)
    scaled = tabular.Splits(*(part * torch.tensor([1000.0] + [1.0] * 12) for part in data))
    before, after = (
        tabular.train_rival("nflows", "real-nvp", part, sizes=SIZES, training=TINY, seed=0) for part in (data, scaled)
    )
    assert torch.allclose(before - math.log(1000), after, atol=1e-2)


def test_tzk_trains_on_the_same_splits() -> None:
    data = tabular.splits("iris", 0)
    values = tabular.train_tzk("maf", data, sizes=SIZES, training=TINY, seed=0)
    assert values.shape == (30,) and values.isfinite().all()


def test_tzk_is_worse_only_below_the_best_of_the_others_by_more_than_the_error() -> None:
    others = {"nflows": [1.0, 2.0, 3.0], "zuko": [0.0, 0.0, 0.0]}
    better = tabular.summary({"tzk": [1.5, 2.5, 3.5], **others})
    assert better["best"] == "nflows" and better["difference"] == 0.5 and better["difference_error"] == 0
    assert not better["worse"] and tabular.summary({"tzk": [0.5, 1.5, 2.5], **others})["worse"]
    noisy = tabular.summary({"tzk": [3.0, 0.0, 2.7], **others})
    assert noisy["difference"] < 0 and not noisy["worse"]


def test_the_best_of_a_row_is_in_bold() -> None:
    nats = {"tzk": [1.0, 2.0], "nflows": [0.0, 0.5]}
    shown = tabular.markdown({"results": {"iris": {"maf": {"nats": nats, **tabular.summary(nats)}}}})
    assert "| iris | maf | **1.50 ± 0.50** | 0.25 ± 0.25 | – | – | +1.25 ± 0.25 |" in shown
