"""`tzk score` and `tzk ood` on a tiny run of glyphs: what they say, what they refuse, what they leave behind."""

from __future__ import annotations

import csv
import json
import math
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import refused, tzk
from PIL import Image
from tzk_plugin_outside.calibration import STORED
from tzk_plugin_outside.detection import NEED_DATA, ON_REQUEST, STATISTICS
from tzk_plugin_outside.evidence import dequantised
from tzk_plugin_outside.novelty import DEFAULT
from tzk_plugin_outside.reading import read_all
from tzk_plugin_outside.score import command

import tzk_core
from tzk_core.config import load_config
from tzk_core.data.glyphs import GlyphDigits, GlyphLetters
from tzk_core.data.mnist import Mnist
from tzk_core.errors import TzkError
from tzk_core.runs.experiment import Experiment

CONFIG = """
name = "digits"
pictures = { draw = [] }

[flow]
steps = 2
tile = 4

[[datasets]]
name = "digits"
type = "glyph-digits"
train = 300
validation = 100
test = 60

[[knowledge]]
name = "digit-{label}"
type = "gaussian"
hidden = 8
present = { dataset = "digits", label = "each" }

[training]
steps = 10
batch_size = 64
initialisation = 256

[evaluation]
importance_samples = 4
"""
OUTSIDE = """
[[datasets]]
name = "letters"
type = "glyph-letters"
train = 10
validation = 10
test = 50
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    (folder / "digits.toml").write_text(CONFIG)
    result = tzk("run", folder / "digits.toml", "--out", folder / "run")
    assert result.exit_code == 0, result.output
    return folder / "run"


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three digits, and one letter in a subfolder."""
    folder = tmp_path_factory.mktemp("images")
    for i, image in enumerate(GlyphDigits(test=3).split("test").T):
        Image.fromarray(image[0].numpy()).save(folder / f"{i + 8}.png")
    (folder / "letters").mkdir()
    letter = GlyphLetters(test=1).split("test").T[0, 0].numpy()
    Image.fromarray(letter).convert("RGB").save(folder / "letters" / "1.png")
    (folder / "notes.txt").write_text("left alone")
    return folder


def scored(*words: object, status: int = 0) -> dict[str, Any]:
    result = tzk("score", *words, "--json")
    assert result.exit_code == status, result.output
    return json.loads(result.stdout)


def test_a_folder_is_scored_as_the_model_says_of_each_image(run: Path, images: Path) -> None:
    scores = scored(run, images, "--seed", 3)
    names = [str(images / name) for name in ("8.png", "9.png", "10.png", "letters/1.png")]
    assert [each["file"] for each in scores["images"]] == names
    assert set(scores) == {
        *("format", "run", "knowledge", "importance_samples", "seed", "statistic", "threshold", "images", "unreadable")
    }
    assert scores["format"] == 1 and scores["unreadable"] == [] and scores["importance_samples"] == 4
    assert scores["threshold"]["validation"] == {"digits": 100} and scores["threshold"]["false_alarms"] == 0.05

    model = tzk_core.load(run)
    grey = read_all(images, {"digits": GlyphDigits()}).T
    for each, T in zip(scores["images"], dequantised(grey, 256, seed=3).split(1), strict=True):
        log_prob = model.log_prob(T).item()
        given = {n: model.log_prob(T, n, importance_samples=4, seed=3).item() for n in scores["knowledge"]}
        best = max(given, key=given.__getitem__)
        assert each["log_prob"] == pytest.approx(log_prob, abs=1e-2)
        assert each["bits_per_dim"] == pytest.approx(8 - log_prob / math.log(2) / 256, abs=1e-4)
        assert (each["best"], each["row"]) == (best, None)
        assert each["log_ratio"] == pytest.approx(given[best] - log_prob, abs=1e-2)
        assert each["statistic"] == pytest.approx(given[best], abs=1e-2)
        assert each["presence"] == pytest.approx(model.posterior(T)[best].presence.item(), abs=1e-4)
        assert each["none"] == (each["statistic"] < scores["threshold"]["value"]) == (each["knowledge"] is None)
        assert set(each["each"]) == set(scores["knowledge"]) == {f"digit-{i}" for i in range(10)}


