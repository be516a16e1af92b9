"""No image of a folder vanishes in silence, and what a program leaves out of a header is not lost."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tzk_core.data.folder import Folder
from tzk_core.data.images import SUFFIXES, read_image
from tzk_core.data.listing import OTHER_SUFFIXES, images_below
from tzk_core.errors import Note, TzkError

GREY = np.arange(20, dtype=np.uint8).reshape(4, 5) * 12


def images(folder: Path, names: Iterable[str]) -> Path:
    for name in names:
        for number in range(10):
            (folder / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(GREY).save(folder / name / f"{number}.png")
    return folder


@pytest.mark.parametrize("suffix", sorted(OTHER_SUFFIXES))
def test_an_image_of_another_format_is_noted(tmp_path: Path, suffix: str) -> None:
    images(tmp_path, ["a"])
    (tmp_path / "a" / f"x{suffix.upper()}").write_bytes(b"x")
    with pytest.warns(Note, match=rf"not read \(1 of \{suffix}\)"):
        assert len(images_below(tmp_path)) == 10


def test_other_files_and_images_that_are_read_are_not_noted(tmp_path: Path) -> None:
    images(tmp_path, ["a"])
    for name in ("notes.txt", "labels.csv", "Thumbs.db", ".hidden.heic", *(f"x{suffix}" for suffix in SUFFIXES)):
        (tmp_path / "a" / name).write_bytes(b"x")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(images_below(tmp_path)) == 10 + len(SUFFIXES)


@pytest.mark.parametrize(
    "names", [("training", "testing"), ("Training", "VALID"), ("dev", "eval", "cat"), ("trainset", "testset")]
)
def test_folders_that_look_like_splits_are_no_labels_unless_one_says_so(tmp_path: Path, names: tuple[str, ...]) -> None:
    images(tmp_path, names)
    with pytest.raises(TzkError, match="look like splits and would be labels: .* splits = false"):
        Folder(tmp_path)
    labels = Folder(tmp_path, splits=False).split("train").labels["label"]
    assert set(labels.tolist()) == set(names)


@pytest.mark.parametrize("names", [("valid", "invalid"), ("training", "racing"), ("dev",), ("a", "b")])
def test_one_such_name_may_be_a_label(tmp_path: Path, names: tuple[str, ...]) -> None:
    assert set(Folder(images(tmp_path, names)).split("train").labels["label"].tolist()) <= set(names)


@pytest.mark.parametrize("colour", [0, 90])
def test_a_bmp_keeps_transparency_that_its_header_does_not_name(tmp_path: Path, colour: int) -> None:
    """As a PNG of the same pixels is read; Pillow writes such a BMP, and reads it without its fourth channel."""
    pixels = np.zeros((6, 6, 4), dtype=np.uint8)
    pixels[2:4, 1:5] = (colour, colour, colour, 255)
    pixels[4, 1:5] = (colour, colour, colour, 128)
    for suffix in ("png", "bmp"):
        Image.fromarray(pixels).save(tmp_path / f"x.{suffix}")
    read = {suffix: read_image(tmp_path / f"x.{suffix}", "grey", "t") for suffix in ("png", "bmp")}
    assert read["png"].unique().numel() == 3
    assert read["bmp"].equal(read["png"])


@pytest.mark.parametrize("alpha", [0, 255])
def test_a_fourth_channel_of_one_value_means_nothing(tmp_path: Path, alpha: int) -> None:
    pixels = np.concatenate([np.repeat(GREY[..., None], 3, axis=2), np.full((4, 5, 1), alpha, np.uint8)], axis=2)
    Image.fromarray(pixels).save(tmp_path / "x.bmp")
    assert read_image(tmp_path / "x.bmp", "grey", "t")[0].numpy().tolist() == GREY.tolist()


def test_a_label_that_training_images_lack_is_noted(tmp_path: Path) -> None:
    """As nothing is trained on it, its test images would count for no knowledge type."""
    images(tmp_path, ["train/a", "train/b", "test/a", "test/c", "val/b"])
    with pytest.warns(Note, match=r"test has labels that train has not: c: nothing") as noted:
        dataset = Folder(tmp_path)
    assert len(noted) == 1
    assert set(dataset.split("test").labels["label"].tolist()) == {"a", "c"}
