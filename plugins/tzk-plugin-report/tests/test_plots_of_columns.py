"""Pictures of tables have every column under its name, samples over test data, and a density that is one."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from torch import Tensor
from tzk_plugin_report.plots import columns, figure

from tzk_core.build import build_flow, build_knowledge
from tzk_core.model import TzK
from tzk_core.report import pictures

NAMES = ("mass", "charge", "spin")


class Experiment:
    """A trained experiment on a table, as pictures see one."""

    def __init__(self, dims: int) -> None:
        T = torch.randn(200, dims, generator=torch.Generator().manual_seed(0)) * torch.tensor([100.0, 1.0, 0.01][:dims])
        self.T = T
        self.model = TzK(build_flow((dims,), steps=1, domain="real"))
        self.model.flow.initialise(T)
        for name in ("heavy", "light"):
            self.model.add(name, build_knowledge("gaussian", (dims,), name=name, hidden=4))
        named = SimpleNamespace(name="particles")
        drawn = SimpleNamespace(temperature=1.0, draw=("samples", "density"))
        self.config = SimpleNamespace(seed=0, pictures=drawn, datasets=[named])
        self.datasets = {"particles": SimpleNamespace(columns=list(NAMES[:dims]))}
        self.knowledge_names = ("heavy", "light")
        self.groups = {"{mass}": ["heavy", "light"]} if dims == 3 else {}
        self.observed: dict[str, tuple[str, ...]] = {}
        self.dataset_knowledge: dict[str, str] = {}

    def samples(self, dataset: str, split: str) -> tuple[Tensor, Tensor]:
        heavy = (torch.arange(len(self.T)) % 2).float()
        return self.T, torch.stack([heavy, 1 - heavy], 1)


@pytest.fixture
def pages(monkeypatch: pytest.MonkeyPatch) -> dict[str, Figure]:
    written: dict[str, Figure] = {}

    def write(page: Figure, path: Path) -> None:
        written[Path(path).stem] = page
        Path(path).touch()

    monkeypatch.setattr(figure, "write", write)
    return written


def titles(page: Figure) -> list[str]:
    return [axes.get_title("left") for axes in page.axes if axes.get_visible()]


def test_a_table_has_marginals_and_pairs_of_its_columns_by_knowledge(tmp_path: Path, pages: dict[str, Figure]) -> None:
    pictures.draw(Experiment(3), tmp_path, {})
    assert set(pages) == {"samples-prior", "pairs-prior", "samples-all"}
    assert titles(pages["samples-prior"]) == list(NAMES)
    texts = {text.get_text() for text in pages["samples-all"].axes[0].texts}
    assert texts == {"test data", "heavy", "light"}
    labels = {axes.get_xlabel() for axes in pages["pairs-prior"].axes}
    assert labels >= set(NAMES)


@pytest.mark.parametrize("dims", [1, 2])
def test_one_and_two_dimensions_have_their_density(dims: int, tmp_path: Path, pages: dict[str, Figure]) -> None:
    pictures.draw(Experiment(dims), tmp_path, {})
    assert {"density-prior", "density-heavy", "density-light", "samples-prior"} <= set(pages)


def test_the_density_that_is_drawn_integrates_to_one(tmp_path: Path, pages: dict[str, Figure]) -> None:
    """Of standard Gaussians: the frame leaves 2 % outside."""
    T = torch.randn(4000, 2, generator=torch.Generator().manual_seed(0))
    standard = torch.distributions.Normal(0.0, 1.0)
    columns.density(lambda x: standard.log_prob(x).sum(1), T, tmp_path / "x.png", names=NAMES, title="")
    (mesh,) = pages["x"].axes[0].collections[:1]
    x, y = np.asarray(mesh.get_coordinates())[..., 0], np.asarray(mesh.get_coordinates())[..., 1]
    cell = (x[0, 1] - x[0, 0]) * (y[1, 0] - y[0, 0])
    assert np.asarray(mesh.get_array()).sum() * cell == pytest.approx(1, abs=0.02)
    columns.density(lambda x: standard.log_prob(x)[:, 0], T[:, :1], tmp_path / "y.png", names=NAMES, title="")
    (line,) = pages["y"].axes[0].lines
    assert np.trapezoid(line.get_ydata(), line.get_xdata()) == pytest.approx(1, abs=0.01)


def test_a_histogram_has_the_area_of_what_is_in_its_frame(tmp_path: Path, pages: dict[str, Figure]) -> None:
    T = torch.arange(1000.0)[:, None]
    columns.marginals(T, {"half outside": T + 500}, tmp_path / "x.png", names=["x"])
    stairs = [patch for patch in pages["x"].axes[0].patches if hasattr(patch, "get_data")]
    areas = [float((patch.get_data().values * np.diff(patch.get_data().edges)).sum()) for patch in stairs]
    assert areas == pytest.approx([1.0, 0.6], abs=0.01)  # half of them, and a tenth of margin