def test_no_score_depends_on_where_an_image_lies(run: Path, images: Path, tmp_path: Path) -> None:
    shutil.copy(images / "10.png", tmp_path / "elsewhere.png")
    alone = scored(run, tmp_path / "elsewhere.png")["images"][0]
    beside = scored(run, images)["images"][2]
    for key in ("log_prob", "log_ratio", "statistic", "presence"):
        assert alone[key] == pytest.approx(beside[key], abs=1e-3)


def test_the_threshold_has_the_stated_false_alarms_on_the_validation_data(run: Path, tmp_path: Path) -> None:
    experiment = Experiment(load_config(run / "config.toml"))
    T, _ = experiment.samples("digits", "validation")
    np.savez(tmp_path / "validation.npz", T=T.numpy())
    for share in (0.05, 0.3):
        scores = scored(run, tmp_path / "validation.npz", "--false-alarms", share)
        assert sum(each["none"] for each in scores["images"]) == round(share * 100)
        assert [each["row"] for each in scores["images"]] == list(range(100))


def test_only_data_with_the_knowledge_asked_for_choose_the_threshold(run: Path, images: Path) -> None:
    scores = scored(run, images, "--knowledge", "digit-3", "--knowledge", "digit-5")
    labels = GlyphDigits(train=300, validation=100, test=60).split("validation").labels["label"]
    assert scores["threshold"]["validation"] == {"digits": int(np.isin(labels, ["3", "5"]).sum())}
    assert {each["best"] for each in scores["images"]} <= {"digit-3", "digit-5"}


