"""`tzk eval` and `tzk sample`: what they write, and what they refuse."""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import refused, tzk
from fake_experiment import CONFIG, FakeExperiment


def test_eval_prints_the_table(here: Path, experiment: type[FakeExperiment]):
    tzk("run", "small.toml", "--out", "out")
    result = tzk("eval", "out", "--limit", 20)
    assert result.exit_code == 0, result.output
    assert "bits/dim" in result.stdout
    assert "tzk eval out --split test --limit 20" in result.stdout
    results = json.loads(tzk("eval", "out", "--split", "validation", "--json").stdout)
    assert results["rows"][0]["split"] == "validation"
    assert experiment.calls[-1] == ("load", Path("out"))


@pytest.mark.parametrize("command", ["eval", "sample"])
def test_what_is_no_run_folder(here: Path, command: str):
    assert "nowhere is not a run folder: there is no such folder" in refused(command, "nowhere")


class FakeModel:
    """Draws zeros of a shape."""

    def __init__(self, *shape: int) -> None:
        self.shape = shape
        self.asked: dict[str, Any] = {}

    @property
    def like(self) -> Any:
        import torch

        return torch.zeros(1)

    def find(self, name: str) -> Any:
        return types.SimpleNamespace(characteristics=2)

    def sample(self, n: int, **asked: Any) -> Any:
        import torch

        self.asked = asked
        return torch.zeros(n, *self.shape)


@pytest.fixture
def model(here: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., FakeModel]:
    """Makes `tzk sample out` find a model of a shape."""
    import tzk_core

    def install(*shape: int) -> FakeModel:
        made = FakeModel(*shape)
        monkeypatch.setattr(tzk_core, "load", lambda path: made, raising=False)
        (here / "out").mkdir(exist_ok=True)
        (here / "out/config.toml").write_text(CONFIG)
        return made

    return install


def test_samples_of_images_make_a_grid(here: Path, model: Callable[..., FakeModel]):
    from PIL import Image

    made = model(1, 16, 16)
    result = tzk("sample", "out", "--knowledge", "digit-7", "-n", 9, "--characteristics", "1.5,-0.3", "-o", "grid.png")
    assert result.exit_code == 0, result.output
    width, height = Image.open(here / "grid.png").size
    assert width == height
    assert made.asked["knowledge"] == "digit-7"
    assert made.asked["characteristics"].shape == (9, 2)
    assert made.asked["seed"] == 0


def test_samples_of_points_make_a_scatter_plot(here: Path, model: Callable[..., FakeModel]):
    model(2)
    assert tzk("sample", "out").stdout == "prior.png\n"
    assert (here / "prior.png").stat().st_size > 0


def test_samples_of_anything_make_an_array(here: Path, model: Callable[..., FakeModel]):
    import numpy

    model(3, 4, 5, 6)
    assert tzk("sample", "out", "-n", 7).stdout == "prior.npz\n"
    assert numpy.load(here / "prior.npz")["T"].shape == (7, 3, 4, 5, 6)
    assert "are no picture: name an .npz file" in refused("sample", "out", "-o", "a.png")


def test_what_cannot_be_sampled(model: Callable[..., FakeModel]):
    model(1, 16, 16)
    assert "--characteristics needs --knowledge" in refused("sample", "out", "--characteristics", "1,2")
    of_moons = ["--knowledge", "moons", "--characteristics"]
    assert "moons has 2 characteristics; got 3" in refused("sample", "out", *of_moons, "1,2,3")
    assert "expected numbers with commas between them" in refused("sample", "out", *of_moons, "a,b")
    assert "expected finite numbers, got 'nan,1'" in refused("sample", "out", *of_moons, "nan,1")
    assert "moons has 2 characteristics; got 1" in refused("sample", "out", *of_moons, "moons=1")
    assert "'moon', which --knowledge does not name; did you mean 'moons'" in refused(
        "sample", "out", *of_moons, "moon=1,2"
    )
    twice = [*of_moons, "1,2", "--characteristics", "moons=1,2"]
    assert "--characteristics of 'moons' are given twice" in refused("sample", "out", *twice)
    several = ["--knowledge", "rings", *of_moons, "1,2"]
    assert "takes its name: rings=1.0,2.0" in refused("sample", "out", *several)
    assert "expected -o to name a .png or .npz file" in refused("sample", "out", "-o", "a.jpg")
    assert "there is no folder nowhere" in refused("sample", "out", "-o", "nowhere/a.png")


def test_points_go_into_an_array_where_nothing_draws_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tzk_core.cli.sample import _checked_file
    from tzk_core.errors import TzkError

    assert _checked_file(None, "prior", (2,), number=9) == Path("prior.png")
    for name in [name for name in sys.modules if name.startswith("tzk_plugin_report")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "tzk_core.report.scatter")
    monkeypatch.setitem(sys.modules, "tzk_plugin_report", None)
    assert _checked_file(None, "prior", (2,), number=9) == Path("prior.npz")
    assert _checked_file(None, "prior", (1, 4, 4), number=9) == Path("prior.png")
    with pytest.raises(TzkError, match="pip install tzk-plugin-report; or name an .npz file"):
        _checked_file(tmp_path / "points.png", "prior", (2,), number=9)
