"""The data sets that need no download: drawn glyphs, toys, a user's folders of images and npz files."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tzk_core.data.folder import Folder
from tzk_core.data.glyphs import DIGITS, LETTERS, GlyphDigits, GlyphLetters, GlyphSigns
from tzk_core.data.npz import Npz
from tzk_core.data.protocol import SPLITS, Dataset
from tzk_core.data.strokes import FACTORS, Factors, render
from tzk_core.data.toys import Rings, TwoMoons
from tzk_core.errors import TzkError

COUNTS = {"train": 60, "validation": 12, "test": 24}
MADE: dict[str, Callable[..., Any]] = {
    "glyph-digits": GlyphDigits,
    "glyph-letters": GlyphLetters,
    "glyph-signs": GlyphSigns,
    "two-moons": TwoMoons,
    "rings": Rings,
}


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder of 12 grey images of 6 x 5 pixels, image i all of grey level 10 i, in two labels."""
    for i in range(12):
        file = tmp_path / "images" / ("cat" if i < 8 else "dog") / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((5, 6), 10 * i, dtype=np.uint8)).save(file)
    (tmp_path / "images" / "notes.txt").write_text("not an image")
    (tmp_path / "images" / "cat" / ".hidden.png").write_text("not an image")
    return tmp_path / "images"


@pytest.fixture
def arrays() -> dict[str, np.ndarray]:
    return {
        "T": np.arange(40 * 6, dtype=np.uint8).reshape(40, 2, 3),
        "labels.kind": np.array(["a", "b"] * 20),
        "labels.year": np.arange(40) % 3 + 1990,
        "characteristics.mass": np.linspace(0, 1, 40),
    }


# --- any data set


@pytest.fixture(params=[*MADE, "folder", "npz"])
def dataset(request: pytest.FixtureRequest, images: Path, arrays: dict, tmp_path: Path) -> Callable[..., Dataset]:
    """A constructor of a small data set, which takes `seed`."""
    if request.param == "folder":
        return lambda **arguments: Folder(images, **arguments)
    if request.param == "npz":
        np.savez(tmp_path / "x.npz", **arrays)
        return lambda **arguments: Npz(tmp_path / "x.npz", **arguments)
    return lambda **arguments: MADE[request.param](**COUNTS, **arguments)


def test_every_data_set_keeps_the_protocol(dataset: Callable[..., Dataset]) -> None:
    data = dataset()
    assert isinstance(data, Dataset)
    assert data.original_dims == math.prod(data.shape)
    for split in SPLITS:
        samples = data.split(split)
        assert len(samples) > 0 and samples.T.shape[1:] == data.shape
        assert samples.T.dtype == (torch.uint8 if data.levels else torch.float32)
        assert samples.T.is_contiguous()
        assert all(column.dtype.kind == "U" for column in samples.labels.values())
        assert all(column.dtype == torch.float32 for column in samples.characteristics.values())
    with pytest.raises(TzkError, match="no split 'tset': .*did you mean 'test'"):
        data.split("tset")


def test_every_data_set_is_determined_by_its_seed(dataset: Callable[..., Dataset]) -> None:
    for split in SPLITS:
        first, again, other = (dataset(seed=seed).split(split) for seed in (5, 5, 6))
        assert torch.equal(first.T, again.T)
        assert all((first.labels[name] == again.labels[name]).all() for name in first.labels)
        assert not (first.T.shape == other.T.shape and torch.equal(first.T, other.T))


def test_splits_of_every_data_set_are_disjoint(dataset: Callable[..., Dataset]) -> None:
    data = dataset()
    seen = [row.numpy().tobytes() for split in SPLITS for row in data.split(split).T]
    assert len(seen) == len(set(seen))


# --- sizes


@pytest.mark.parametrize("dataset", [GlyphDigits, GlyphLetters, GlyphSigns, TwoMoons, Rings])
@pytest.mark.parametrize("split", ["train", "validation", "test"])
@pytest.mark.parametrize("count", [-1, 10**7 + 1, 10**30])
def test_a_drawn_split_has_a_bound_before_anything_is_drawn(dataset: type, split: str, count: int) -> None:
    with pytest.raises(TzkError, match=f"{split} = {count}, expected a number of samples, 0 to 10,000,000"):
        dataset(**{split: count})


