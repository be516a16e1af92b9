"""Omniglot from re-packed zips, folders and nothing, on an imitation; the real drawings if there are any."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import urllib.error
import urllib.request
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tzk_plugin_omniglot import drawings, tzk_datasets
from tzk_plugin_omniglot.omniglot import Omniglot

from tzk_core.errors import TzkError

SIDE = 105
ALPHABETS = {"images_background": ("Aa", "B_(b)"), "images_evaluation": ("Cc",)}
COUNTS = {"images_background": 2 * 2 * 20, "images_evaluation": 2 * 20}
REAL = Path(os.environ.get("TZK_DATA", "nowhere"))
has_omniglot = pytest.mark.skipif(
    not (REAL / "omniglot-py").is_dir(),
    reason="needs the real Omniglot: set TZK_DATA to the folder that has omniglot-py",
)


def png(number: int) -> bytes:
    """A one-bit drawing: a block of ink whose place and height say which drawing it is."""
    paper = np.ones((SIDE, SIDE), dtype=bool)
    paper[number % 20 * 5 : number % 20 * 5 + 5, : 1 + number // 20 * 20] = False
    stream = io.BytesIO()
    Image.fromarray(paper).save(stream, "png")
    return stream.getvalue()


def imitation() -> dict[str, dict[str, bytes]]:
    """part -> path in the zip -> png, in an order that nobody would list."""
    result: dict[str, dict[str, bytes]] = {}
    number = 0
    for part, alphabets in ALPHABETS.items():
        files = {}
        for alphabet in alphabets:
            for character in ("character01", "character02"):
                for drawer in range(1, 21):
                    name = f"{part}/{alphabet}/{character}/{number // 20 + 1:04}_{drawer:02}.png"
                    files[name] = png(number)
                    number += 1
        result[part] = dict(sorted(files.items(), key=lambda item: hash(item[0])))
    return result


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A root with an imitation of Omniglot in zips that no md5 knows, and an empty cache."""
    folder = tmp_path / "data" / "omniglot-py"
    folder.mkdir(parents=True)
    for part, files in imitation().items():
        with zipfile.ZipFile(folder / f"{part}.zip", "w") as packed:
            for name, content in files.items():
                packed.writestr(name, content)
    monkeypatch.setattr(drawings, "COUNTS", COUNTS)
    monkeypatch.setattr(drawings, "_check_pixels", lambda *_, **__: None)
    monkeypatch.setenv("TZK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TZK_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


def test_registration_imports_neither_torch_nor_torchvision() -> None:
    code = (
        "import sys, tzk_plugin_omniglot as p; (d,) = p.tzk_datasets(); "
        "print(d.name, d.target, sorted({'torch', 'torchvision', 'numpy', 'nflows'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split(maxsplit=2) == ["omniglot", "tzk_plugin_omniglot.omniglot:Omniglot", "[]\n"]
    assert tzk_datasets()[0].summary


def test_reads_zips_of_another_md5_and_leaves_the_root_alone(source: Path) -> None:
    before = sorted(source.rglob("*"))
    data = Omniglot(size=SIDE, validation=9)
    train, validation, test = (data.split(split) for split in ("train", "validation", "test"))
    assert (len(train), len(validation), len(test)) == (80 - 9, 9, 40)
    assert sorted(source.rglob("*")) == before
    assert train.T.shape[1:] == data.shape == (1, SIDE, SIDE) and data.original_dims == SIDE**2
    assert set(train.labels["alphabet"]) == {"Aa", "B_(b)"}
    assert set(test.labels["character"]) == {"Cc/character01", "Cc/character02"}
    assert sorted(set(train.labels["drawer"])) == [f"{drawer:02}" for drawer in range(1, 21)]


def test_ink_is_bright_and_goes_with_its_labels(source: Path) -> None:
    test = Omniglot(size=SIDE).split("test")
    for i in range(40):
        paper = np.asarray(Image.open(io.BytesIO(png(80 + i))))
        assert (test.T[i, 0].numpy() == np.where(paper, 0, 255)).all()
        assert test.labels["drawer"][i] == f"{i % 20 + 1:02}"
        assert test.labels["character"][i] == f"Cc/character{i // 20 + 1:02}"


def test_resizing_keeps_the_mean_grey(source: Path) -> None:
    data, plain = Omniglot(), Omniglot(size=SIDE)
    assert (data.shape, data.original_dims) == ((1, 32, 32), None)
    small, large = data.split("test").T.float(), plain.split("test").T.float()
    assert small.shape == (40, 1, 32, 32)
    assert (small.mean((1, 2, 3)) - large.mean((1, 2, 3))).abs().max() < 1
    assert ((small > 0) & (small < 255)).any()


def test_a_drawing_from_outside_is_read_as_its_split_has_it(source: Path, tmp_path: Path) -> None:
    dataset = Omniglot(size=32, validation=0)
    read_all = pytest.importorskip("tzk_plugin_outside.reading").read_all
    for i, T in enumerate(dataset.split("test").T[:3]):
        name = f"images_evaluation/Cc/character01/{len(ALPHABETS['images_background']) * 2 + 1:04}_{i + 1:02}.png"
        (tmp_path / "drawing.png").write_bytes(imitation()["images_evaluation"][name])
        assert torch.equal(read_all(tmp_path / "drawing.png", {"omniglot": dataset}).T[0], T)
        Image.fromarray(T[0].numpy()).save(tmp_path / "resized.png")
        assert torch.equal(read_all(tmp_path / "resized.png", {"omniglot": dataset}).T[0], T)
    Image.new("L", (28, 28)).save(tmp_path / "other.png")
    with pytest.raises(TzkError, match=r"other\.png is 28 x 28 pixels, expected 105 x 105 with dark ink"):
        read_all(tmp_path / "other.png", {"omniglot": dataset})


def test_drawer_split_tests_on_the_last_four_drawings(source: Path) -> None:
    for subset, characters in (("background", 4), ("evaluation", 2), ("all", 6)):
        data = Omniglot(split="drawer", subset=subset, validation=5)
        train, validation, test = (data.split(split) for split in ("train", "validation", "test"))
        assert (len(train), len(validation), len(test)) == (16 * characters - 5, 5, 4 * characters)
        assert set(test.labels["drawer"]) == {"17", "18", "19", "20"}
        assert not {"17", "18", "19", "20"} & (set(train.labels["drawer"]) | set(validation.labels["drawer"]))
        assert len(set(test.labels["character"])) == characters


def test_how_many_drawers_are_test_can_be_said(source: Path) -> None:
    data = Omniglot(split="drawer", test_drawers=10, validation=0)
    train, test = data.split("train"), data.split("test")
    assert set(train.labels["drawer"]) == {f"{drawer:02}" for drawer in range(1, 11)}
    assert set(test.labels["drawer"]) == {f"{drawer:02}" for drawer in range(11, 21)}


@pytest.mark.parametrize("split", ["official", "drawer"])
def test_validation_is_cut_from_training_by_seed(source: Path, split: str) -> None:
    def rows(part: str, **arguments: int) -> list[bytes]:
        samples = Omniglot(split=split, size=SIDE, **{"validation": 20, **arguments}).split(part)
        return [row.numpy().tobytes() for row in samples.T]

    assert rows("validation") == rows("validation", seed=0) != rows("validation", seed=1)
    assert sorted(rows("train") + rows("validation")) == sorted(rows("train", validation=0))
    assert rows("validation", validation=0) == []
    assert rows("test") == rows("test", seed=1)


def test_order_does_not_depend_on_the_file_system(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = Omniglot(validation=10).split("train")
    listdir = os.listdir
    monkeypatch.setattr(os, "listdir", lambda path: sorted(listdir(path), key=hash))
    monkeypatch.setenv("TZK_CACHE", str(source.parent / "another-cache"))
    again = Omniglot(validation=10).split("train")
    assert torch.equal(again.T, expected.T)
    assert all((again.labels[name] == expected.labels[name]).all() for name in expected.labels)


def test_extracted_folders_give_the_same(source: Path, tmp_path: Path) -> None:
    expected = Omniglot().split("test")
    for packed in (source / "omniglot-py").iterdir():
        zipfile.ZipFile(packed).extractall(tmp_path / "extracted" / "omniglot-py")
    assert torch.equal(Omniglot(root=tmp_path / "extracted").split("test").T, expected.T)


def test_later_runs_read_the_cache(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = Omniglot().split("test").T
    monkeypatch.setattr(drawings, "_read", None)
    assert torch.equal(Omniglot().split("test").T, expected)
    assert Omniglot(size=20).split("test").T.shape[-1] == 20
    assert all(path.suffix == ".npz" for path in (tmp_path / "cache").iterdir())  # nothing temporary is left


def test_broken_zips_are_named(source: Path) -> None:
    packed = source / "omniglot-py" / "images_evaluation.zip"
    whole = packed.read_bytes()
    packed.write_bytes(whole[:5000])
    with pytest.raises(TzkError, match=r"cannot read .*images_evaluation\.zip .*get this file again"):
        Omniglot().split("test")
    packed.write_bytes(whole.replace(b"IDAT", b"IDAX", 1))
    with pytest.raises(TzkError, match=r"cannot read .*images_evaluation\.zip .*get this file again"):
        Omniglot().split("test")
    with zipfile.ZipFile(packed, "w") as smaller:
        smaller.writestr("images_evaluation/Cc/character01/0001_01.png", png(0))
    with pytest.raises(TzkError, match=r"images_evaluation\.zip has 1 drawings, expected 40"):
        Omniglot().split("test")
    with zipfile.ZipFile(packed, "w") as other:
        other.writestr("readme.txt", "")
    with pytest.raises(TzkError, match=r"images_evaluation\.zip has no folder images_evaluation"):
        Omniglot().split("test")


def test_absent_without_a_network_says_where_and_what(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no network in this test")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    monkeypatch.setenv("TZK_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("TZK_CACHE", str(tmp_path / "cache"))
    with pytest.raises(TzkError) as caught:
        Omniglot().split("train")
    message = str(caught.value)
    assert str(tmp_path / "data") in message and str(tmp_path / "cache") in message
    assert "images_background.zip" in message and "omniglot-py" in message and "\n" not in message


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "oficial"}, "split = 'oficial', expected .*did you mean 'official'"),
        ({"subset": "evaluation"}, "has no meaning with split = 'official'"),
        ({"split": "drawer", "subset": "both"}, "subset = 'both', expected"),
        ({"size": 0}, "size = 0"),
        ({"split": "drawer", "test_drawers": 20}, "test_drawers = 20, expected 1 to 19"),
    ],
)
def test_bad_arguments_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(TzkError, match=message):
        Omniglot(**arguments)


@pytest.mark.slow
@has_omniglot
def test_the_real_omniglot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZK_CACHE", str(tmp_path))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # the pixels are checked
        data = Omniglot()
        counts = [len(data.split(split)) for split in ("train", "validation", "test")]
    assert counts == [18_280, 1000, 13_180]
    train = data.split("train")
    assert len(set(train.labels["alphabet"])) == 30 and len(set(train.labels["character"])) == 964
    drawer = Omniglot(split="drawer", subset="all", validation=0)
    assert [len(drawer.split(split)) for split in ("train", "test")] == [1623 * 16, 1623 * 4]
