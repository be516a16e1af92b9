"""Every figure in a picture is one of results.json or metrics.csv, in the unit that its panel says."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from matplotlib.figure import Figure
from test_report import DIGITS, blob_experiment, row, write_metrics
from tzk_plugin_report.plots import curves, figure

from tzk_core.report import grid, pictures, views


@pytest.fixture
def pages(monkeypatch: pytest.MonkeyPatch) -> dict[str, Figure]:
    """The plots that are written, by the name of the file."""
    kept: dict[str, Figure] = {}
    monkeypatch.setattr(figure, "write", lambda page, path: kept.update({Path(path).stem: page}) or Path(path).touch())
    return kept


@pytest.fixture
def grids(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What grids are made of, by the name of the file."""
    kept: dict[str, Any] = {}

    def save(images: torch.Tensor, path: Path, columns: int, **more: Any) -> None:
        kept[path.stem] = {"images": images, "columns": columns, **more}

    monkeypatch.setattr(grid, "save", save)
    return kept


def written(path: Path, columns: Mapping[str, Sequence[float]]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return path


def panel(page: Figure, title: str) -> Any:
    (found,) = [axes for axes in page.axes if axes.get_title("left").startswith(title)]
    return found


def curves_of(axes: Any, style: str) -> list[list[float]]:
    """The vertical positions of the lines of this style."""
    found = [line.get_ydata() for line in axes.lines if line.get_linestyle() == style]
    return [[round(float(value), 9) for value in values] for values in found]


def test_curves_are_the_columns_of_the_log_each_in_its_unit(tmp_path: Path, pages: dict[str, Figure]) -> None:
    log = {
        "step": [10, 20, 30, 40],
        "prior_weight": [1.0, 0.9, 0.8, 0.7],
        "bits_per_dim/toy": [2.0, 1.9, 1.8, 1.7],
        "bits_per_dim_given/k": [1.9, 1.7, 1.6, 1.5],
        "conditional/k": [10.0, 20.0, 30.0, 40.0],
        "inconsistency/k": [9.0, 8.0, 7.0, 6.0],
        "multiplier/k": [0.1, 0.2, 0.3, 0.4],
    }
    curves.draw(written(tmp_path / "metrics.csv", log), tmp_path / "curves.png")
    page = pages["curves"]
    bits = panel(page, "Bits per dim in training\ndashed: given knowledge")
    assert curves_of(bits, "-") == [log["bits_per_dim/toy"]]
    assert curves_of(bits, "--") == [log["bits_per_dim_given/k"]], "bits, and not the gain in nats"
    assert curves_of(panel(page, "Inconsistency g, nats"), "-") == [log["inconsistency/k"]]
    assert curves_of(panel(page, "Multipliers"), "-") == [log["multiplier/k"]]
    assert curves_of(panel(page, "Weight of log p(z)"), "-") == [log["prior_weight"]]
    assert all(line.get_xdata().tolist() == log["step"] for axes in page.axes for line in axes.lines)
    assert sorted(text.get_text() for text in bits.texts) == ["given k  1.50", "toy  1.70"]


def test_the_figure_at_the_end_of_a_curve_is_the_mean_of_the_last_lines(
    tmp_path: Path, pages: dict[str, Figure]
) -> None:
    steps = list(range(90))
    values = [3 + 0.5 * math.sin(step) for step in steps]
    log = {"step": steps, "bits_per_dim/toy": values}
    curves.draw(written(tmp_path / "metrics.csv", log), tmp_path / "curves.png")
    window = len(steps) // 30
    last = sum(values[-1 - window // 2 :]) / (1 + window // 2)
    assert [text.get_text() for text in panel(pages["curves"], "Bits").texts] == [f"toy  {last:.2f}"]


def test_a_start_above_the_panel_is_the_first_value_of_the_log(tmp_path: Path, pages: dict[str, Figure]) -> None:
    log = {"step": list(range(40)), "bits_per_dim/toy": [7.25, *[1.5] * 39]}
    curves.draw(written(tmp_path / "metrics.csv", log), tmp_path / "curves.png")
    assert "starts at 7.25, above the panel" in [text.get_text() for text in panel(pages["curves"], "Bits").texts]


def test_the_line_of_a_family_is_the_mean_of_its_members(tmp_path: Path, pages: dict[str, Figure]) -> None:
    log: dict[str, list[float]] = {"step": [1, 2]}
    log |= {f"bits_per_dim_given/{name}": [2.0 + i, 1.0 + i] for i, name in enumerate(DIGITS)}
    curves.draw(written(tmp_path / "metrics.csv", log), tmp_path / "curves.png")
    assert curves_of(panel(pages["curves"], "Bits"), "--") == [[2 + 4.5, 1 + 4.5]]


def test_figures_beside_samples_are_those_of_the_results(tmp_path: Path, grids: dict[str, Any]) -> None:
    bits = {name: 1.0 + 0.01 * i for i, name in enumerate(DIGITS[1:])}
    rows = [row(name, "knowledge", knowledge=name, bits_per_dim=value) for name, value in bits.items()]
    mean = row("mean digit", "knowledge", knowledge="digit-0", bits_per_dim=9.0)  # a mean of one, under another name
    pictures.draw(blob_experiment(), tmp_path, {"rows": [mean, *rows]})
    labels = grids["samples-digit-all"]["row_labels"]
    assert labels == ["digit-0", *(f"{name}\n{value:.2f} bits/dim" for name, value in bits.items())]
    experiment, across = blob_experiment(), grids["samples-digit-all"]["columns"]
    expected = torch.cat([experiment.model.sample(across, name, seed=0) for name in DIGITS])
    assert torch.equal(grids["samples-digit-all"]["images"], expected)


def test_no_figure_stands_for_several_data_sets() -> None:
    rows = [row("k", "knowledge", data, knowledge="k", bits_per_dim=bits) for data, bits in (("a", 1.0), ("b", 2.0))]
    assert views.bits_per_dim({"rows": rows[:1]}, "k") == 1.0
    assert views.bits_per_dim({"rows": rows}, "k") is None


def test_a_plane_of_C_has_the_names_and_quantiles_of_what_lies_there(tmp_path: Path, grids: dict[str, Any]) -> None:
    experiment = blob_experiment(shape=(1, 32, 32))
    pictures.draw(experiment, tmp_path, {})
    for name, (first, second) in {"mnist": ("slant", "thickness"), "omniglot": ("C1", "C2")}.items():
        plane = grids[f"plane-of-C-{name}"]
        columns, rows = plane["column_labels"], plane["row_labels"]
        assert columns[0] == f"{first} at\n5 %" and columns[-1] == f"{first} at\n95 %"
        assert rows[0] == f"{second} at 95 %" and rows[-1] == f"{second} at 5 %"
        # the C of a blob is where its middle lies, and a quantile of the prior N(0, 1) is where its label says
        shares = torch.tensor([float(each.split()[-2]) / 100 for each in columns])
        model: Any = experiment.model
        C = model.knowledge[name].encode(model.encode(plane["images"]), torch.zeros(1)).view(len(rows), len(columns), 2)
        normal = torch.distributions.Normal(0.0, 1.0)
        assert torch.allclose(C[..., 0], normal.icdf(shares).expand(len(rows), -1), atol=0.05)
        assert torch.allclose(C[..., 1], normal.icdf(shares.flip(0))[:, None].expand(-1, len(columns)), atol=0.05)


def test_points_of_the_plane_are_those_of_data_and_model(tmp_path: Path, pages: dict[str, Figure]) -> None:
    experiment = blob_experiment(shape=(2,), grouped=False)
    pictures.draw(experiment, tmp_path, {})
    left, right = pages["samples-omniglot"].axes
    T, presence = experiment.samples("omniglot", "test")
    assert torch.equal(torch.as_tensor(left.collections[0].get_offsets().data), T[presence[:, 1] == 1].double())
    sampled = experiment.model.sample(2000, "omniglot", seed=0)
    assert torch.equal(torch.as_tensor(right.collections[0].get_offsets().data), sampled.double())
    assert right.get_title("left") == "samples: omniglot"
    for name, expected in {"mnist": ["along slant", "along thickness"], "omniglot": ["along C1", "along C2"]}.items():
        assert [text.get_text() for text in pages[f"plane-of-C-{name}"].axes[0].texts] == expected


def test_a_log_without_bits_given_knowledge_draws_none(tmp_path: Path, pages: dict[str, Figure]) -> None:
    """A run of an older version has the gain alone."""
    write_metrics(tmp_path / "metrics.csv", 3, [])
    log = {"step": [1, 2], "bits_per_dim/toy": [2.0, 1.5], "conditional/k": [40.0, 50.0]}
    curves.draw(written(tmp_path / "metrics.csv", log), tmp_path / "curves.png")
    assert [axes.get_title("left") for axes in pages["curves"].axes if axes.axison] == ["Bits per dim in training"]