@pytest.mark.parametrize("size", [7, 8193, 10**30])
def test_a_drawn_image_has_a_bound(size: int) -> None:
    with pytest.raises(TzkError, match=f"size = {size}, expected 8 pixels, for glyphs to be legible, to 8192"):
        GlyphDigits(size=size)


# --- glyphs


def test_glyphs_have_an_empty_ground_and_smooth_ink() -> None:
    for data in (GlyphDigits(), GlyphLetters(), GlyphSigns()):
        T = data.split("train").T
        assert T.shape == (4000, 1, 16, 16)
        assert (T == 0).float().mean() > 0.6  # the ground
        assert (T == 255).any((1, 2, 3)).float().mean() > 0.9  # ink that covers a pixel
        assert ((T > 0) & (T < 255)).float().mean() > 0.05  # edges
        frame = torch.ones(16, 16, dtype=torch.bool)
        frame[1:-1, 1:-1] = False
        assert T[:, 0, frame].float().mean() < 2  # glyphs stay within the image


def test_glyph_classes_are_balanced() -> None:
    labels = GlyphLetters(train=600).split("train").labels["label"]
    assert {name: int((labels == name).sum()) for name in LETTERS} == dict.fromkeys(LETTERS, 100)
    assert list(DIGITS) == [str(digit) for digit in range(10)]


@pytest.mark.parametrize("made", [GlyphDigits, GlyphLetters])
def test_factors_are_labels_too(made: Callable[..., Any]) -> None:
    """A third of a Gaussian beyond half a deviation on either side, and never against the factor itself."""
    samples = made(train=4000).split("train")
    for factor, classes in (("slant", ("left", "upright", "right")), ("thickness", ("thin", "normal", "thick"))):
        names, values = samples.labels[f"{factor}_class"], samples.characteristics[factor].numpy()
        low, middle, high = (values[names == name] for name in classes)
        assert low.max() < -0.5 <= middle.min() <= middle.max() < 0.5 <= high.min()
        shares = np.array([len(low), len(middle), len(high)]) / 4000
        assert np.abs(shares - [0.3085, 0.383, 0.3085]).max() < 4.5 * 0.5 / np.sqrt(4000)


def test_the_number_of_training_glyphs_moves_no_other_split() -> None:
    small, large = GlyphDigits(train=50), GlyphDigits(train=70)
    assert torch.equal(small.split("test").T, large.split("test").T)


def test_glyphs_are_quick() -> None:
    start = time.process_time()
    GlyphDigits().split("train")
    assert time.process_time() - start < 2


def test_nearest_class_mean_recognises_glyphs() -> None:
    for data in (GlyphDigits(), GlyphLetters(), GlyphSigns()):
        train, test = data.split("train"), data.split("test")
        names = sorted(data.strokes)
        means = torch.stack([train.T[torch.as_tensor(train.labels["label"] == n)].float().mean(0) for n in names])
        distance = (test.T.float()[:, None] - means).square().sum((2, 3, 4))
        right = np.array(names)[distance.argmin(1).numpy()] == test.labels["label"]
        assert right.mean() > 0.7