def test_what_it_was_chosen_on_is_kept_for_the_same_model_only(run: Path, images: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    (copy / STORED).unlink(missing_ok=True)
    refused("score", copy, images, "--statistic", "nothing")
    assert not (copy / STORED).exists()
    first = scored(copy, images)
    assert (copy / STORED).is_file()
    time = (copy / STORED).stat().st_mtime_ns
    assert scored(copy, images, "--statistic", "ratio", "--false-alarms", 0.1)["images"]
    assert (copy / STORED).stat().st_mtime_ns == time
    assert scored(copy, images)["threshold"] == first["threshold"]
    assert scored(copy, images, "--seed", 7)["threshold"]["value"] != first["threshold"]["value"]

    model = tzk_core.load(copy)
    with torch.no_grad():
        next(model.flow.parameters()).mul_(1.01)
    tzk_core.save(model, copy / "best")
    assert scored(copy, images)["threshold"]["value"] != first["threshold"]["value"]
    (copy / STORED).write_bytes(b"damaged")
    assert scored(copy, images)["images"]


def test_without_the_data_a_threshold_of_ones_own_does(run: Path, images: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    (copy / STORED).unlink(missing_ok=True)
    text = (copy / "config.toml").read_text()
    (copy / "config.toml").write_text(text.replace("validation = 100", "validation = 0"))
    assert "no data set of this run has a validation split (digits)" in refused("score", copy, images)
    scores = scored(copy, images, "--threshold", -1e9)
    assert not any(each["none"] for each in scores["images"]) and scores["images"][0]["p_value"] is None
    assert scores["threshold"] == {"value": -1e9, "false_alarms": None, "validation": {}}
    assert all(each["none"] for each in scored(copy, images, "--threshold", 1e9)["images"])
    for name in NEED_DATA:
        assert "needs validation data" in refused("score", copy, images, "--threshold", 0, "--statistic", name)


def test_one_broken_file_does_not_lose_the_others(run: Path, images: Path, tmp_path: Path) -> None:
    mixed = tmp_path / "mixed"
    shutil.copytree(images, mixed)
    whole = (images / "8.png").read_bytes()
    (mixed / "1.png").write_text("no image")
    (mixed / "2.png").write_bytes(whole[: len(whole) // 2])
    Image.new("L", (7, 5)).save(mixed / "3.png")
    Image.fromarray(np.zeros((16, 16), dtype=np.uint16)).save(mixed / "4.png")
    scores = scored(run, mixed, status=1)
    assert [Path(each["file"]).name for each in scores["unreadable"]] == ["1.png", "2.png", "3.png", "4.png"]
    reasons = [each["reason"] for each in scores["unreadable"]]
    parts = ["cannot read", "cannot read", "7 x 5 pixels, expected 16 x 16", "8 bits"]
    for reason, part in zip(reasons, parts, strict=True):
        assert part in reason
    assert len(scores["images"]) == 4
    printed = tzk("score", run, mixed)
    assert printed.exit_code == 1 and all(reason in printed.stderr for reason in reasons)
    for name in ("8.png", "9.png", "10.png", "letters/1.png"):
        (mixed / name).unlink()
    assert "none of the 4 images in" in refused("score", run, mixed)


def test_what_cannot_be_scored_is_refused_before_anything_is(run: Path, images: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.png").write_text("no image")
    Image.new("L", (7, 5)).save(tmp_path / "small.png")
    T = np.full((3, 1, 16, 16), 0.5, dtype=np.float32)
    T[1, 0, 2, 3] = math.nan
    arrays = {"nan": T, "infinite": np.where(np.isnan(T), math.inf, T), "other": np.zeros((2, 1, 8, 8), np.uint8)}
    arrays |= {"none": T[:0], "whole": np.zeros((2, 1, 16, 16), np.int64), "far": np.full((2, 1, 16, 16), 3.0)}
    for name, array in arrays.items():
        np.savez(tmp_path / f"{name}.npz", T=array)
    np.savez(tmp_path / "unnamed.npz", X=T)
    (tmp_path / "damaged.npz").write_bytes((tmp_path / "nan.npz").read_bytes()[:100])
    for name, message in {
        "nowhere.png": "there is no",
        "empty": "no images in",
        "broken.png": "cannot read the image",
        "small.png": "is 7 x 5 pixels, expected 16 x 16",
        "nan.npz": "T: expected finite numbers; got nan or infinity, first in sample 1",
        "infinite.npz": "first in sample 1",
        "other.npz": "expected shape (n, 1, 16, 16), n at least 1; got (2, 1, 8, 8)",
        "none.npz": "n at least 1; got (0, 1, 16, 16)",
        "whole.npz": "expected uint8 grey levels or floating point; got int64",
        "far.npz": "outside the domain of the flow, first in row 0",
        "unnamed.npz": "has no array T, has X",
        "damaged.npz": "cannot read",
    }.items():
        assert message in refused("score", run, tmp_path / name), name
    (tmp_path / "text.txt").write_text("text")
    assert "is expected to be an image (.bmp" in refused("score", run, tmp_path / "text.txt")
    image = images / "8.png"
    assert "did you mean 'digit-1'" in refused("score", run, image, "--knowledge", "digit-11")
    assert "no statistic is called 'likelihod'; did" in refused("score", run, image, "--statistic", "likelihod")
    assert "no data set 'digit'; did you mean 'digits'" in refused("score", run, image, "--like", "digit")
    assert "there is no folder" in refused("score", run, image, "--csv", tmp_path / "nowhere" / "scores.csv")
    assert "finite number; got nan" in refused("score", run, image, "--threshold", "nan")
    assert "is not a run folder" in refused("score", tmp_path / "norun", image)
    for words in (["--false-alarms", 1], ["--false-alarms", -0.1], ["--importance-samples", 0]):
        assert "is not in the range" in refused("score", run, image, *words)


def test_a_table_for_people_and_one_for_programs(run: Path, images: Path, tmp_path: Path) -> None:
    file = tmp_path / "scores.csv"
    printed = tzk("score", run, images, "--csv", file)
    assert printed.exit_code == 0
    said = scored(run, images)
    with file.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["file"] for row in rows] == [each["file"] for each in said["images"]]
    assert [float(row["log_prob"]) for row in rows] == [each["log_prob"] for each in said["images"]]
    assert [row["none"] for row in rows] == [str(each["none"]) for each in said["images"]]
    number = sum(each["none"] for each in said["images"])
    assert f"{number} of 4 images are none of them" in printed.stdout
    assert "below" in printed.stdout and "5 % of the validation images" in printed.stdout
    for each in said["images"]:
        line = next(line for line in printed.stdout.splitlines() if line.startswith(each["file"]))
        assert f"{each['bits_per_dim']:.3f}" in line
        assert (f"none of them ({each['best']})" in line) == each["none"]


def test_the_help_names_every_statistic_and_the_default() -> None:
    help_text = next(option.help for option in command.params if option.name == "statistic" and hasattr(option, "help"))
    assert help_text is not None
    assert set(re.findall(r"\w+", help_text)) >= set(STATISTICS)
    assert f"{DEFAULT} (the default)" in help_text


# --- reading images as a run's data sets do


def test_mnist_pads_what_is_of_its_size(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (28, 28), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "small.png")
    T = read_all(tmp_path / "small.png", {"mnist": Mnist(size=32)}).T
    assert T.shape == (1, 1, 32, 32)
    assert np.array_equal(T[0, 0, 2:30, 2:30].numpy(), pixels) and T.sum() == pixels.sum()
    Image.fromarray(T[0, 0].numpy()).save(tmp_path / "padded.png")
    assert torch.equal(read_all(tmp_path / "padded.png", {"mnist": Mnist(size=32)}).T, T)
    Image.new("L", (30, 28)).save(tmp_path / "wide.png")
    with pytest.raises(TzkError, match=r"mnist: .*wide\.png is 30 x 28 pixels, expected 28 x 28 .* or 32 x 32"):
        read_all(tmp_path / "wide.png", {"mnist": Mnist(size=32)})


def test_data_sets_that_read_an_image_differently_have_to_be_told_apart(tmp_path: Path) -> None:
    Image.new("L", (28, 28), 200).save(tmp_path / "1.png")
    datasets = {"padded": Mnist(size=28), "digits": GlyphDigits(size=28)}
    assert read_all(tmp_path / "1.png", datasets).T.unique().tolist() == [200]
    inverted = GlyphDigits(size=28)
    inverted.prepare = lambda image, name: 255 - image  # type: ignore[attr-defined]
    datasets["inverted"] = inverted
    with pytest.raises(TzkError, match="another image to data set 'padded' than to 'inverted': say which with --like"):
        read_all(tmp_path / "1.png", datasets)
    assert read_all(tmp_path / "1.png", datasets, "inverted").T.unique().tolist() == [55]


# --- out of distribution


def test_ood_reports_every_statistic_beside_plain_likelihood(run: Path, tmp_path: Path) -> None:
    spec = tmp_path / "letters.toml"
    spec.write_text(OUTSIDE)
    result = tzk("ood", run, spec, "--json", "-o", tmp_path)
    assert result.exit_code == 0, result.output
    measured = json.loads(result.stdout)
    assert measured == json.loads((tmp_path / "ood.json").read_text())
    (outside,) = measured["outside"]
    assert (outside["dataset"], outside["count"], measured["inside"]) == ("letters", 50, {"digits": 60})
    assert measured["validation"] == {"digits": 100}
    plain = [name for name in STATISTICS if name not in ON_REQUEST]
    assert [row["statistic"] for row in outside["statistics"]] == plain
    table = (tmp_path / "ood.md").read_text()
    for row in outside["statistics"]:
        assert 0 <= row["area"] <= 1 and row["standard_error"] > 0
        assert f"{row['area']:.4f}" in table

    itself = tmp_path / "itself.toml"
    itself.write_text(CONFIG)
    again = json.loads(tzk("ood", run, itself, "--json").stdout)
    areas = [row["area"] for row in again["outside"][0]["statistics"]]
    assert areas == pytest.approx([0.5] * len(plain), abs=1e-9)  # its own data, noise and all
    some = json.loads(tzk("ood", run, spec, "--json", "--validation", 40).stdout)
    assert some["validation"] == {"digits": 40}
    few = json.loads(tzk("ood", run, spec, "--json", "--limit", 20, "--split", "validation").stdout)
    assert (few["inside"], few["outside"][0]["count"]) == ({"digits": 20}, 10)


def test_ood_refuses_what_cannot_be_compared(run: Path, tmp_path: Path) -> None:
    spec = tmp_path / "letters.toml"
    for text, message in [
        (OUTSIDE + "size = 20\n", "data set 'letters' is of shape (1, 20, 20) with 256 grey levels; this model's data"),
        (OUTSIDE.replace("glyph-letters", "glyph-leters"), "did you mean 'glyph-letters'"),
        ('name = "nothing"\n', "datasets"),
        ("[[datasets]\n", "not valid TOML"),
        (OUTSIDE.replace("test = 50", "test = 0"), "the test split of data set 'letters' is empty"),
    ]:
        spec.write_text(text)
        assert message in refused("ood", run, spec)
    assert "no such file; did you mean" in refused("ood", run, tmp_path / "leters.toml")
    spec.write_text(OUTSIDE)
    assert "did you mean 'digit-1'" in refused("ood", run, spec, "--knowledge", "digit-11")
    assert "expected to name a folder that is there" in refused("ood", run, spec, "-o", tmp_path / "nowhere")
