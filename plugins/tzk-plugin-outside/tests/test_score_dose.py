"""`tzk score --statistic dose`: fitted once to a run, kept in its folder, and the same wherever it is computed."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import output_of, refused, tzk
from digit_runs import digits_run
from running import Running, start

import tzk_core
from tzk_core.data.glyphs import GlyphDigits
from tzk_core.runs.opened import open_run

pytest.importorskip("tzk_plugin_features")
from tzk_plugin_outside import calibration, dose_of_run
from tzk_plugin_outside.dose_of_run import fitted_dose, training_images
from tzk_plugin_outside.evidence import dequantised
from tzk_plugin_outside.roc import roc_area, threshold

__all__ = ["start"]  # a fixture

COUNT = 40


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return digits_run(tmp_path_factory.mktemp("runs"), train=600, validation=120, steps=10)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`COUNT` digits of the test split, then as many whose pixels are shuffled, each in its own order."""
    own = GlyphDigits(train=600, validation=120, test=60).split("test").T[:COUNT]
    source = np.random.default_rng(0)
    moved = np.stack([source.permutation(image.ravel()).reshape(1, 16, 16) for image in own.numpy()])
    file = tmp_path_factory.mktemp("images") / "both.npz"
    np.savez(file, T=np.concatenate([own.numpy(), moved]))
    return file


def scored(*words: object) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(tzk("score", *words, "--statistic", "dose", "--json").stdout)
    return result


def values(scores: dict[str, Any]) -> torch.Tensor:
    return torch.tensor([each["statistic"] for each in scores["images"]], dtype=torch.float64)


def test_made_outsiders_are_told_and_the_numbers_are_those_of_the_score(run: Path, images: Path) -> None:
    scores = scored(run, images, "--seed", 3)
    said = values(scores)
    assert roc_area(said[:COUNT], said[COUNT:]).area > 0.97
    called = torch.tensor([each["none"] for each in scores["images"]])
    assert called[COUNT:].double().mean() > 0.9 > 0.3 > called[:COUNT].double().mean()
    assert scores["statistic"]["name"] == "dose" and scores["threshold"]["validation"] == {"digits": 120}

    experiment = open_run(run)
    dose = fitted_dose(experiment, 2000)
    with np.load(images) as arrays:
        T = dequantised(torch.from_numpy(arrays["T"]), 256, seed=3)
    torch.testing.assert_close(said, dose.score(T), rtol=1e-4, atol=1e-4)
    one_by_one = torch.cat([dose.score(image) for image in T[:5].split(1)])
    torch.testing.assert_close(said[:5], one_by_one, rtol=1e-3, atol=1e-3)
    own = dose.score(experiment.samples("digits", "validation")[0])
    assert scores["threshold"]["value"] == pytest.approx(threshold(own, 0.05), rel=1e-4)


def test_it_is_fitted_once_for_a_model_and_its_data(
    run: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    (copy / dose_of_run.STORED).unlink(missing_ok=True)
    first = values(scored(copy, images))
    for name in ("fitted_dose", "training_images"):
        monkeypatch.setattr(dose_of_run, name, lambda *_: pytest.fail("fitted again"))
    assert torch.equal(values(scored(copy, images, "--false-alarms", 0.2)), first)
    kept = (copy / calibration.STORED).read_bytes()
    assert json.loads(tzk("score", copy, images, "--json").stdout)["statistic"]["name"] == "best"
    assert (copy / calibration.STORED).read_bytes() == kept  # what has more serves for less
    monkeypatch.undo()

    with np.load(copy / dose_of_run.STORED) as arrays:
        stored = dict(arrays)
    np.savez(copy / dose_of_run.STORED, **(stored | {"units": np.zeros((3, 2))}))  # type: ignore[arg-type]
    assert torch.equal(values(scored(copy, images)), first)
    (copy / dose_of_run.STORED).write_bytes(b"damaged")
    assert torch.equal(values(scored(copy, images)), first)
    model = tzk_core.load(copy)
    with torch.no_grad():
        next(model.flow.parameters()).mul_(1.5)
    tzk_core.save(model, copy / "best")
    assert not torch.equal(values(scored(copy, images)), first)


def test_the_images_that_it_is_fitted_to_are_of_the_training_split(run: Path) -> None:
    experiment = open_run(run)
    chosen, split = training_images(experiment), experiment.train_samples["digits"].T
    assert sorted(row for _, row in chosen.rows) == list(range(600))
    rows = [row for _, row in chosen.rows]
    assert torch.equal((chosen.T * 256).floor().to(torch.uint8), split[rows])


def test_what_it_cannot_score_is_one_sentence(
    run: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("score", run, images, "--statistic", "dose")
    assert "'dose' needs validation data: leave --threshold out" in refused(*command, "--threshold", 0)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "the score 'dose' takes tzk-plugin-features: pip install" in refused(*command)
    monkeypatch.undo()
    copy = tmp_path / "run"
    shutil.copytree(run, copy, ignore=shutil.ignore_patterns("*.npz"))
    text = (copy / "config.toml").read_text()
    (copy / "config.toml").write_text(text.replace("validation = 120", "validation = 0"))
    message = refused("score", copy, images, "--statistic", "dose")
    assert "'dose' is compared with validation images, and no data set of this run has any" in message
    np.savez(tmp_path / "numbers.npz", T=np.random.default_rng(0).normal(size=(80, 3)).astype(np.float32))
    (tmp_path / "real.toml").write_text(
        'name = "real"\nflow = { layers = [{ type = "affine" }] }\ntraining = { steps = 1 }\n'
        f'datasets = [{{ name = "numbers", type = "npz", path = "{tmp_path}/numbers.npz" }}]\n'
    )
    output_of("run", tmp_path / "real.toml", "--out", tmp_path / "real")
    message = refused("score", tmp_path / "real", tmp_path / "numbers.npz", "--statistic", "dose")
    assert "'dose' is of images with grey levels; the data of this run are real-valued" in message


@pytest.mark.slow
def test_several_processes_fit_and_score_to_the_byte_what_one_does(
    run: Path, tmp_path: Path, start: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    T = GlyphDigits(test=600).split("test").T.numpy()
    np.savez(tmp_path / "many.npz", T=T)
    written = []
    for count in (1, 2):
        for name in (calibration.STORED, dose_of_run.STORED):
            (run / name).unlink(missing_ok=True)
        program = start("score", run, tmp_path / "many.npz", "--statistic", "dose", "--json", "--processes", count)
        status, out, err = program.ended()
        assert status == 0, err
        written.append((out, *((run / name).read_bytes() for name in (calibration.STORED, dose_of_run.STORED))))
    assert written[0] == written[1]