@pytest.mark.parametrize("made", [GlyphDigits, GlyphLetters])
def test_characteristics_are_what_the_pixels_show(made: Callable[..., Any]) -> None:
    """The ink and its moments, measured from the image alone, follow the factors that generated it."""
    samples = made().split("train")
    C = {name: value.numpy() for name, value in samples.characteristics.items()}
    assert tuple(C) == FACTORS
    ink = samples.T[:, 0].double().numpy() / 255
    ticks = (np.arange(16) + 0.5) / 8 - 1
    x, y = ticks[None, None, :], -ticks[None, :, None]
    total = ink.sum((1, 2))
    middle_x, middle_y = (ink * x).sum((1, 2)) / total, (ink * y).sum((1, 2)) / total
    dx, dy = x - middle_x[:, None, None], y - middle_y[:, None, None]
    shear = (ink * dx * dy).sum((1, 2)) / (ink * dy * dy).sum((1, 2))
    height = np.sqrt((ink * dy * dy).sum((1, 2)) / total)
    shown = {"slant": shear, "thickness": total, "scale": height, "shift_x": middle_x, "shift_y": middle_y}
    for name in FACTORS:
        within = []
        for label in made().strokes:
            rows = samples.labels["label"] == label
            within.append(np.corrcoef(C[name][rows], shown[name][rows])[0, 1])
        assert np.median(within) > 0.8, name
    for value in C.values():
        assert abs(value.mean()) < 0.06 and abs(value.std() - 0.95) < 0.06 and abs(value).max() <= 2


def test_a_straight_stroke_has_the_ink_of_its_area() -> None:
    zero = np.zeros(1, dtype=np.float32)
    line = render(
        [[(0.0, -0.9), (0.0, 0.9)]], Factors(zero, zero, zero, zero, zero), size=64, random=np.random.default_rng(0)
    )
    length, thickness = 0.66 * 1.8, 0.2
    area = length * thickness + math.pi * thickness**2 / 4
    assert line.sum() / 255 == pytest.approx(area * 32**2, rel=0.02)


# --- toys


def test_toys_lie_on_their_curves() -> None:
    rings = Rings(noise=0.0, **COUNTS).split("train")
    radius = rings.T.norm(dim=1).numpy()
    assert np.allclose(radius, np.where(rings.labels["label"] == "inner", 0.75, 1.75), atol=1e-6)
    moons = TwoMoons(noise=0.0, **COUNTS).split("train")
    upper = moons.labels["label"] == "upper"
    middle = np.where(upper[:, None], [-0.5, -0.25], [0.5, 0.25])
    assert np.allclose(np.linalg.norm(moons.T.numpy() - middle, axis=1), 1, atol=1e-6)
    assert (np.where(upper, 1, -1) * (moons.T.numpy() - middle)[:, 1] >= -1e-6).all()
    noisy = Rings(noise=0.1, train=4000).split("train").T.norm(dim=1).numpy()
    assert np.abs(noisy[:, None] - [0.75, 1.75]).min(1).std() == pytest.approx(
        0.1 * math.sqrt(1 - 2 / math.pi), rel=0.1
    )


# --- folders of images


