"""The measurement of strangers: corruptions are what they are called, rivals score what they say."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from commands import output_of, tzk
from torch import Tensor
from tzk_plugin_outside.evidence import dequantised

from tzk_core.data.glyphs import GlyphDigits, GlyphLetters

pytest.importorskip("tzk_plugin_features")
from tzk_plugin_outside.dose import EXPECTED, FEATURES

CONFIG = """
name = "digits"
flow = { steps = 1, tile = 4 }
datasets = [{ name = "digits", type = "glyph-digits", size = 32, train = 200, validation = 60, test = 20 }]
training = { steps = 3, batch_size = 64, initialisation = 128 }

[[knowledge]]
name = "digit-{label}"
type = "gaussian"
hidden = 4
present = { dataset = "digits", label = "each" }
"""
FOLDER = Path(__file__).parents[3] / "examples" / "knowledge"


@pytest.fixture(scope="module")
def modules() -> Iterator[tuple[ModuleType, ModuleType]]:
    sys.path.insert(0, str(FOLDER))
    yield importlib.import_module("corruptions"), importlib.import_module("stranger_rivals")
    sys.path.remove(str(FOLDER))


@pytest.fixture
def images() -> Tensor:
    return torch.randint(256, (6, 1, 32, 32), generator=torch.Generator().manual_seed(0)).to(torch.uint8)


def test_corruptions_are_what_they_are_called(modules: tuple[ModuleType, ModuleType], images: Tensor) -> None:
    made = modules[0].corrupted(images, torch.Generator().manual_seed(1))
    assert len(made) == 8 and all(each.shape == images.shape and each.dtype == torch.uint8 for each in made.values())
    shuffled = made["blocks shuffled"]
    assert torch.equal(shuffled.flatten(1).sort(1).values, images.flatten(1).sort(1).values)
    blocks = {tuple(b.flatten().tolist()) for b in images[0, 0].unfold(0, 8, 8).unfold(1, 8, 8).reshape(16, 8, 8)}
    assert blocks == {
        tuple(b.flatten().tolist()) for b in shuffled[0, 0].unfold(0, 8, 8).unfold(1, 8, 8).reshape(16, 8, 8)
    }
    assert (made["two at once"] >= images).all() and (made["thickened"] >= images).all()
    assert torch.equal(made["rotated by 90°"].rot90(-1, (2, 3)), images)
    assert torch.equal(made["quadrants of four"][:, :, :16, :16], images[:, :, :16, :16])
    assert (made["thinned"][:, :, :31, :31] <= images[:, :, :31, :31]).all()
    assert made["halved in size"][:, :, :8].sum() == 0
    mirror = images.flip(3)
    assert not any(torch.equal(each, mirror) for each in made.values())


def test_rivals_score_what_they_say(modules: tuple[ModuleType, ModuleType], images: Tensor) -> None:
    x = images.float() / 255
    nearest = modules[1].Nearest(x)
    assert nearest.score(x).abs().max() < 1e-2
    assert nearest.score(x + 0.1).tolist() == pytest.approx([-0.1 * 32] * 6, rel=1e-3)
    principal = modules[1].Principal(x)  # six images span five directions, so that all lie in the plane
    assert principal.score(x).abs().max() < 1e-2 < -principal.score(x.flip(3)).max()


def test_the_network_learns_what_can_be_told(modules: tuple[ModuleType, ModuleType]) -> None:
    x = torch.zeros(80, 1, 32, 32)
    x[40:, :, 8:24, 8:24] = 1
    classes = torch.arange(2).repeat_interleave(40)
    network = modules[1].Network(x, classes, epochs=20)
    assert torch.equal(network.log_probabilities(x).argmax(1), classes)
    assert torch.equal(network.score(x), network.log_probabilities(x).max(1).values)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the shape that the program is for, of other data."""
    pytest.importorskip("tzk_plugin_omniglot")
    folder = tmp_path_factory.mktemp("runs")
    (folder / "digits.toml").write_text(CONFIG)
    output_of("run", folder / "digits.toml", "--out", folder / "run")
    return folder / "run"


def test_the_program_has_the_numbers_of_the_command(
    modules: tuple[ModuleType, ModuleType], run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On its own images and on others."""
    glyphs = [made(32, train=200, validation=60, test=10).split("test").T for made in (GlyphDigits, GlyphLetters)]
    np.savez(tmp_path / "both.npz", T=torch.cat(glyphs).numpy())
    command = ("score", run, tmp_path / "both.npz", "--statistic", "dose", "--json")
    said = [each["statistic"] for each in json.loads(tzk(*command).stdout)["images"]]
    strangers = importlib.import_module("strangers")  # beside the modules
    monkeypatch.setitem(strangers.LABEL, "digits", "label")
    experiment, dose = strangers.opened(run)
    statistics = dose.statistics(dequantised(torch.cat(glyphs), strangers.LEVELS, seed=0))
    assert statistics["dose"].tolist() == pytest.approx(said, rel=1e-4, abs=1e-4)
    images, classes = strangers.trained_on(experiment, "digits")
    assert len(images) == len(classes) == 200 and sorted(classes.unique().tolist()) == list(range(10))


def test_one_of_the_variants_is_the_score(modules: tuple[ModuleType, ModuleType], run: Path) -> None:
    """With its density, share, weight and units."""
    choice = importlib.import_module("strangers_choice")
    images = choice.Images(run, "digits", 0)
    assert (EXPECTED, FEATURES) in [(share, weight) for share in choice.EXPECTED for weight in choice.FEATURES]
    own = choice.Variant(images, images.dose.fitted.states, expected=EXPECTED, features=FEATURES)
    parts = images.corrupted["blurred"]
    own.units = [(median, unit) for median, unit in images.dose.fitted.units.tolist()]  # of the same noise
    torch.testing.assert_close(own.score(parts), images.dose.combined(parts))
    other = choice.Variant(images, images.dose.fitted.states, expected=1.0, features=FEATURES)
    assert not torch.allclose(other.score(parts), own.score(parts))
    single = choice.density(images, 1)
    assert single(images.train).mean() < choice.density(images, 8)(images.train).mean()
    simple = choice.of_simple_images(images)
    assert len(simple["medians"]) == 4 and -1 <= simple["correlation"] <= 1