def grey(samples: Any) -> list[int]:
    return [int(T.flatten()[0]) // 10 for T in samples.T]


def test_folder_reads_labels_in_natural_order(images: Path) -> None:
    data = Folder(images, validation=0, test=1)
    assert (data.shape, data.original_dims, data.name) == ((1, 5, 6), 30, "images")
    train, test = data.split("train"), data.split("test")
    assert grey(train) == [i for i in range(12) if i not in grey(test)]
    assert train.labels["label"].tolist() == ["cat" if i < 8 else "dog" for i in grey(train)]


def test_folder_does_not_depend_on_the_order_of_the_file_system(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected, listdir, scandir = [Folder(images).split(split).T for split in SPLITS], os.listdir, os.scandir

    def backwards(top: Path) -> Any:
        return nullcontext(sorted(scandir(top), key=lambda entry: entry.name, reverse=True))

    monkeypatch.setattr(os, "scandir", backwards)
    monkeypatch.setattr(os, "listdir", lambda top: sorted(listdir(top), reverse=True))
    assert all(torch.equal(Folder(images).split(s).T, T) for s, T in zip(SPLITS, expected, strict=True))


def test_folder_does_not_depend_on_where_it_lies(images: Path, tmp_path: Path) -> None:
    expected = grey(Folder(images).split("test"))
    images.rename(tmp_path / "elsewhere")
    assert grey(Folder(tmp_path / "elsewhere").split("test")) == expected


def test_folder_of_splits(images: Path, tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    images.rename(tmp_path / "whole" / "train")
    test = tmp_path / "whole" / "test" / "dog" / "small"
    test.mkdir(parents=True)
    Image.fromarray(np.full((5, 6), 200, dtype=np.uint8)).save(test / "a.PNG")
    data = Folder(tmp_path / "whole", validation=3)
    assert [len(data.split(split)) for split in SPLITS] == [9, 3, 1]
    assert data.split("test").labels["label"].tolist() == ["dog/small"]
    with pytest.raises(TzkError, match="folder: test = 2 asks to cut a test split, but the data brings one"):
        Folder(tmp_path / "whole", test=2)
    (tmp_path / "whole" / "train").rename(tmp_path / "whole" / "trian")
    with pytest.raises(TzkError, match="has a folder test but no folder train"):
        Folder(tmp_path / "whole")


def test_folder_without_subfolders_has_no_labels(images: Path) -> None:
    data = Folder(images / "cat")
    assert data.split("train").labels == {}


def test_folder_size_colour_and_invert(images: Path) -> None:
    data = Folder(images, size=8, colour="rgb", invert=True, test=1, validation=0)
    assert (data.shape, data.original_dims) == ((3, 8, 8), None)
    assert (
        255 - 10 * torch.tensor(grey(Folder(images, test=1, validation=0).split("train")))[:, None, None, None]
        == data.split("train").T
    ).all()
    red = Image.new("RGB", (6, 5), (255, 0, 0))
    red.save(images / "cat" / "100.png")
    colours = Folder(images / "cat", colour="rgb", test=0, validation=0).split("train").T[-1]
    assert colours[:, 0, 0].tolist() == [255, 0, 0]


def test_folder_is_looked_for_below_the_data_root(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZK_DATA", str(images.parent))
    assert Folder("images").folder == images
    with pytest.raises(TzkError, match=f"neither .*nowhere nor {images.parent}/nowhere: correct `path`"):
        Folder("nowhere")


def test_folder_names_the_file_that_does_not_fit(images: Path, tmp_path: Path) -> None:
    def read() -> None:
        Folder(images, test=0, validation=0).split("train")

    bad = images / "dog" / "9b.png"
    Image.new("L", (7, 5)).save(bad)
    with pytest.raises(TzkError, match=r"dog/9b\.png is 7 x 5 pixels, but .*cat/0\.png is 6 x 5: give a `size`"):
        read()
    bad.write_bytes((images / "dog" / "9.png").read_bytes()[:-30])
    with pytest.raises(TzkError, match=r"cannot read the image .*dog/9b\.png"):
        read()
    bad.write_text("not an image")
    with pytest.raises(TzkError, match=r"cannot read the image .*dog/9b\.png"):
        read()
    Image.fromarray(np.zeros((5, 6), dtype=np.uint16)).save(bad)
    with pytest.raises(TzkError, match=r"dog/9b\.png has more than 8 bits"):
        read()


def test_folder_refuses_what_it_cannot_use(images: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for arguments, message in [
        ({}, "`path` is missing"),
        ({"path": tmp_path / "empty"}, "no images in .*empty"),
        ({"path": images / "notes.txt"}, "is not a folder"),
        ({"path": images, "colour": "gray"}, "expected 'grey' or 'rgb'; did you mean 'grey'"),
        ({"path": images, "size": 0}, "size = 0"),
        ({"path": images, "test": 12}, "test = 12, expected at least 0 and less than the 12"),
    ]:
        with pytest.raises(TzkError, match=message):
            Folder(**arguments)


# --- npz files


def test_npz_gives_the_arrays(arrays: dict, tmp_path: Path) -> None:
    np.savez(tmp_path / "mine.npz", **arrays)
    data = Npz(tmp_path / "mine.npz", validation=4, test=6)
    assert (data.name, data.shape, data.levels, data.original_dims) == ("mine", (2, 3), 256, 6)
    rows = np.concatenate([data.split(split).T.numpy()[:, 0, 0] // 6 for split in SPLITS])
    assert [len(data.split(split)) for split in SPLITS] == [30, 4, 6] and sorted(rows) == list(range(40))
    test = data.split("test")
    row = int(test.T[0, 0, 0]) // 6
    assert test.labels["kind"][0] == arrays["labels.kind"][row]
    assert test.labels["year"][0] == str(arrays["labels.year"][row])
    assert test.characteristics["mass"][0] == pytest.approx(arrays["characteristics.mass"][row])


def test_npz_real_values_and_separate_files(arrays: dict, tmp_path: Path) -> None:
    arrays["T"] = arrays["T"] / 7.0
    arrays["characteristics.mass"][3] = np.nan
    arrays["labels.kind"] = arrays["labels.kind"].astype("S1")
    np.savez(tmp_path / "train.npz", **arrays)
    np.savez(tmp_path / "test.npz", **{name: array[:5] for name, array in arrays.items()})
    data = Npz(tmp_path, validation=0)
    assert data.levels is None and [len(data.split(split)) for split in SPLITS] == [40, 0, 5]
    test = data.split("test")
    assert test.T.dtype == torch.float32 and test.labels["kind"].tolist() == ["a", "b", "a", "b", "a"]
    assert test.characteristics["mass"].isnan().tolist() == [False, False, False, True, False]
    np.savez(tmp_path / "test.npz", T=arrays["T"])
    with pytest.raises(TzkError, match=r"test\.npz does not fit train\.npz: .*labels\.kind.*no columns"):
        Npz(tmp_path)


NAN = np.zeros((40, 2))
NAN[7, 1] = np.nan
BAD_ARRAYS = [
    ({"labels.kind": np.array(["a"] * 39)}, r"x\.npz: labels\.kind: expected shape \(40,\).*got \(39,\)"),
    ({"T": NAN}, r"x\.npz: T: .*nan or infinity, first in sample 7"),
    ({"T": np.zeros(40)}, r"T: expected shape \(n, \*shape\)"),
    ({"T": np.zeros((40, 2), dtype=np.int64)}, r"T: expected uint8 grey levels or floating point; got int64"),
    ({"T": np.full((40, 2), 200, dtype=np.uint8)}, r"T: expected grey levels below 100; got 200"),
    ({"T": np.array([["a"]] * 40)}, r"T: expected uint8 grey levels or floating point"),
    ({"labels.x": np.linspace(0, 1, 40)}, r"labels\.x: expected text or integers; got float64"),
    ({"labels.x": np.array([None] * 40)}, r"cannot read .*x\.npz"),
    ({"characteristics.m": np.array(["a"] * 40)}, r"characteristics\.m: expected numbers"),
    ({"characteristics.m": np.full(40, np.inf)}, r"characteristics\.m: expected finite numbers"),
    ({"label.kind": np.zeros(40)}, r"label\.kind: unknown array; .*did you mean 'labels\.kind'"),
]


@pytest.mark.parametrize(("bad", "message"), BAD_ARRAYS, ids=[message for _, message in BAD_ARRAYS])
def test_npz_names_the_array_that_does_not_fit(arrays: dict, tmp_path: Path, bad: dict, message: str) -> None:
    arrays["T"] //= 3
    np.savez(tmp_path / "x.npz", **(arrays | bad))
    with pytest.raises(TzkError, match=message):
        Npz(tmp_path / "x.npz", levels=100)


def test_npz_refuses_what_it_cannot_read(arrays: dict, tmp_path: Path) -> None:
    del arrays["T"]
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(TzkError, match=r"has no array T, has labels\.kind, labels\.year"):
        Npz(tmp_path / "x.npz")
    (tmp_path / "y.npz").write_bytes((tmp_path / "x.npz").read_bytes()[:300])
    with pytest.raises(TzkError, match=r"cannot read .*y\.npz"):
        Npz(tmp_path / "y.npz")
    np.save(tmp_path / "z.npy", np.zeros(3))
    with pytest.raises(TzkError, match=r"cannot read .*z\.npy \(not an npz file"):
        Npz(tmp_path / "z.npy")
    with pytest.raises(TzkError, match=r"there is no .*train\.npz"):
        Npz(tmp_path)
